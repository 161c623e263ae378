"""Copy a ledger to another database, whole or not at all."""

from __future__ import annotations

from sqlalchemy import Connection, Table, insert, select, update

from jitvault.errors import SecurityFinding, WrongState
from jitvault.ledger.chains import broken, counts
from jitvault.ledger.claims import is_free
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import set_numbers

_ROWS_AT_ONCE = 1_000
_CLAIMED = (schema.tasks, schema.audit_sources, schema.installation)
_NUMBERED = ("findings", "freezes")


def copy(source: Database, target: Database) -> dict[str, int]:
    """Copy everything into an empty ledger; return the row counts.

    Nothing is written to the source meanwhile. Every chain is verified in the target before anything is committed.
    Raises WrongState where the target holds rows or a process holds a claim, SecurityFinding for a chain that is not
    whole, and LedgerUnavailable.
    """
    return source.write(lambda from_: target.write(lambda to: _copied(from_, to), alone=True), alone=True)


def _copied(source: Connection, target: Connection) -> dict[str, int]:
    held = [table.name for table in _CLAIMED if source.execute(select(table).where(~is_free(table)).limit(1)).first()]
    if held:
        raise WrongState(
            "a process still holds a claim in the ledger",
            hint="Stop the workers and run it again. The claim of a dead process is over after 30 s.",
        )
    if any(counts(target).values()):
        raise WrongState("the target holds a ledger already", hint="Name an empty database.")
    for table in schema.metadata.sorted_tables:
        _copy_table(source, target, table)
    _name_parents(source, target)
    for name in _NUMBERED:
        set_numbers(target, name)
    copied = counts(target)
    if copied != counts(source):
        raise _not_copied("not every row was copied")
    for task_id in dict(broken(target)):
        raise _not_copied(f"the chain of task {task_id} is not whole")
    return copied


def _not_copied(why: str) -> SecurityFinding:
    return SecurityFinding(f"nothing was copied: {why}", hint="`jitvault ledger check` says more.")


def _copy_table(source: Connection, target: Connection, table: Table) -> None:
    rows = source.execution_options(yield_per=_ROWS_AT_ONCE).execute(select(table)).mappings()
    for partition in rows.partitions(_ROWS_AT_ONCE):
        values = [dict(row) for row in partition]
        if table is schema.tasks:
            # a parent can come after its child; `_name_parents` sets the reference later
            values = [{**row, "parent": None} for row in values]
        target.execute(insert(table), values)


def _name_parents(source: Connection, target: Connection) -> None:
    task = schema.tasks.c
    query = select(task.task_id, task.parent).where(task.parent.is_not(None))
    for task_id, parent in source.execute(query):
        target.execute(update(schema.tasks).where(task.task_id == task_id).values(parent=parent))
