"""The look-ups of a credential: what Vault answered, whose lines the domain looks for in the stream; and once more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jitvault.context import WorkerContext
from jitvault.ledger.model import GrantRow, LeaseRow, OperationRow, TaskRecord
from jitvault.lifecycle.revocation.revoke import DEAD
from jitvault.model.kinds import OperationKind
from jitvault.model.states import Verdict

_KINDS = (OperationKind.LOOKUP_TOKEN, OperationKind.LOOKUP_LEASE)


def proven_before(file: TaskRecord) -> list[GrantRow | LeaseRow]:
    """The credentials of a task that nobody was asked about since they were proven dead."""
    rows: tuple[GrantRow | LeaseRow, ...] = (*file.grants, *file.leases)
    return [row for row in rows if row.verdict in DEAD]


def is_any_live(worker: WorkerContext, credentials: Iterable[GrantRow | LeaseRow]) -> bool:
    """Whether Vault has one of them at this moment. One that was restored has back what it had ended.

    An attempt that was never issued is nobody's: what comes back of it is an orphan, and a sweep's to end.
    """
    # all of them: one that was not seen alive after a restore could not be proven dead after it
    found = [_has(worker, row) for row in credentials]
    return any(found)


def _has(worker: WorkerContext, row: GrantRow | LeaseRow) -> bool:
    if isinstance(row, LeaseRow):
        return worker.leases.lookup(row.lease_id) is not None
    if row.verdict is Verdict.NEVER_ISSUED:
        return False
    if row.wrapped_accessor:
        return worker.tokens.lookup_accessor(row.wrapped_accessor) is not None
    # its accessor was lost in a crash
    return bool(row.token_lease) and worker.leases.lookup(row.token_lease or "") is not None


def gone_lookups(operations: Sequence[OperationRow], subject: str) -> frozenset[str]:
    """The ids of look-ups of `subject` that Vault answered with "there is no such thing"."""
    return _lookups(operations, subject, "gone")


def live_lookups(operations: Sequence[OperationRow], subject: str) -> frozenset[str]:
    """The ids of look-ups of `subject` that found it alive."""
    return _lookups(operations, subject, "live")


def last_found(operations: Sequence[OperationRow], subject: str) -> str | None:
    """What the newest look-up of `subject` found, "gone" or "live"; None where Vault answered none."""
    looked = (op for op in operations if op.kind in _KINDS and op.subject == subject)
    newest = max(looked, key=lambda op: op.sent_at, default=None)
    return newest.answer if newest else None


def _lookups(operations: Sequence[OperationRow], subject: str, answer: str) -> frozenset[str]:
    return frozenset(
        op.op_id for op in operations if op.kind in _KINDS and op.subject == subject and op.answer == answer
    )
