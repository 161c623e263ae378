"""Whose request Ctrl-C withdraws."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from jitvault.cli.access.giving_back import is_withdrawable
from jitvault.documents.published_task import ChainEnd, PublishedTask
from jitvault.model.revision import Revision
from jitvault.model.states import State

_MINE = PublishedTask(
    task_id="t-1",
    state=State.PENDING_APPROVAL,
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
    written_at=datetime(2026, 11, 24, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("changes", "is_withdrawn"),
    [
        ({}, True),
        ({"state": State.ISSUED}, True),
        # another process has the access
        ({"state": State.ACTIVE}, False),
        ({"state": State.DENIED}, False),
        # another operator asked by the same id at the same moment
        ({"requester": "e-3"}, False),
        ({"requester": "e-3", "state": State.ISSUED}, False),
    ],
)
def test_only_the_own_request_is_withdrawn(changes: dict[str, Any], is_withdrawn: bool) -> None:
    assert is_withdrawable(msgspec.structs.replace(_MINE, **changes), "e-1") is is_withdrawn
