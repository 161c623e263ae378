"""What a command says of a wait that nobody ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

import msgspec
import pytest

from jitvault.cli import session
from jitvault.documents.published_task import ChainEnd, PublishedError, PublishedTask
from jitvault.errors import AuditUntrusted, JitvaultError, WaitTimedOut
from jitvault.model.revision import Revision
from jitvault.model.states import State
from jitvault.wiring import Wiring

NOW = datetime(2026, 12, 1, tzinfo=UTC)
TASK = PublishedTask(
    task_id="t-1",
    state=State.ISSUING,
    revision=1,
    body=b"{}",
    requester="e-1",
    agent="e-2",
    parent=None,
    chain=ChainEnd(1, "h1"),
    end_reason=None,
    grant_id=None,
    ends_at=None,
    decision={},
    ttl={},
    receipt=None,
    digest=Revision.of(b"{}").digest,
    written_at=NOW,
)


class NoLedger:
    """What a command has on a person's own machine."""

    has_ledger = False


LAGS = PublishedError(AuditUntrusted.exit_code, "its last lines are missing", "Repair it.")


@pytest.mark.parametrize(
    ("since", "kind"), [(NOW - timedelta(seconds=1), AuditUntrusted), (NOW + timedelta(seconds=1), WaitTimedOut)]
)
def test_a_wait_ends_with_what_a_worker_met_meanwhile(since: datetime, kind: type[JitvaultError]) -> None:
    """What it met before says nothing of this request: perhaps no worker lives any more."""
    document = msgspec.structs.replace(TASK, error=LAGS)
    # nobody is asked where the document says what is wrong
    found = session._not_done(cast("Wiring", NoLedger()), "t-1", document, since, "no worker has done this within 9 s")
    assert type(found) is kind
    assert str(found) == "task t-1: no worker has done this within 9 s: its last lines are missing"
