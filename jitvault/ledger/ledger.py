"""The ledger on a database: how a task changes, and what is read of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Select,
    Table,
    bindparam,
    case,
    func,
    insert,
    literal,
    select,
    union,
    update,
)
from sqlalchemy.exc import IntegrityError

from jitvault.audit.observation import Kind
from jitvault.audit.trail import AuditTrail
from jitvault.errors import LedgerUnavailable, WrongState, readable
from jitvault.formats.product import Product
from jitvault.formats.shorten import one_line
from jitvault.ledger import ingest as stream
from jitvault.ledger import schema, trail
from jitvault.ledger.admission import SqlAdmission, admit
from jitvault.ledger.audit_positions import SqlRecord
from jitvault.ledger.change import write_change
from jitvault.ledger.database import Database
from jitvault.ledger.dialect import batches, upsert
from jitvault.ledger.documents import SqlDocuments
from jitvault.ledger.findings import put_finding
from jitvault.ledger.intake import SqlIntake
from jitvault.ledger.model import (
    Change,
    CheckRow,
    DecisionRow,
    GrantAdmission,
    GrantRow,
    LeaseRow,
    OperationRow,
    OpState,
    RevisionRow,
    TaskRecord,
    TaskRow,
)
from jitvault.ledger.notices import SqlNotices
from jitvault.ledger.recovery import SqlRecovery, check_not_recovering
from jitvault.ledger.retention import SqlRetention
from jitvault.ledger.rows import TABLES, R, get, last_product, of_task
from jitvault.ledger.sweep_queries import SqlOrphans
from jitvault.ledger.task_claims import SqlTurns
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.states import LIVE_STATES, OVER, State, check_move

_FINDINGS = "has_findings"


def _has(kind: type) -> str:
    return f"has_{TABLES[kind].name}"


_THERE: Mapping[str, Table] = {
    **{_has(kind): TABLES[kind] for kind in (DecisionRow, GrantRow, LeaseRow, CheckRow, OperationRow)},
    _FINDINGS: schema.findings,
}


def _task_and() -> Select[Any]:
    """A task, and of what else there is something: most tasks have no rows in most tables."""
    task_id = schema.tasks.c.task_id
    there = (
        select(literal(1)).where(table.c.task_id == task_id).exists().label(name) for name, table in _THERE.items()
    )
    return select(schema.tasks, *there).where(task_id == bindparam("task_id"))


# made once: making a statement costs more than running it, and access is there for as long as this takes
_TASK, _TASK_AND = select(schema.tasks).where(schema.tasks.c.task_id == bindparam("task_id")), _task_and()
# nobody else changes it before this is over; that rows of others name it is no change
_FENCED = _TASK.where(schema.tasks.c.claim_epoch == bindparam("claim")).with_for_update(key_share=True)
_EVENTS = (
    select(*(schema.events.c[field.name] for field in fields(Event)))
    .where(schema.events.c.task_id == bindparam("task_id"), schema.events.c.seq > bindparam("after"))
    .order_by(schema.events.c.seq)
)
_OP = schema.operations.c
_NOT_READ_BACK = (OperationKind.RENEW_TOKEN, OperationKind.RENEW_LEASE, OperationKind.PUBLISH, OperationKind.SIGN)
# but for what was published or signed, and renewals that are over
_OPERATIONS = (
    select(schema.operations)
    .where(
        _OP.task_id == bindparam("task_id"),
        _OP.kind.not_in(_NOT_READ_BACK) | _OP.state.not_in([OpState.SETTLED, OpState.ABANDONED]),
    )
    .order_by(_OP.sent_at)
)
# by the rows, and by the parent's own chain
_CHILDREN = union(
    select(schema.tasks.c.task_id).where(schema.tasks.c.parent == bindparam("task_id")),
    select(schema.events.c.body["to"].as_string()).where(
        schema.events.c.task_id == bindparam("task_id"), schema.events.c.kind == EventKind.HANDED_ON
    ),
)
_FOUND = select(schema.findings).where(schema.findings.c.task_id == bindparam("task_id")).order_by(schema.findings.c.id)
_OF_TOKEN = select(schema.observations.c.line).where(schema.observations.c.subject == bindparam("token")).limit(1)
_GAVE_BACK = _OF_TOKEN.where(
    schema.observations.c.actor == bindparam("token"),
    schema.observations.c.kind == Kind.TOKEN_REVOKED,
    schema.observations.c.closing,
    ~schema.observations.c.failed,
)
_UNWRAPPED = _OF_TOKEN.where(schema.observations.c.kind == Kind.UNWRAPPED)
_MANY_LINES = 2_000
_IS_LONG = (
    select(schema.observations.c.line)
    .where(schema.observations.c.actor.in_(bindparam("tokens", expanding=True)))
    .limit(1)
    .offset(_MANY_LINES)
)


class Ledger(
    SqlRecord, SqlTurns, SqlOrphans, SqlAdmission, SqlNotices, SqlRecovery, SqlRetention, SqlIntake, SqlDocuments
):
    """Everything that is read from the ledger or written to it.

    Each method raises LedgerUnavailable when the database is missing, locked for too long, full or of another version.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._taken, self._left = {}, set()

    def close(self) -> None:
        """Close the connections that nobody is using."""
        self._db.close()

    # -- changing a task ----------------------------------------------------------------------------

    def create(self, task: TaskRow, change: Change, *, at: datetime) -> TaskRow:
        """The first event of a task. Raises WrongState when the task exists."""

        def unit(connection: Connection) -> TaskRow:
            try:
                connection.execute(insert(schema.tasks).values(**asdict(task)))
            except IntegrityError as error:
                raise WrongState(f"task {task.task_id} exists already") from error
            check_move(task.task_id, None, task.state, change.event)
            created = write_change(connection, task, change, at, is_new=True)
            return _told_again(connection, created, change, at)

        return self._db.write(unit)

    def apply(
        self, task_id: str, change: Change, *, claim: int, at: datetime, admission: GrantAdmission | None = None
    ) -> TaskRow:
        """Write `change` and its event at once, if `admission` holds in that transaction.

        Raises WrongState when the claim was lost, what the admission's judge raises, and Frozen for an issue while a
        recovery is open.
        """

        def unit(connection: Connection) -> TaskRow:
            task = _fenced(connection, task_id, claim)
            check_move(task_id, task.state, change.state or task.state, change.event)
            if change.state is State.ISSUING:
                check_not_recovering(connection, task_id)
            if admission is not None:
                admit(connection, admission)
                _hand_on(connection, admission, at)
            return _told_again(connection, write_change(connection, task, change, at), change, at)

        return self._db.write(unit, alone=admission is not None)

    # -- reading -------------------------------------------------------------------------------------

    def task(self, task_id: str) -> TaskRow | None:
        with self._db.read() as connection:
            return _task(connection, task_id)

    def tasks(self, states: Collection[State] = frozenset(State)) -> list[TaskRow]:
        """Those in one of `states`, the oldest first: most of all that ever were are over."""
        task = schema.tasks.c
        query = select(schema.tasks).where(task.state.in_([state.value for state in states]))
        if OVER.isdisjoint(states):
            query = query.where(schema.IS_OPEN)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(task.created_at, task.task_id)).mappings()
            return [get(row, TaskRow) for row in rows]

    def named(self, task_ids: Collection[str]) -> list[TaskRow]:
        """Those of `task_ids` that are known."""
        task_id = schema.tasks.c.task_id
        with self._db.read() as connection:
            return [
                get(row, TaskRow)
                for wanted in batches(sorted(task_ids))
                for row in connection.execute(select(schema.tasks).where(task_id.in_(wanted))).mappings()
            ]

    def bodies(self) -> Iterator[bytes]:
        """What was ever asked for: the body of each revision, one at a time."""
        with self._db.read() as connection:
            # not all of them at once: there may be millions
            yield from connection.execution_options(yield_per=500).execute(select(schema.revisions.c.body)).scalars()

    def children(self, task_id: str) -> list[str]:
        """The tasks that the task handed a part of its access on to, in the order of their ids.

        Also those whose own rows say so no more: its chain says it, which somebody who edits theirs does not change.
        """
        with self._db.read() as connection:
            return sorted(connection.execute(_CHILDREN, {"task_id": task_id}).scalars())

    def held(self) -> dict[str, int]:
        """The tasks that hold access, each with the number of its last event."""
        task = schema.tasks.c
        query = select(task.task_id, task.seq).where(
            schema.IS_OPEN, task.state.in_([state.value for state in LIVE_STATES])
        )
        with self._db.read() as connection:
            return {row.task_id: row.seq for row in connection.execute(query)}

    def ungranted(self) -> list[str]:
        """The tasks that may still be granted, those with an issue that did not finish included."""
        task = schema.tasks.c
        open_ = [State.PENDING_APPROVAL.value, State.APPROVED.value, State.ISSUING.value]
        with self._db.read() as connection:
            return list(connection.execute(select(task.task_id).where(schema.IS_OPEN, task.state.in_(open_))).scalars())

    def file(self, task_id: str) -> TaskRecord | None:
        """All of a task. Raises Unreadable where somebody edited it so that it cannot be read."""
        with self._db.read() as connection, readable(task_id):
            return _file(connection, task_id)

    def file_again(self, file: TaskRecord) -> TaskRecord:
        """The same as `file`, which was read a moment ago, as it is now: read anew where its task has changed since.

        Of one that has not, the stream may have settled an operation more. Raises LedgerUnavailable where it is gone.
        """
        task_id = file.task.task_id
        with self._db.read() as connection, readable(task_id):
            # all that changes a task moves its version, but for what was found about it
            if _task(connection, task_id) == file.task:
                return replace(file, findings=_findings(connection, task_id))
            again = _file(connection, task_id, known=file.events)
        if again is None:
            raise LedgerUnavailable(f"task {task_id} vanished from the ledger")
        return again

    def trail(self, file: TaskRecord) -> AuditTrail:
        """The observations that concern a task, what others did that casts doubt on a proof among them, in the order of
        the stream, and the canaries around them.
        """
        with self._db.read() as connection:
            return trail.trail(connection, file)

    def acts(self, file: TaskRecord) -> AuditTrail:
        """What the task's tokens did and what was done to them, in the order of the stream, without canaries.

        What a worker does to keep them is left out: of a task that is held for long that is nearly all there is.
        """
        with self._db.read() as connection:
            return trail.acts(connection, file)

    # -- the rest ------------------------------------------------------------------------------------

    def gave_back(self, token: str) -> bool:
        """Whether a task's token was revoked by itself; `token` is the HMAC of its accessor."""
        with self._db.read() as connection:
            return connection.execute(_GAVE_BACK, {"token": token}).first() is not None

    def was_unwrapped(self, token: str) -> bool:
        """Whether somebody took a task's token out of its wrapping, or tried to."""
        with self._db.read() as connection:
            return connection.execute(_UNWRAPPED, {"token": token}).first() is not None

    def is_long(self, file: TaskRecord) -> bool:
        """Whether the task's tokens left so many lines that reading them takes time."""
        tokens = [g.accessor_hmac for g in file.grants if g.accessor_hmac]
        with self._db.read() as connection:
            return connection.execute(_IS_LONG, {"tokens": tokens}).first() is not None

    def interrupted(self, file: TaskRecord) -> bool:
        """Whether lines of the task's tokens stand in another stretch than the one that is being read now."""
        with self._db.read() as connection:
            return trail.interrupted(connection, file)

    def endangered(self, file: TaskRecord) -> bool:
        """Whether anybody did, since the task's token was meant, what can take a credential's record away."""
        with self._db.read() as connection:
            return trail.endangered(connection, file)

    def known_leases(self, lease_ids: Sequence[str]) -> set[str]:
        """Which of these leases belong to any task."""
        return self._among(schema.leases.c.lease_id, lease_ids)

    def task_of_target(self, name: str) -> str | None:
        """The task with a lease whose credential its target knows by this name."""
        lease = schema.leases.c
        with self._db.read() as connection:
            return connection.execute(select(lease.task_id).where(lease.target_name == name).limit(1)).scalar()

    def known_targets(self, names: Sequence[str]) -> set[str]:
        """Which of these names, as targets know credentials by, are those of leases that belong to any task."""
        return self._among(schema.leases.c.target_name, names)

    def _among(self, column: Column[Any], values: Sequence[str]) -> set[str]:
        """Which of `values` a column has."""
        known: set[str] = set()
        with self._db.read() as connection:
            for wanted in batches(values):
                known |= set(connection.execute(select(column).where(column.in_(wanted))).scalars())
        return known

    def finding_counts(self) -> dict[str, int]:
        """How many findings each task has that has any, with those that are only counted."""
        found = schema.findings.c
        # one that counts others stands for all of them
        each = func.sum(case((found.more > 0, found.more), else_=1))
        query = select(found.task_id, each).where(found.task_id.is_not(None)).group_by(found.task_id)
        with self._db.read() as connection:
            return {task_id: count for task_id, count in connection.execute(query)}  # noqa: C416 - rows are no pairs

    def issue_times(self, role: str) -> set[datetime]:
        """Vault's issue times of all known tokens of a token role."""
        grant = schema.grants.c
        query = select(grant.issued_at).where(grant.role == role, grant.issued_at.is_not(None))
        with self._db.read() as connection:
            return set(connection.execute(query).scalars())

    def installation(self) -> str | None:
        with self._db.read() as connection:
            return connection.execute(select(schema.installation.c.id)).scalar()

    def set_installation(self, installation: str) -> None:
        """Bind a new ledger to an installation; one that is bound keeps its own."""
        values = {"one": 1, "id": installation}
        # of two processes that start with a new ledger both come here
        self._db.write(lambda c: c.execute(upsert(c, schema.installation).values(values).on_conflict_do_nothing()))

    def product(self) -> Product | None:
        """The server that it was last used with; None where none said what it is."""
        with self._db.read() as connection:
            return last_product(connection)

    def used_with(self, product: Product) -> None:
        """Keep that it is used with that server."""
        self._db.write(lambda c: c.execute(update(schema.installation).values(product=product.value)))

    def follow(self, generation: int) -> None:
        """Keep that a worker with rules of that generation works on the ledger: lower ones write no more."""
        there = schema.installation.c.generation
        with self._db.read() as connection:
            if connection.execute(select(there).where(there < generation)).first() is None:
                return
        higher = update(schema.installation).where(there < generation).values(generation=generation)
        self._db.write(lambda c: c.execute(higher))

    def finding(
        self,
        task_id: str | None,
        rule: str,
        message: str,
        at: datetime,
        *,
        line: str = "",
        request_id: str = "",
        author: str = "",
        more: int = 0,
    ) -> None:
        """Keep a finding once. `line` and `request_id` name the audit line that shows it, `author` the entity that
        wrote what it is about.

        Of one author and rule, or of one task and rule, so many are kept one by one (`domain.finding`), and the others
        are counted in one more. `more` others are counted at once.
        """
        named = {"line": line or None, "request_id": request_id or None, "author": author or None}
        # it may quote what somebody else signed
        said = one_line(message)
        self._db.write(lambda c: put_finding(c, task_id, rule, said, at, **named, more=more), alone=True)


