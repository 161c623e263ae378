"""A ledger moved to another database: whole, or not at all."""

from __future__ import annotations

from sqlalchemy import Connection, Table, insert, select, update

from jitvault.errors import SecurityFinding, WrongState
from jitvault.ledger import schema
from jitvault.ledger.chains import broken, counts
from jitvault.ledger.claims import is_free
from jitvault.ledger.database import Database
from jitvault.ledger.dialect import set_numbers

_AT_ONCE = 1_000
_CLAIMED = (schema.tasks, schema.audit_sources, schema.installation)
_NUMBERED = ("findings", "freezes")


def copy(source: Database, target: Database) -> dict[str, int]:
    """Copy everything into a ledger with nothing in it; gives how many rows each table has.

    Nobody writes to the source meanwhile. Every chain is verified in the target before anything is committed. Raises
    WrongState where the target holds something or somebody holds a claim, SecurityFinding for a chain that is not
    whole, and LedgerUnavailable.
    """
    return source.write(lambda ours: target.write(lambda theirs: _copied(ours, theirs), alone=True), alone=True)


def _copied(source: Connection, target: Connection) -> dict[str, int]:
    held = [table.name for table in _CLAIMED if source.execute(select(table).where(~is_free(table)).limit(1)).first()]
    if held:
        raise WrongState(
            "somebody is working on the ledger", hint="Stop the workers and run it again: a claim is over after 30 s."
        )
    if any(counts(target).values()):
        raise WrongState("the target holds a ledger already", hint="Name an empty database.")
    for table in schema.metadata.sorted_tables:
        _copy_table(source, target, table)
    _name_parents(source, target)
    for name in _NUMBERED:
        set_numbers(target, name)
    found, there = counts(source), counts(target)
    if found != there or (torn := dict(broken(target))):
        what = f"the chain of task {next(iter(torn))} is not whole" if found == there else "not every row was copied"
        raise SecurityFinding(f"nothing was copied: {what}", hint="`jitvault ledger check` says more.")
    return there


def _copy_table(source: Connection, target: Connection, table: Table) -> None:
    rows = source.execution_options(yield_per=_AT_ONCE).execute(select(table)).mappings()
    for some in rows.partitions(_AT_ONCE):
        values = [dict(row) for row in some]
        if table is schema.tasks:
            # a parent can come after its child
            values = [{**row, "parent": None} for row in values]
        target.execute(insert(table), values)


def _name_parents(source: Connection, target: Connection) -> None:
    task = schema.tasks.c
    query = select(task.task_id, task.parent).where(task.parent.is_not(None))
    for task_id, parent in source.execute(query):
        target.execute(update(schema.tasks).where(task.task_id == task_id).values(parent=parent))
