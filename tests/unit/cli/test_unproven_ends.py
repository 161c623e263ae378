"""What a command says of an end that is not proven."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from test_published_task import honest

from jitvault.cli.ends import end_unproven, kill_switch
from jitvault.errors import NotConfirmed, NoWorkerActed
from jitvault.model.states import DEAD, EndReason, State, Verdict

HOUR = timedelta(hours=1)
NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
HERE: Any = SimpleNamespace(has_worker=False, clock=SimpleNamespace(agreed=lambda: NOW))


@pytest.fixture(autouse=True)
def operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end_unproven, "is_operator", lambda _: True)


@pytest.mark.parametrize("reason", [EndReason.EXPIRED, EndReason.OPERATOR])
@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
@pytest.mark.parametrize("verdict", [Verdict.ACKNOWLEDGED, Verdict.AUDIT_CONFIRMED])
def test_nobody_is_told_to_force_an_expiry_that_is_proven_by_itself(
    reason: EndReason, ahead: timedelta, verdict: Verdict
) -> None:
    ending = honest(state=State.ENDING, end_reason=reason, expires_at=NOW + ahead)
    assert ending.proof is not None
    proof = replace(ending.proof, token=replace(ending.proof.token, verdict=verdict))
    hint = end_unproven.not_confirmed(HERE, replace(ending, proof=proof)).hint
    waits = reason is EndReason.EXPIRED and ahead > timedelta(0) and verdict not in DEAD
    assert (f"proves it by itself within minutes after {NOW + ahead:%Y-%m-%d %H:%M:%S} UTC" in hint) is waits
    assert ("--force" in hint) is not waits


def test_a_task_that_a_worker_has_revoked_does_not_wait_for_a_worker() -> None:
    late = NoWorkerActed("no worker has done this within 4 s")
    ending = honest(state=State.ENDING, error=None)
    assert ending.proof is not None and all(one.verdict is not Verdict.LIVE for one in ending.proof.credentials)
    assert isinstance(kill_switch._why_missed(HERE, ending, late), NotConfirmed)
    assert kill_switch._why_missed(HERE, honest(state=State.ISSUED, proof=None), late) is late
