"""What a command says of a grant that is not there."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from jitvault.cli.commands.requests.grant import raise_for
from jitvault.documents.published_task import ChainEnd, PublishedTask
from jitvault.errors import WrongState
from jitvault.model.revision import Revision
from jitvault.model.states import State

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


def test_a_task_whose_token_may_not_have_been_made_is_not_granted() -> None:
    """Vault's answer to the create was lost: a script must not go on with an exit code of 0 and no token."""
    with pytest.raises(WrongState, match="is issuing, and its token is not issued yet"):
        raise_for(TASK, waited=1.0)
    raise_for(TASK)
    raise_for(msgspec.structs.replace(TASK, state=State.ISSUED), waited=1.0)
