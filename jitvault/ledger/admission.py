"""How much is held, and what is open about an agent: what is counted before more is granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, select, update

from jitvault.domain.lifecycle import HOLDING, State
from jitvault.domain.question import Load
from jitvault.domain.trip import OF_AGENT
from jitvault.ledger import schema
from jitvault.ledger.database import Database
from jitvault.ports.admission import Admit

# until all of it is proven dead a task may hold what it had
_COUNTS = tuple(state.value for state in (*HOLDING, State.ENDING))


class SqlAdmission:
    """`jitvault.ports.admission.Admission` with SQLAlchemy Core."""

    _db: Database

    def load(
        self, agent: str, owner: str, templates: Sequence[str], *, besides: str, since: datetime
    ) -> Mapping[str, Load]:
        with self._db.read() as connection:
            return _load(connection, agent, owner, templates, besides=besides, since=since)

    def close_findings(self, agent: str, why: str, at: datetime) -> int:
        table, task = schema.findings, schema.tasks.c
        own = select(task.task_id).where(task.agent == agent)
        close = update(table).where(table.c.task_id.in_(own), _is_open()).values(closed_at=at, closed_why=why[:500])
        return self._db.write(lambda c: c.execute(close).rowcount)


def admit(connection: Connection, asked: Admit) -> None:
    """Have `asked` judged on what is held now, in a transaction that runs alone: who is judged after this one sees it.

    Raises what its judge raises.
    """
    loads = _load(connection, asked.agent, asked.owner, asked.templates, besides=asked.task_id, since=asked.since)
    asked.judge(loads, _living_children(connection, asked.parent, besides=asked.task_id) if asked.parent else ())


def _living_children(connection: Connection, parent: str, *, besides: str) -> list[bytes]:
    task, revision = schema.tasks.c, schema.revisions.c
    current = and_(task.task_id == revision.task_id, task.revision == revision.revision)
    query = (
        select(revision.body)
        .select_from(schema.tasks.join(schema.revisions, current))
        .where(task.parent == parent, task.state.in_(_COUNTS), task.task_id != besides)
        .order_by(task.task_id)
    )
    return list(connection.execute(query).scalars())


def _load(
    connection: Connection, agent: str, owner: str, templates: Sequence[str], *, besides: str, since: datetime
) -> Mapping[str, Load]:
    def budget(whose: str, name: str) -> int:
        return int(connection.execute(_BUDGETS[whose], {"name": name, "besides": besides}).scalar_one())

    of_agent, of_owner = budget("agent", agent), budget("owner", owner)
    findings = connection.execute(_FINDINGS, {"agent": agent, "since": since}).scalar_one()
    return {name: Load(of_agent, of_owner, budget("template", name), findings) for name in templates}


def _is_open() -> ColumnElement[bool]:
    finding = schema.findings.c
    return and_(finding.closed_at.is_(None), finding.rule.in_([rule.value for rule in sorted(OF_AGENT)]))


def _budget(whose: str) -> Select[int]:
    access, task = schema.accesses.c, schema.tasks.c
    current = and_(task.task_id == access.task_id, task.revision == access.revision)
    return (
        select(func.coalesce(func.sum(access.lease_budget), 0))
        .select_from(schema.tasks.join(schema.accesses, current))
        .where(task.state.in_(_COUNTS), task.task_id != bindparam("besides"), access[whose] == bindparam("name"))
    )


# made once: to put one together takes longer than to run it
_BUDGETS = {whose: _budget(whose) for whose in ("agent", "owner", "template")}
_FINDINGS = (
    select(func.count())
    .select_from(schema.findings.join(schema.tasks, schema.tasks.c.task_id == schema.findings.c.task_id))
    .where(schema.tasks.c.agent == bindparam("agent"), schema.findings.c.at > bindparam("since"), _is_open())
)
