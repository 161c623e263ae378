"""Which credentials Vault said that it revoked, and no later look-up found: these are not revoked once more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jitvault.ledger.model import OperationRow, OpState
from jitvault.lifecycle.revocation.revoke import _acknowledged_subjects
from jitvault.operations import DONE

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
REVOKED = OperationRow("op-1", "t-1", "revoke_lease", "creds/1", OpState.SETTLED, DONE, NOW, NOW)
REFUSED = replace(REVOKED, state=OpState.ABANDONED, answer="it failed")
# what answered has no line: it was not Vault, or the line is still to come
INVENTED = replace(REVOKED, state=OpState.ANSWERED)
FOUND = replace(REVOKED, kind="lookup_lease", answer="live")
GONE = replace(FOUND, answer="gone")


def acknowledged(*operations: OperationRow) -> set[str]:
    """Of operations that were answered a second apart, in this order."""
    answered = [replace(op, answered_at=NOW + timedelta(seconds=n)) for n, op in enumerate(operations)]
    # the ledger gives them by when they were sent, and intents are committed before what comes first
    return _acknowledged_subjects(cast(Any, SimpleNamespace(events=(), operations=tuple(reversed(answered)))))


@pytest.mark.parametrize(
    ("operations", "is_acknowledged"),
    [
        ((REVOKED,), True),
        ((REVOKED, GONE), True),
        ((FOUND, REVOKED, GONE), True),
        ((REFUSED, GONE), False),
        ((INVENTED, GONE), False),
        ((INVENTED, GONE, REVOKED, GONE), True),
        ((REVOKED, FOUND), False),
        # it was there after Vault had said so, and what ended it then may have been Vault's own queue
        ((REVOKED, FOUND, REFUSED, GONE), False),
        ((REVOKED, FOUND, REVOKED, GONE), True),
    ],
)
def test_what_was_found_after_vault_said_that_it_ended_it_is_not_called_ended(
    operations: tuple[OperationRow, ...], *, is_acknowledged: bool
) -> None:
    assert acknowledged(*operations) == ({"creds/1"} if is_acknowledged else set())
