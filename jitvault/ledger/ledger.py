"""The ledger: how a task changes, and what is read about tasks."""

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
from jitvault.formats.server_product import Product
from jitvault.formats.shorten import one_line
from jitvault.ledger.admission import GrantCounts, admit
from jitvault.ledger.documents.index_queries import DocumentQueries
from jitvault.ledger.documents.request_queries import RequestQueries
from jitvault.ledger.findings import put_finding
from jitvault.ledger.model import (
    Change,
    CheckRow,
    DecisionRow,
    GrantAdmission,
    GrantRow,
    LeaseRow,
    OperationRow,
    RevisionRow,
    TaskRecord,
    TaskRow,
)
from jitvault.ledger.notices import NoticeQueue
from jitvault.ledger.recovery import RecoveryQueries, check_not_recovering
from jitvault.ledger.retention import RetentionQueries
from jitvault.ledger.rows import TABLES, R, event_of, get, last_product, of_task
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import batches, upsert
from jitvault.ledger.stream import ingest as stream
from jitvault.ledger.stream import task_trail as trail
from jitvault.ledger.stream.alarms import FreezeQueries
from jitvault.ledger.stream.positions import AuditPositions
from jitvault.ledger.stream.queries import StreamQueries
from jitvault.ledger.sweep_queries import SweepQueries
from jitvault.ledger.task_change import FINISHED, NOT_READ_BACK, record_after, write_change
from jitvault.ledger.task_claims import TaskClaims
from jitvault.model.event_chain import Event
from jitvault.model.kinds import EventKind
from jitvault.model.states import LIVE_STATES, OVER, State, check_move

_FINDINGS = "has_findings"


def _exists_column(kind: type) -> str:
    return f"has_{TABLES[kind].name}"


_OPTIONAL_TABLES: Mapping[str, Table] = {
    **{_exists_column(kind): TABLES[kind] for kind in (DecisionRow, GrantRow, LeaseRow, CheckRow, OperationRow)},
    _FINDINGS: schema.findings,
}


def _task_and_which_rows() -> Select[Any]:
    """Return the statement for a task and whether other tables mention it.

    Most tasks have no rows in most tables, so their queries can be skipped.
    """
    task_id = schema.tasks.c.task_id
    exists = (
        select(literal(1)).where(table.c.task_id == task_id).exists().label(name)
        for name, table in _OPTIONAL_TABLES.items()
    )
    return select(schema.tasks, *exists).where(task_id == bindparam("task_id"))


# Built once: building a statement costs more than running it, and revocations wait for these queries.
_TASK = select(schema.tasks).where(schema.tasks.c.task_id == bindparam("task_id"))
_TASK_AND_WHICH_ROWS = _task_and_which_rows()
# Locks the task row until the transaction ends. KEY SHARE, because rows that only refer to the task do not change it.
_FENCED = _TASK.where(schema.tasks.c.claim_epoch == bindparam("claim")).with_for_update(key_share=True)
_EVENTS = (
    select(*(schema.events.c[field.name] for field in fields(Event)))
    .where(schema.events.c.task_id == bindparam("task_id"), schema.events.c.seq > bindparam("after"))
    .order_by(schema.events.c.seq)
)
_OP = schema.operations.c
# those of which `is_read_back` is true
_OPERATIONS = (
    select(schema.operations)
    .where(
        _OP.task_id == bindparam("task_id"),
        _OP.kind.not_in(NOT_READ_BACK) | _OP.state.not_in(FINISHED),
    )
    .order_by(_OP.sent_at)
)
# by the children's rows, and by the parent's own event chain
_CHILDREN = union(
    select(schema.tasks.c.task_id).where(schema.tasks.c.parent == bindparam("task_id")),
    select(schema.events.c.body["to"].as_string()).where(
        schema.events.c.task_id == bindparam("task_id"), schema.events.c.kind == EventKind.HANDED_ON
    ),
)
_TASK_FINDINGS = (
    select(schema.findings).where(schema.findings.c.task_id == bindparam("task_id")).order_by(schema.findings.c.id)
)
_LINE_ABOUT_TOKEN = (
    select(schema.observations.c.line).where(schema.observations.c.subject == bindparam("token")).limit(1)
)
_REVOKED_ITSELF = _LINE_ABOUT_TOKEN.where(
    schema.observations.c.actor == bindparam("token"),
    schema.observations.c.kind == Kind.TOKEN_REVOKED,
    schema.observations.c.closing,
    ~schema.observations.c.failed,
)
_UNWRAPPED = _LINE_ABOUT_TOKEN.where(schema.observations.c.kind == Kind.UNWRAPPED)
_MANY_LINES = 2_000
_HAS_MANY_LINES = (
    select(schema.observations.c.line)
    .where(schema.observations.c.actor.in_(bindparam("tokens", expanding=True)))
    .limit(1)
    .offset(_MANY_LINES)
)


