"""How much is held, and what is open about an agent: what is counted before more is granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, bindparam, func, select, update

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
    asked = {"agent": agent, "owner": owner, "besides": besides, "since": since}
    of_agent, of_owner, findings = connection.execute(_OF_PEOPLE, asked).one()
    held = connection.execute(_OF_TEMPLATES, {"templates": list(templates), "besides": besides}).all()
    budgets = {row.template: int(row.budget) for row in held}
    return {name: Load(int(of_agent), int(of_owner), budgets.get(name, 0), findings) for name in templates}


def _is_open() -> ColumnElement[bool]:
    finding = schema.findings.c
    return and_(finding.closed_at.is_(None), finding.rule.in_([rule.value for rule in sorted(OF_AGENT)]))


_ACCESS, _TASK = schema.accesses.c, schema.tasks.c
_BUDGET = func.coalesce(func.sum(_ACCESS.lease_budget), 0)
_HELD = schema.tasks.join(schema.accesses, and_(_TASK.task_id == _ACCESS.task_id, _TASK.revision == _ACCESS.revision))
_COUNTED = and_(_TASK.state.in_(_COUNTS), _TASK.task_id != bindparam("besides"))
_FINDINGS = (
    select(func.count())
    .select_from(schema.findings.join(schema.tasks, _TASK.task_id == schema.findings.c.task_id))
    .where(_TASK.agent == bindparam("agent"), schema.findings.c.at > bindparam("since"), _is_open())
)


def _of(who: str) -> ScalarSelect[int]:
    return select(_BUDGET).select_from(_HELD).where(_COUNTED, _ACCESS[who] == bindparam(who)).scalar_subquery()


# made once: to put one together takes longer than to run it
_OF_PEOPLE = select(_of("agent"), _of("owner"), _FINDINGS.scalar_subquery())
_OF_TEMPLATES = (
    select(_ACCESS.template, _BUDGET.label("budget"))
    .select_from(_HELD)
    .where(_COUNTED, _ACCESS.template.in_(bindparam("templates", expanding=True)))
    .group_by(_ACCESS.template)
)
