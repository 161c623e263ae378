"""A decision that no worker has read waits for one while it is about what is decided about, and has not expired."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from test_published_task import NOW, REVISION, honest

from jitvault.documents.signed import DecisionDocument
from jitvault.formats.rfc3339 import rfc3339
from jitvault.lifecycle.decision.pending_approvals import approval_subject, can_count
from jitvault.model.states import State

HALF_AN_HOUR = timedelta(minutes=30)
MICROSECOND = timedelta(microseconds=1)
SIGNED: dict[str, Any] = {
    **{"kind": "decision", "task": "t-1", "entity": "e-2", "nonce": "n", "at": rfc3339(NOW)},
    **{"digest": REVISION.digest, "revision": 1, "requester": "e-req", "decision": "approve"},
    **{"groups": ("g",), "reason": "", "expires_at": rfc3339(NOW + timedelta(days=1))},
}


@pytest.mark.parametrize(
    ("changes", "after", "counts"),
    [
        ({}, HALF_AN_HOUR - MICROSECOND, True),
        ({}, HALF_AN_HOUR, False),
        ({"expires_at": rfc3339(NOW + MICROSECOND)}, MICROSECOND, False),
        ({"decision": "deny"}, timedelta(days=9), True),
        ({"digest": "sha256:" + "0" * 64}, MICROSECOND, False),
        ({"decision": "deny", "digest": "sha256:" + "0" * 64}, MICROSECOND, False),
    ],
)
def test_what_waits_for_a_worker_can_still_count(changes: dict[str, Any], after: timedelta, *, counts: bool) -> None:
    decision = DecisionDocument(**{**SIGNED, **changes})
    subject = approval_subject(honest(state=State.PENDING_APPROVAL))
    assert can_count(decision, NOW, subject, NOW + after) is counts
    assert not can_count(decision, NOW, None, NOW)