class Ledger(
    AuditPositions,
    StreamQueries,
    FreezeQueries,
    TaskClaims,
    SweepQueries,
    GrantCounts,
    NoticeQueue,
    RecoveryQueries,
    RetentionQueries,
    RequestQueries,
    DocumentQueries,
):
    """Everything that is read from the ledger or written to it.

    Each method raises LedgerUnavailable when the database is missing, locked for too long, full or of another version.
    The base classes hold the methods of one subject each and share the database.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._taken = {}
        self._unfinished = set()

    def close(self) -> None:
        """Close the connections that no thread is using."""
        self._db.close()

    # -- changing a task ----------------------------------------------------------------------------

    def create(self, task: TaskRow, change: Change, *, at: datetime) -> TaskRow:
        """Insert a task with its first event; return the task.

        Raises WrongState when the task exists.
        """

        def unit(connection: Connection) -> TaskRow:
            try:
                connection.execute(insert(schema.tasks).values(**asdict(task)))
            except IntegrityError as error:
                raise WrongState(f"task {task.task_id} exists already") from error
            check_move(task.task_id, None, task.state, change.event)
            created = write_change(connection, task, change, at, is_new=True).task
            return _replay_lines_of_recovered(connection, created, change, at)

        return self._db.write(unit)

    def apply(
        self, task_id: str, change: Change, *, claim: int, at: datetime, admission: GrantAdmission | None = None
    ) -> TaskRow:
        """Write `change` and its event in one transaction; return the task.

        `claim` is the epoch of the caller's claim on the task. `admission`, where given, is judged in the same
        transaction. Raises WrongState when the claim was lost, whatever the admission's judge raises, and Frozen for an
        issue while a recovery is open.
        """

        def unit(connection: Connection) -> TaskRow:
            task = _fenced(connection, task_id, claim, change)
            if admission is not None:
                admit(connection, admission)
                _record_delegation(connection, admission, at)
            changed = write_change(connection, task, change, at).task
            return _replay_lines_of_recovered(connection, changed, change, at)

        return self._db.write(unit, alone=admission is not None)

    def change(self, record: TaskRecord, change: Change, *, claim: int, at: datetime) -> TaskRecord:
        """Write `change` as `apply` does; return the task's record after it.

        It is read again only where the task is not as in `record` any more: the stream entered lines of it meanwhile.
        The findings are those of `record`. Raises WrongState when the claim was lost.
        """
        task_id = record.task.task_id

        def unit(connection: Connection) -> TaskRecord:
            task = _fenced(connection, task_id, claim, change)
            written = write_change(connection, task, change, at)
            after = record_after(record, change.rows, written) if task == record.task else None
            return after or _file(connection, task_id, known=record.events) or record

        return self._db.write(unit)

    # -- reading -------------------------------------------------------------------------------------

    def task(self, task_id: str) -> TaskRow | None:
        """Return one task, None where the ledger does not know the task."""
        with self._db.read() as connection:
            return _task(connection, task_id)

    def tasks(self, states: Collection[State] = frozenset(State)) -> list[TaskRow]:
        """Return the tasks in one of `states`, the oldest first."""
        task = schema.tasks.c
        query = select(schema.tasks).where(task.state.in_([state.value for state in states]))
        if OVER.isdisjoint(states):
            # lets the database use the index of open tasks: most tasks are over
            query = query.where(schema.IS_OPEN)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(task.created_at, task.task_id)).mappings()
            return [get(row, TaskRow) for row in rows]

    def task_ids(self, states: Collection[State]) -> list[str]:
        """Return the ids of the tasks in these states, the oldest first.

        Unlike `tasks`, it names a task whose row cannot be read.
        """
        task = schema.tasks.c
        which = task.state.in_([state.value for state in states])
        with self._db.read() as connection:
            query = select(task.task_id).where(which).order_by(task.created_at, task.task_id)
            return list(connection.execute(query).scalars())

    def known_tasks(self, task_ids: Collection[str]) -> list[TaskRow]:
        """Return those of `task_ids` that the ledger knows."""
        task_id = schema.tasks.c.task_id
        with self._db.read() as connection:
            return [
                get(row, TaskRow)
                for batch in batches(sorted(task_ids))
                for row in connection.execute(select(schema.tasks).where(task_id.in_(batch))).mappings()
            ]

    def revision_bodies(self) -> Iterator[bytes]:
        """Yield the body of every revision that was ever submitted."""
        with self._db.read() as connection:
            # streamed: there may be millions of revisions
            yield from connection.execution_options(yield_per=500).execute(select(schema.revisions.c.body)).scalars()

    def children(self, task_id: str) -> list[str]:
        """Return the ids of the tasks that this task delegated to, sorted.

        The parent's own chain counts as well as the children's rows, so that editing a child's row does not hide the
        child.
        """
        with self._db.read() as connection:
            return sorted(connection.execute(_CHILDREN, {"task_id": task_id}).scalars())

    def live_tasks(self) -> dict[str, int]:
        """Return the tasks that hold access, each with its last event's number."""
        task = schema.tasks.c
        query = select(task.task_id, task.seq).where(
            schema.IS_OPEN, task.state.in_([state.value for state in LIVE_STATES])
        )
        with self._db.read() as connection:
            return {row.task_id: row.seq for row in connection.execute(query)}

    def ungranted(self) -> list[str]:
        """Return the tasks that may still be granted.

        Tasks whose issue was begun and not finished are among them.
        """
        task = schema.tasks.c
        open_ = [State.PENDING_APPROVAL.value, State.APPROVED.value, State.ISSUING.value]
        with self._db.read() as connection:
            return list(connection.execute(select(task.task_id).where(schema.IS_OPEN, task.state.in_(open_))).scalars())

    def file(self, task_id: str) -> TaskRecord | None:
        """Return everything known about a task, None for an unknown task.

        Raises CorruptRecord where somebody edited the task's rows so that they cannot be read.
        """
        with self._db.read() as connection, readable(task_id):
            return _file(connection, task_id)

    def refreshed(self, record: TaskRecord) -> TaskRecord:
        """Return `record` as the ledger has it now.

        `record` was read a moment ago; only what changed is read again. Where the task itself has not changed, only its
        findings are read, and the stream may have settled another operation since. Raises LedgerUnavailable where the
        task is gone, and CorruptRecord as `file` does.
        """
        task_id = record.task.task_id
        with self._db.read() as connection, readable(task_id):
            # every change of a task raises its version, except for findings about it
            if _task(connection, task_id) == record.task:
                return replace(record, findings=_findings(connection, task_id))
            current = _file(connection, task_id, known=record.events)
        if current is None:
            raise LedgerUnavailable(f"task {task_id} disappeared from the ledger")
        return current

    def trail(self, record: TaskRecord) -> AuditTrail:
        """Return the audit lines that concern a task, with nearby canaries.

        Lines stand in the order of the stream. Lines of others that cast doubt on a proof (hazards, unnamed
        revocations) are included.
        """
        with self._db.read() as connection:
            return trail.trail(connection, record)

    def acts(self, record: TaskRecord) -> AuditTrail:
        """Return what the task's tokens did and what was done to them.

        In the order of the stream, without canaries. The worker's own renewals and look-ups are left out: they are
        nearly all lines of a task that is held for long.
        """
        with self._db.read() as connection:
            return trail.acts(connection, record)

    # -- the rest ------------------------------------------------------------------------------------

    def was_revoked_by_itself(self, token: str) -> bool:
        """Return whether a task's token was revoked by itself.

        `token` is the HMAC of the token's accessor.
        """
        with self._db.read() as connection:
            return connection.execute(_REVOKED_ITSELF, {"token": token}).first() is not None

    def was_unwrapped(self, token: str) -> bool:
        """Return whether somebody unwrapped a task's token, or tried to.

        `token` is the HMAC of the token's accessor.
        """
        with self._db.read() as connection:
            return connection.execute(_UNWRAPPED, {"token": token}).first() is not None

    def is_long(self, record: TaskRecord) -> bool:
        """Return whether the task's tokens left more than 2,000 lines.

        Reading so many takes time.
        """
        tokens = [g.accessor_hmac for g in record.grants if g.accessor_hmac]
        with self._db.read() as connection:
            return connection.execute(_HAS_MANY_LINES, {"tokens": tokens}).first() is not None

    def interrupted(self, record: TaskRecord) -> bool:
        """Return whether the stream was interrupted during the task.

        True where a line of the task's tokens stands in another segment than the one that is being read now, or where a
        gap was recorded since the task's first token was requested.
        """
        with self._db.read() as connection:
            return trail.interrupted(connection, record)

    def endangered(self, record: TaskRecord) -> bool:
        """Return whether an act since the task began can hide a credential.

        Such acts (hazards) can remove Vault's record of a credential. They count from when the task's first token was
        requested.
        """
        with self._db.read() as connection:
            return trail.endangered(connection, record)

    def known_leases(self, lease_ids: Sequence[str]) -> set[str]:
        """Return those of these leases that belong to any task."""
        return self._among(schema.leases.c.lease_id, lease_ids)

    def task_of_target(self, name: str) -> str | None:
        """Return the task whose lease has this name at its target.

        None where no task has such a lease.
        """
        lease = schema.leases.c
        with self._db.read() as connection:
            return connection.execute(select(lease.task_id).where(lease.target_name == name).limit(1)).scalar()

    def known_targets(self, names: Sequence[str]) -> set[str]:
        """Return those of these target names that belong to a task's lease."""
        return self._among(schema.leases.c.target_name, names)

    def _among(self, column: Column[Any], values: Sequence[str]) -> set[str]:
        """Return those of `values` that a column has."""
        known: set[str] = set()
        with self._db.read() as connection:
            for batch in batches(values):
                known |= set(connection.execute(select(column).where(column.in_(batch))).scalars())
        return known

    def finding_counts(self) -> dict[str, int]:
        """Return how many findings each task has, for tasks that have any.

        Findings that were only counted are included.
        """
        finding = schema.findings.c
        # a row with `more` stands for as many findings
        count = func.sum(case((finding.more > 0, finding.more), else_=1))
        query = select(finding.task_id, count).where(finding.task_id.is_not(None)).group_by(finding.task_id)
        with self._db.read() as connection:
            return {task_id: found for task_id, found in connection.execute(query)}  # noqa: C416 - rows are no pairs

    def issue_times(self, role: str) -> set[datetime]:
        """Return Vault's issue times of all known tokens of a token role."""
        grant = schema.grants.c
        query = select(grant.issued_at).where(grant.role == role, grant.issued_at.is_not(None))
        with self._db.read() as connection:
            return set(connection.execute(query).scalars())

    def installation(self) -> str | None:
        """Return the id of the installation, None for a new ledger."""
        with self._db.read() as connection:
            return connection.execute(select(schema.installation.c.id)).scalar()

    def set_installation(self, installation: str) -> None:
        """Bind a new ledger to an installation.

        A ledger that is bound keeps its installation.
        """
        values = {"one": 1, "id": installation}
        # two processes that start with a new ledger can both get here
        self._db.write(lambda c: c.execute(upsert(c, schema.installation).values(values).on_conflict_do_nothing()))

    def product(self) -> Product | None:
        """Return the server product that the ledger was last used with.

        None where no server said which product it is.
        """
        with self._db.read() as connection:
            return last_product(connection)

    def set_product(self, product: Product) -> None:
        """Record the server product that the ledger is used with."""
        self._db.write(lambda c: c.execute(update(schema.installation).values(product=product.value)))

    def raise_generation(self, generation: int) -> None:
        """Record that a worker with rules of this generation uses the ledger.

        Workers of lower generations may not write from then on.
        """
        recorded = schema.installation.c.generation
        with self._db.read() as connection:
            if connection.execute(select(recorded).where(recorded < generation)).first() is None:
                return
        higher = update(schema.installation).where(recorded < generation).values(generation=generation)
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
        """Record a finding once.

        `line` and `request_id` name the audit line that shows it, `author` the entity that wrote what the finding is
        about. Only so many findings of one author and rule, or of one task and rule, are recorded one by one
        (`jitvault.model.finding`); the others are counted in one more row. `more`, where given, becomes that row's
        count: it is the total, not an increment.
        """
        named = {"line": line or None, "request_id": request_id or None, "author": author or None}
        # the message may quote a document that somebody else signed
        quoted = one_line(message)
        self._db.write(lambda c: put_finding(c, task_id, rule, quoted, at, **named, more=more), alone=True)


