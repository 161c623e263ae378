"""HashiCorp Vault takes a token in many spellings, since what it encodes counts. Whoever has one can write another.

A line shows the HMAC of the spelling that was sent. What is linked by accessor, or by the form that Vault keeps, is
seen whatever the spelling. What is done with a wrapping token is seen when it is opened, or when the agent cannot
open it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hands import THIEF, ask
from rig import PREFIX, Rig

pytestmark = [pytest.mark.usefixtures("lab"), pytest.mark.needs("two-forms")]
Spec = Callable[..., Path]
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def kept(token: str) -> str:
    """The form that Vault keeps: the random part of what the token encodes."""
    encoded = token.removeprefix("hvs.")
    content = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    found = re.search(rb"[0-9A-Za-z]{24}", content)
    assert found is not None
    return f"hvs.{found[0].decode()}"


def respelled(token: str) -> str:
    """Another last digit, whose lowest bits encode nothing."""
    assert len(token.removeprefix("hvs.")) % 4 == 3
    return token[:-1] + _DIGITS[_DIGITS.index(token[-1]) ^ 1]


def broken(token: str) -> str:
    """A line feed within, which the decoder passes over."""
    return f"{token[:40]}\n{token[40:]}"


@pytest.mark.parametrize("spelled", [kept, respelled])
def test_a_task_token_is_known_by_any_spelling(rig: Rig, spec: Spec, spelled: Callable[[str], str]) -> None:
    ended, renewed, wrapped = spec(), spec(), spec()
    token = spelled(rig.active(ended).token)
    assert rig("operator", "complete", ended.stem).json["confirmed"]
    assert ask(rig, "GET", PREFIX, token, source=THIEF)[0] == 403
    rig("operator", "status", ended.stem, code=12)
    assert rig.findings(ended.stem) == ["after_end"]
    body = {"token": spelled(rig.active(renewed).token), "increment": "300s"}
    assert ask(rig, "POST", "auth/token/renew", rig.world.admin_token.reveal(), body)[0] == 200
    rig("operator", "status", renewed.stem, code=12)
    assert rig.findings(renewed.stem) == ["renewed_by_others"]
    token = spelled(rig.active(wrapped).token)
    assert ask(rig, "GET", PREFIX, token, headers={"X-Vault-Wrap-TTL": "60s"})[0] == 200
    rig("operator", "status", wrapped.stem, code=12)
    assert rig.findings(wrapped.stem) == ["wrapped_lease"]


@pytest.mark.parametrize("spelled", [kept, respelled, broken])
def test_a_first_unwrap_is_seen_by_any_spelling(rig: Rig, spec: Spec, spelled: Callable[[str], str]) -> None:
    for by_header in (True, False):
        file = spec()
        given = rig.granted(file)["wrapping"][0]["token"]
        wrapping = spelled(given)
        if by_header and "\n" in wrapping:
            continue
        token, body = (wrapping, {}) if by_header else (rig.token_of("auditor"), {"token": wrapping})
        assert ask(rig, "PUT", "sys/wrapping/unwrap", token, body, source=THIEF)[0] == 200
        assert rig("operator", "status", file.stem).json["state"] == "active"
        # the agent finds it spent, and that tells everybody
        rig("agent", "unwrap", given, code=9)
        assert rig("operator", "status", file.stem, code=12).json["end_reason"] == "intercepted"
        assert rig.findings(file.stem) == ["unwrap_refused"]


@pytest.mark.parametrize(
    ("path", "spelled"),
    [("cubbyhole/response", kept), ("cubbyhole/response", respelled), ("unwrap", respelled), ("unwrap", broken)],
)
def test_a_wrapping_emptied_under_another_spelling_is_a_finding_when_the_agent_unwraps(
    rig: Rig, spec: Spec, path: str, spelled: Callable[[str], str]
) -> None:
    file = spec()
    wrapping = rig.granted(file)["wrapping"][0]["token"]
    if path == "cubbyhole/response":
        status, _ = ask(rig, "GET", path, spelled(wrapping), source=THIEF)
    else:
        again = {"X-Vault-Wrap-TTL": "60s"}
        own, body = rig.token_of("auditor"), {"token": spelled(wrapping)}
        status, _ = ask(rig, "PUT", "sys/wrapping/unwrap", own, body, source=THIEF, headers=again)
    assert status == 200
    # not guarded (docs/security/threat-model.md): nothing in those lines names a token that is known
    assert rig("operator", "status", file.stem).json["state"] == "issued"
    assert rig.findings(file.stem) == []
    rig("agent", "unwrap", wrapping, code=9)
    shown = rig("operator", "status", file.stem, code=12).json
    assert rig.findings(file.stem) == ["unwrap_refused"]
    assert shown["end_reason"] == "intercepted"
    assert rig.task_tokens(file.stem) == []
