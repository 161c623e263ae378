"""The statements that write the renewals of held tasks (`jitvault.ledger.upkeep`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from jitvault.errors import WrongState
from jitvault.ledger.claims import LEFT, Taken, is_free, taking
from jitvault.ledger.model import GrantRow, LeaseRow, OperationRow, TaskRecord
from jitvault.ledger.rows import put
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import batches
from jitvault.ledger.task_change import settle_seen, write_change
from jitvault.ledger.upkeep import RENEWALS, Begun, Intended, Upkeep, record_after_upkeep
from jitvault.model.kinds import OperationKind

# built once: building a statement costs more than running it
_TASK, _LINE, _OP = schema.tasks.c, schema.observations.c, schema.operations.c
_CLAIMS = (
    select(_TASK.task_id, _TASK.claim_epoch)
    .where(_TASK.task_id.in_(bindparam("tasks", expanding=True)))
    .order_by(_TASK.task_id)
    .with_for_update(key_share=True)
)
_FOUND = (
    select(_TASK.task_id, _TASK.version, _TASK.due_at, _TASK.claim_epoch, is_free(schema.tasks).label("free"))
    .where(_TASK.task_id.in_(bindparam("tasks", expanding=True)))
    .with_for_update(key_share=True, skip_locked=True)
)
_TAKE = (
    taking(schema.tasks)
    .where(_TASK.task_id.in_(bindparam("tasks", expanding=True)))
    .returning(_TASK.task_id, _TASK.claim_epoch)
)
_GIVE_BACK = (
    update(schema.tasks).where(_TASK.task_id == bindparam("key")).values(claim_until=LEFT, keeper=bindparam("by"))
)
_DUE = update(schema.tasks).where(_TASK.task_id == bindparam("key")).values(due_at=bindparam("at"))
_RENEW_AT = {
    kind: update(table).where(table.c[key] == bindparam("key")).values(renew_at=bindparam("at"))
    for kind, table, key in ((GrantRow, schema.grants, "grant_id"), (LeaseRow, schema.leases, "lease_id"))
}
_RENEWAL_LINES = (
    select(_LINE.line)
    .join_from(schema.operations, schema.observations, _LINE.op == _OP.op_id)
    .where(_OP.task_id == bindparam("task_id"), _OP.kind.in_(RENEWALS), _OP.sent_at >= bindparam("since"))
    .order_by(_LINE.at, _LINE.line)
)
_RENEWED_AT = select(func.max(_OP.answered_at)).where(
    _OP.task_id == bindparam("task_id"),
    _OP.kind == OperationKind.RENEW_TOKEN,
    _OP.subject == bindparam("subject"),
    _OP.answer == bindparam("answer"),
)


class UpkeepQueries:
    """Write the renewals of held tasks; a part of `Ledger`."""

    _db: Database
    _lent: dict[str, Taken]
    _this: str

    def keep_up(self, record: TaskRecord, upkeep: Upkeep) -> TaskRecord:
        """Write what a look at one task changes; return the task's record after it.

        Raises WrongState when the claim was lost.
        """
        if self.keep_up_all([upkeep]):
            raise WrongState(f"another process took over task {upkeep.task_id}", hint="Run the command again.")
        return record_after_upkeep(record, upkeep)

    def keep_up_all(self, upkeeps: Sequence[Upkeep]) -> set[str]:
        """Write what looks at several tasks change, in one transaction.

        Returns the tasks whose claim was lost: nothing is written of them.
        """

        def unit(connection: Connection) -> set[str]:
            claims = {upkeep.task_id: upkeep.claim for upkeep in upkeeps}
            held: set[str] = set()
            for batch in batches(sorted(claims)):
                rows = connection.execute(_CLAIMS, {"tasks": batch})
                held |= {row.task_id for row in rows if row.claim_epoch == claims[row.task_id]}
            _write(connection, [upkeep for upkeep in upkeeps if upkeep.task_id in held], self._this)
            return set(claims) - held

        return self._db.write(unit)

    def begin_renewals(self, intended: Sequence[Intended], at: datetime) -> dict[str, Begun]:
        """Claim tasks, and write their events and the intents of their renewals, in one transaction.

        A claim that was lent here is continued. A task is left out that another process has, or that is not as it was:
        every event raises its version, and every renewal changes when it is due. The lent claim of one that is left out
        has still to be given back.
        """
        wanted = {each.task.task_id: each for each in intended}
        # no other thread may take one back from here on
        taken = {task_id: self._lent.pop(task_id, None) for task_id in wanted}
        lent = {task_id: each for task_id, each in taken.items() if each is not None}
        begun: dict[str, Begun] = {}
        try:
            begun = self._db.write(lambda connection: _begin(connection, wanted, lent, at))
        finally:
            self._lent |= {task_id: each for task_id, each in lent.items() if task_id not in begun}
        return begun

    def renewal_lines(self, task_id: str, since: datetime) -> list[str]:
        """Return the audit lines of the renewals of a task that were sent since then, the oldest first."""
        with self._db.read() as connection:
            return list(connection.execute(_RENEWAL_LINES, {"task_id": task_id, "since": since}).scalars())

    def renewed_at(self, grant: GrantRow, answer: str) -> datetime | None:
        """Return when Vault last gave this answer to a renewal of a token, None if never.

        The time is by a worker's clock. What was looked up after its answer was lost has another answer: it may not
        have been done.
        """
        asked = {"task_id": grant.task_id, "subject": grant.accessor_hmac, "answer": answer}
        with self._db.read() as connection:
            return connection.execute(_RENEWED_AT, asked).scalar()


def _begin(
    connection: Connection, wanted: Mapping[str, Intended], lent: Mapping[str, Taken], at: datetime
) -> dict[str, Begun]:
    epochs: dict[str, int] = {}
    for batch in batches(sorted(wanted)):
        rows = [row for row in connection.execute(_FOUND, {"tasks": batch}) if _is_as_it_was(row, wanted)]
        ours = [row.task_id for row in rows if row.free or _is_lent(row, lent)]
        if ours:
            taken = connection.execute(_TAKE, {"tasks": ours})
            epochs |= {row.task_id: row.claim_epoch for row in taken}
    put(connection, [op for task_id in epochs if wanted[task_id].change is None for op in wanted[task_id].ops])
    written = {
        task_id: write_change(connection, wanted[task_id].task, change, at, claim=epoch)
        for task_id, epoch in epochs.items()
        if (change := wanted[task_id].change) is not None
    }
    return {task_id: Begun(epoch, written.get(task_id)) for task_id, epoch in epochs.items()}


def _is_lent(row: Any, lent: Mapping[str, Taken]) -> bool:
    return row.task_id in lent and row.claim_epoch == lent[row.task_id].epoch


def _write(connection: Connection, upkeeps: Sequence[Upkeep], this: str) -> None:
    """Write upkeeps of this process, one statement for all rows of a kind."""
    rows = [row for upkeep in upkeeps for row in upkeep.rows]
    for kind, statement in _RENEW_AT.items():
        key = "grant_id" if kind is GrantRow else "lease_id"
        renewed = [{"key": getattr(row, key), "at": row.renew_at} for row in rows if isinstance(row, kind)]
        if renewed:
            connection.execute(statement, renewed)
    operations = [row for row in rows if isinstance(row, OperationRow)]
    put(connection, operations)
    settle_seen(connection, operations)
    due = [{"key": upkeep.task_id, "at": upkeep.fields["due_at"]} for upkeep in upkeeps if "due_at" in upkeep.fields]
    if due:
        connection.execute(_DUE, due)
    given_back = [{"key": each.task_id, "by": this if each.stays else None} for each in upkeeps if each.gives_back]
    if given_back:
        connection.execute(_GIVE_BACK, given_back)


def _is_as_it_was(row: Any, wanted: Mapping[str, Intended]) -> bool:
    task = wanted[row.task_id].task
    return (row.version, row.due_at) == (task.version, task.due_at)