def _replay_lines_of_recovered(connection: Connection, task: TaskRow, change: Change, at: datetime) -> TaskRow:
    """Enter known lines of tokens that a recovery found; return the task.

    The lines were ingested before the ledger knew the tokens, so no task was told of them.
    """
    if change.event != EventKind.RECOVERED or not change.body["grants"]:
        return task
    stream.replay_known_lines(connection, task.task_id, [grant["accessor"] for grant in change.body["grants"]], at)
    changed = _task(connection, task.task_id)
    return changed or task


def _record_delegation(connection: Connection, admission: GrantAdmission, at: datetime) -> None:
    """Record in the parent's chain that it delegates a part of its access.

    Editing the child's rows then does not hide the delegation.
    """
    parent = _task(connection, admission.parent) if admission.parent else None
    if parent is not None:
        write_change(connection, parent, Change(EventKind.HANDED_ON, {"to": admission.task_id}), at)


def _task(connection: Connection, task_id: str) -> TaskRow | None:
    row = connection.execute(_TASK, {"task_id": task_id}).mappings().first()
    return get(row, TaskRow) if row else None


def _file(connection: Connection, task_id: str, *, known: tuple[Event, ...] = ()) -> TaskRecord | None:
    """Return everything known about a task, None for an unknown task.

    Events are append-only, so only those after the `known` ones are read: a task that was held for hours has thousands.
    """
    row = connection.execute(_TASK_AND_WHICH_ROWS, {"task_id": task_id}).mappings().first()
    if row is None:
        return None
    task = get(row, TaskRow)
    present = {name for name in _OPTIONAL_TABLES if row[name]}

    def of(kind: type[R], *order: str) -> tuple[R, ...]:
        return of_task(connection, kind, task_id, *order) if _exists_column(kind) in present else ()

    revisions = of_task(connection, RevisionRow, task_id, "revision")
    current = next((r for r in revisions if r.revision == task.revision), None)
    if current is None:
        raise LedgerUnavailable(f"the ledger has no revision {task.revision} of task {task_id}")
    return TaskRecord(
        task=task,
        revision=current,
        # only decisions on the current revision count
        decisions=tuple(d for d in of(DecisionRow, "entity_id") if d.digest == task.digest and d.decision != "lapsed"),
        grants=of(GrantRow, "attempt"),
        leases=of(LeaseRow, "issued_at", "lease_id"),
        checks=of(CheckRow, "subject", "n"),
        operations=_operations(connection, task_id) if _exists_column(OperationRow) in present else (),
        events=known + _events(connection, task_id, after=known[-1].seq if known else 0),
        findings=_findings(connection, task_id) if _FINDINGS in present else (),
    )


def _operations(connection: Connection, task_id: str) -> tuple[OperationRow, ...]:
    return tuple(get(row, OperationRow) for row in connection.execute(_OPERATIONS, {"task_id": task_id}).mappings())


def _findings(connection: Connection, task_id: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(dict(row) for row in connection.execute(_TASK_FINDINGS, {"task_id": task_id}).mappings())


def _fenced(connection: Connection, task_id: str, claim: int, change: Change) -> TaskRow:
    """Return the task if `claim` is current and `change` is allowed.

    Raises WrongState where another process has claimed the task since, or where the task's state does not allow the
    change, and Frozen for an issue while a recovery is open.
    """
    row = connection.execute(_FENCED, {"task_id": task_id, "claim": claim}).mappings().first()
    if row is None:
        raise WrongState(f"another process took over task {task_id}", hint="Run the command again.")
    task = get(row, TaskRow)
    check_move(task_id, task.state, change.state or task.state, change.event)
    if change.state is State.ISSUING:
        check_not_recovering(connection, task_id)
    return task


def _events(connection: Connection, task_id: str, *, after: int) -> tuple[Event, ...]:
    return tuple(event_of(row) for row in connection.execute(_EVENTS, {"task_id": task_id, "after": after}))
