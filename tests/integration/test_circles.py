"""What Vault refuses again and again is tried ever more rarely, and people are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from rig import Rig

from jitvault.errors import JitvaultError
from jitvault.lifecycle.issuance import attempts
from jitvault.model.states import State

pytestmark = pytest.mark.usefixtures("lab", "hurried")
Spec = Callable[..., Path]
QUOTA = "sys/quotas/rate-limit/no-token"
CREATE = "auth/token/create/jitvault-15m"


@contextmanager
def no_token_is_made(rig: Rig) -> Iterator[None]:
    """Vault answers each create with 429, which leaves no line."""
    rig.admin.write(QUOTA, {"path": CREATE, "rate": 1, "interval": "1h"})
    try:
        # what is left over for this hour
        with suppress(JitvaultError):
            rig.vault("nobody").write(CREATE)
        yield
    finally:
        rig.admin.delete(QUOTA)


def tried_until(rig: Rig, file: Path, is_so: Callable[[], bool]) -> None:
    """Whether a create that was answered with 429 was done is known after Vault's longest request."""
    for _ in range(8):
        rig("operator", "grant", file, code=None)
        if is_so():
            return
        rig.settle()
        time.sleep(1)
    raise AssertionError(rig.record(file.stem).operations)


def test_a_token_that_vault_never_makes_is_tried_ever_more_rarely_and_told(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other = spec(), spec()
    monkeypatch.setattr(attempts, "_FINDING_AFTER", 5)
    with no_token_is_made(rig):
        monkeypatch.setattr(attempts, "pause_after", lambda _: timedelta(minutes=1))
        tried_until(rig, file, lambda: "in a row" in rig("operator", "grant", file, code=None).stderr)
        task = rig.record(file.stem)
        assert (task.task.state, len(task.grants)) == (State.ISSUING, 3)
        assert "in 3 attempts in a row" in rig("operator", "grant", file, code=6).error["message"]
        monkeypatch.setattr(attempts, "pause_after", lambda _: timedelta(0))
        rig("operator", "grant", other, code=None)
        tried_until(rig, file, lambda: rig.findings(file.stem) != [])
        assert rig.findings(file.stem) == ["issue_in_vain"]
        rig.settle()
        time.sleep(1)
        assert rig("operator", "revoke", file.stem, "--reason", "not today", code=12).json["state"] == "confirmed"
    # what was refused for a while and was not ended is issued
    rig.settle()
    time.sleep(1)
    assert rig("operator", "grant", other).json["state"] == "issued"


def test_the_pause_between_attempts_doubles_up_to_five_minutes() -> None:
    pauses = [attempts.pause_after(count).total_seconds() for count in (3, 4, 5, 11, 12, 60)]
    assert pauses == [1, 2, 4, 256, 300, 300]
