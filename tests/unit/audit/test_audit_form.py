"""What an audit device's options make of its lines is told from the lines, and from the newest that tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.audit_form import ELIDED, JSONX, PLAIN_ACCESSORS, RAW, wrong_form

RECORDED = Path(__file__).parents[2] / "data" / "audit-lines"
AUTH = {"accessor": "hmac-sha256:aa", "client_token": "hmac-sha256:bb"}
PLAIN = {"accessor": "a0b1", "client_token": "hmac-sha256:bb"}
OPEN = {"accessor": "a0b1", "client_token": "hvs.x"}
WHOLE, LENGTH = {"keys": ["hmac-sha256:cc"]}, {"keys": 2}


def line(auth: dict[str, str] | None = None, listed: dict[str, Any] | None = None, prefix: bytes = b"") -> bytes:
    entry: dict[str, Any] = {"time": "2026-11-28T00:49:50Z", "type": "response", "auth": auth or AUTH}
    entry["request"] = {"path": "sys/leases/lookup/x/", "operation": "read" if listed is None else "list"}
    if listed is not None:
        entry["response"] = {"data": listed}
    return prefix + json.dumps(entry).encode() + b"\n"


XML = b'<json:object name="auth"><json:string name="accessor">hmac-sha256:aa</json:string></json:object>'


@pytest.mark.parametrize(
    ("tail", "wrong"),
    [
        (b"", ""),
        (line(), ""),
        (line(listed=WHOLE), ""),
        # an empty listing has no keys, and one of nothing but a number is no listing's
        (line(listed={}), ""),
        (line(listed={"keys": True}), ""),
        (line(PLAIN), PLAIN_ACCESSORS),
        (line(OPEN), RAW),
        (line(listed=LENGTH), ELIDED),
        (line(listed=LENGTH, prefix=b"@cee: "), ELIDED),
        (XML, JSONX),
        (XML + b'<json:string name="type">request</json:string>\n', JSONX),
        # the newest that tells counts
        (line(PLAIN) + line(), ""),
        (line() + line(PLAIN), PLAIN_ACCESSORS),
        (line(listed=LENGTH) + line(listed=WHOLE) + line(), ""),
        (line(listed=WHOLE) + line(listed=LENGTH) + line(), ELIDED),
        (XML + b"\n" + line(), ""),
        # what cannot be read tells nothing
        (b'cessor":"a0b1"}}\n' + line() + b"\xff\n{}\n" + line()[:70], ""),
        (line(PLAIN) + b"[1]\n\n{" + b'"a":' * 50_000 + b"\n", PLAIN_ACCESSORS),
        # a client can send any XML; it stands inside of a line
        (line(prefix=b"</json:object> "), ""),
    ],
)
def test_the_form_is_told_by_the_newest_line_that_tells(tail: bytes, wrong: str) -> None:
    assert wrong_form(tail) == wrong


@given(st.lists(st.binary(max_size=40) | st.sampled_from([line(), line(PLAIN), line(listed=LENGTH), XML]), max_size=6))
def test_whatever_stands_in_a_log_is_judged(pieces: list[bytes]) -> None:
    assert wrong_form(b"".join(pieces)) in {"", JSONX, RAW, PLAIN_ACCESSORS, ELIDED}


@pytest.mark.parametrize("server", ["openbao-2.7.2", "vault-1.14.9"])
def test_nothing_is_wrong_with_the_lines_of_a_device_as_it_comes(server: str) -> None:
    requests = map(json.loads, (RECORDED / f"{server}.jsonl").read_text().splitlines())
    lines = [line for request in requests for line in request["lines"]]
    assert wrong_form(b"".join(json.dumps(line).encode() + b"\n" for line in lines)) == ""
    for n in range(len(lines)):
        assert wrong_form(json.dumps(lines[n]).encode() + b"\n") == ""
