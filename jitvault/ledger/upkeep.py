"""Write what the renewals of a held task change, without an event of its chain.

No digest of the chain covers operations, nor when a worker looks at a task next, nor when a credential is renewed next
(`jitvault.ledger.row_digests.CHANGED_BY_RENEWAL`). What a proof rests on, the latest time at which the token can
expire, is committed ahead for several renewals, by an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from jitvault.ledger.model import Change, GrantRow, LeaseRow, OperationRow, OpState, TaskRecord, TaskRow
from jitvault.model.kinds import OperationKind

if TYPE_CHECKING:
    from jitvault.ledger.task_change import WrittenChange

RENEWALS = (OperationKind.RENEW_TOKEN, OperationKind.RENEW_LEASE)

_Credential = TypeVar("_Credential", GrantRow, LeaseRow)


@dataclass(frozen=True, slots=True)
class Intended:
    """Renewals that are about to be sent, of a task as it was when that was decided.

    `change`, where given, is an event that has to be committed before, with `ops` among its rows.
    """

    task: TaskRow
    ops: tuple[OperationRow, ...]
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A task whose renewals may be sent now.

    `claim` is the epoch of its claim, and `written` what its event made of it, if it had one.
    """

    claim: int
    written: WrittenChange | None


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What one look at a held task writes.

    `claim` is the epoch of the caller's claim. `rows` are operations, and credentials of which `renew_at` alone is
    written. `fields` has `due_at` where that changes. With `gives_back` other processes can have the claim at once, and
    know that its renewal did nothing else that was wanted of the task. With `stays` this process renews it with others
    from then on, so that other processes leave it alone until it is late.
    """

    task_id: str
    claim: int
    rows: tuple[GrantRow | LeaseRow | OperationRow, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    gives_back: bool = False
    stays: bool = False


def record_after_upkeep(record: TaskRecord, upkeep: Upkeep) -> TaskRecord:
    """Return a record as an upkeep leaves it, without reading it again.

    Renewals that were answered are not in it: their lines settle them, which changes nothing else of the task.
    """
    grants = {row.grant_id: row for row in upkeep.rows if isinstance(row, GrantRow)}
    leases = {row.lease_id: row for row in upkeep.rows if isinstance(row, LeaseRow)}
    changed = {row.op_id: row for row in upkeep.rows if isinstance(row, OperationRow)}
    operations = {op.op_id: op for op in record.operations} | changed
    is_open = (OpState.INTENDED, OpState.UNKNOWN)
    return replace(
        record,
        task=replace(record.task, **upkeep.fields),
        grants=tuple(_renewed(row, grants.get(row.grant_id)) for row in record.grants),
        leases=tuple(_renewed(row, leases.get(row.lease_id)) for row in record.leases),
        operations=tuple(op for op in operations.values() if op.kind not in RENEWALS or op.state in is_open),
    )


def _renewed(row: _Credential, after: _Credential | None) -> _Credential:
    return row if after is None else replace(row, renew_at=after.renew_at)
