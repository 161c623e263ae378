"""Count held leases and open findings before more is granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, func, select, update

from jitvault.audit.tripwires.trip import OF_AGENT
from jitvault.ledger.model import Closing, GrantAdmission
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.model.states import LIVING
from jitvault.policy.question import HeldLeases

# a task counts until all of its credentials are confirmed dead
_COUNTS = tuple(state.value for state in LIVING)


class GrantCounts:
    """Count what is held before more is granted; a part of `Ledger`."""

    _db: Database

    def load(
        self, agent: str, owner: str, templates: Sequence[str], *, besides: str, since: datetime
    ) -> Mapping[str, HeldLeases]:
        """Return what is held now for each of `templates`.

        `agent` and `owner` are entity ids. The task `besides` is not counted. Findings are those of the rules of
        `OF_AGENT`, newer than `since`, that no operator has closed.
        """
        with self._db.read() as connection:
            return _load(connection, agent, owner, templates, besides=besides, since=since)

    def close_findings(self, agent: str, closing: Closing) -> int:
        """Stop counting an agent's open findings for policy; return how many.

        The findings stay in the ledger, with the reason and who closed them.
        """
        table, task = schema.findings, schema.tasks.c
        own = select(task.task_id).where(task.agent == agent)
        close = update(table).where(table.c.task_id.in_(own), _is_open()).values(closing.columns())
        return self._db.write(lambda c: c.execute(close).rowcount)


def admit(connection: Connection, admission: GrantAdmission) -> None:
    """Judge a grant on what is held now.

    Has to run in a transaction of its own kind (`alone`), so that the next grant that is judged sees this one. Raises
    what the admission's judge raises.
    """
    loads = _load(
        connection,
        admission.agent,
        admission.owner,
        admission.templates,
        besides=admission.task_id,
        since=admission.since,
    )
    siblings: Sequence[bytes] = ()
    if admission.parent:
        siblings = _living_children(connection, admission.parent, besides=admission.task_id)
    admission.judge(loads, siblings)


def _living_children(connection: Connection, parent: str, *, besides: str) -> list[bytes]:
    """Return the current revisions of a parent's children that may be live."""
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
    values = {"agent": agent, "owner": owner, "besides": besides, "since": since}
    of_agent = of_owner = 0
    budgets: dict[str, int] = {}
    for row in connection.execute(_HELD, values):
        budgets[row.template] = row.budget
        of_agent += row.of_agent
        of_owner += row.of_owner
    findings = connection.execute(_FINDINGS, values).scalar_one()
    return {name: HeldLeases(of_agent, of_owner, budgets.get(name, 0), findings) for name in templates}


def _is_open() -> ColumnElement[bool]:
    finding = schema.findings.c
    return and_(finding.closed_at.is_(None), finding.rule.in_([rule.value for rule in sorted(OF_AGENT)]))


_ACCESS, _TASK = schema.accesses.c, schema.tasks.c
_CURRENT = and_(_TASK.task_id == _ACCESS.task_id, _TASK.revision == _ACCESS.revision)


def _budget(whose: ColumnElement[bool] | None = None) -> ColumnElement[int]:
    return func.sum(_ACCESS.lease_budget if whose is None else case((whose, _ACCESS.lease_budget), else_=0))


# Built once: building a statement takes longer than running it. It reads all held accesses once, of every agent and
# owner, and none of tasks that are over.
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
    # a row with `more` stands for as many findings
    select(func.coalesce(func.sum(case((schema.findings.c.more > 0, schema.findings.c.more), else_=1)), 0))
    .select_from(schema.findings.join(schema.tasks, _TASK.task_id == schema.findings.c.task_id))
    .where(_TASK.agent == bindparam("agent"), schema.findings.c.at > bindparam("since"), _is_open())
)