def _told_again(connection: Connection, task: TaskRow, change: Change, at: datetime) -> TaskRow:
    """A task whose tokens were found later: what the lines that are known already say of them is entered now."""
    if change.event != EventKind.RECOVERED or not change.body["grants"]:
        return task
    stream.replay_known_lines(connection, task.task_id, [grant["accessor"] for grant in change.body["grants"]], at)
    again = _task(connection, task.task_id)
    return again or task


def _hand_on(connection: Connection, admission: GrantAdmission, at: datetime) -> None:
    """Enter in the parent's chain that a part of it is handed on: whoever edits the child's rows does not hide it."""
    parent = _task(connection, admission.parent) if admission.parent else None
    if parent is not None:
        write_change(connection, parent, Change(EventKind.HANDED_ON, {"to": admission.task_id}), at)


def _task(connection: Connection, task_id: str) -> TaskRow | None:
    row = connection.execute(_TASK, {"task_id": task_id}).mappings().first()
    return get(row, TaskRow) if row else None


def _file(connection: Connection, task_id: str, *, known: tuple[Event, ...] = ()) -> TaskRecord | None:
    """All that there is of a task. Of its events, to which there is only ever added, those after the `known` are read:
    there are thousands once it was held for hours.
    """
    row = connection.execute(_TASK_AND, {"task_id": task_id}).mappings().first()
    if row is None:
        return None
    task = get(row, TaskRow)
    there = {name for name in _THERE if row[name]}

    def of(kind: type[R], *order: str) -> tuple[R, ...]:
        return of_task(connection, kind, task_id, *order) if _has(kind) in there else ()

    revisions = of_task(connection, RevisionRow, task_id, "revision")
    current = next((r for r in revisions if r.revision == task.revision), None)
    if current is None:
        raise LedgerUnavailable(f"the ledger has no revision {task.revision} of task {task_id}")
    return TaskRecord(
        task=task,
        revision=current,
        # those about the present revision: what was said of an earlier one does not count any more
        decisions=tuple(d for d in of(DecisionRow, "entity_id") if d.digest == task.digest and d.decision != "lapsed"),
        grants=of(GrantRow, "attempt"),
        leases=of(LeaseRow, "issued_at", "lease_id"),
        checks=of(CheckRow, "subject", "n"),
        operations=_operations(connection, task_id) if _has(OperationRow) in there else (),
        events=known + _events(connection, task_id, after=known[-1].seq if known else 0),
        findings=_findings(connection, task_id) if _FINDINGS in there else (),
    )


def _operations(connection: Connection, task_id: str) -> tuple[OperationRow, ...]:
    return tuple(get(row, OperationRow) for row in connection.execute(_OPERATIONS, {"task_id": task_id}).mappings())


def _findings(connection: Connection, task_id: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(dict(row) for row in connection.execute(_FOUND, {"task_id": task_id}).mappings())


def _fenced(connection: Connection, task_id: str, claim: int) -> TaskRow:
    """The task, if `claim` is still the newest claim of it."""
    row = connection.execute(_FENCED, {"task_id": task_id, "claim": claim}).mappings().first()
    if row is None:
        raise WrongState(f"another process took over task {task_id}", hint="Run the command again.")
    return get(row, TaskRow)


def _events(connection: Connection, task_id: str, *, after: int) -> tuple[Event, ...]:
    return tuple(Event(*row) for row in connection.execute(_EVENTS, {"task_id": task_id, "after": after}))
