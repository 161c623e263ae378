"""How much is held, and what is open about an agent: what is counted before more is granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, func, select, update

from jitvault.audit.tripwires.trip import OF_AGENT
from jitvault.ledger import schema
from jitvault.ledger.database import Database
from jitvault.ledger.model import GrantAdmission
from jitvault.model.states import LIVE_STATES, State
from jitvault.policy.question import HeldLeases

# until all of it is proven dead a task may hold what it had
_COUNTS = tuple(state.value for state in (*LIVE_STATES, State.ENDING))


class GrantCounts:
    """Count what is held before more is granted; a part of `Ledger`."""

    _db: Database

    def load(
        self, agent: str, owner: str, templates: Sequence[str], *, besides: str, since: datetime
    ) -> Mapping[str, HeldLeases]:
        """What is held now, for each of `templates`, without the task `besides`.

        `agent` and `owner` are entities. Findings are those of `OF_AGENT`, since `since`,
        that nobody has closed.
        """
        with self._db.read() as connection:
            return _load(connection, agent, owner, templates, besides=besides, since=since)

    def close_findings(self, agent: str, why: str, at: datetime) -> int:
        """Have the agent's open findings count no more for policy; gives how many there were. They stay to be seen."""
        table, task = schema.findings, schema.tasks.c
        own = select(task.task_id).where(task.agent == agent)
        close = update(table).where(table.c.task_id.in_(own), _is_open()).values(closed_at=at, closed_why=why[:500])
        return self._db.write(lambda c: c.execute(close).rowcount)


def admit(connection: Connection, asked: GrantAdmission) -> None:
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
) -> Mapping[str, HeldLeases]:
    asked = {"agent": agent, "owner": owner, "besides": besides, "since": since}
    of_agent, of_owner, budgets = 0, 0, dict[str, int]()
    for row in connection.execute(_HELD, asked):
        budgets[row.template] = row.budget
        of_agent, of_owner = of_agent + row.of_agent, of_owner + row.of_owner
    findings = connection.execute(_FINDINGS, asked).scalar_one()
    return {name: HeldLeases(of_agent, of_owner, budgets.get(name, 0), findings) for name in templates}


def _is_open() -> ColumnElement[bool]:
    finding = schema.findings.c
    return and_(finding.closed_at.is_(None), finding.rule.in_([rule.value for rule in sorted(OF_AGENT)]))


_ACCESS, _TASK = schema.accesses.c, schema.tasks.c
_CURRENT = and_(_TASK.task_id == _ACCESS.task_id, _TASK.revision == _ACCESS.revision)


def _budget(whose: ColumnElement[bool] | None = None) -> ColumnElement[int]:
    return func.sum(_ACCESS.lease_budget if whose is None else case((whose, _ACCESS.lease_budget), else_=0))


# made once: to put one together takes longer than to run it. All that is held is gone through once, whoever holds it,
# and nothing of what was held in the past
_HELD = (
    select(
        _ACCESS.template,
        _budget().label("budget"),
        _budget(_ACCESS.agent == bindparam("agent")).label("of_agent"),
        _budget(_ACCESS.owner == bindparam("owner")).label("of_owner"),
    )
    .select_from(schema.tasks.join(schema.accesses, _CURRENT))
    .where(schema.IS_OPEN, _TASK.state.in_(_COUNTS), _TASK.task_id != bindparam("besides"))
    .group_by(_ACCESS.template)
)
_FINDINGS = (
    # one that counts others stands for all of them
    select(func.coalesce(func.sum(case((schema.findings.c.more > 0, schema.findings.c.more), else_=1)), 0))
    .select_from(schema.findings.join(schema.tasks, _TASK.task_id == schema.findings.c.task_id))
    .where(_TASK.agent == bindparam("agent"), schema.findings.c.at > bindparam("since"), _is_open())
)
