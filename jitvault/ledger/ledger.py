"""The ledger: how a task changes, and what its lines say.

The queries of each other subject are in a base class of `Ledger`.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from jitvault.audit.observation import Kind
from jitvault.audit.trail import AuditTrail
from jitvault.errors import WrongState
from jitvault.formats.shorten import one_line
from jitvault.ledger.admission import GrantCounts, admit
from jitvault.ledger.documents.index_queries import DocumentQueries
from jitvault.ledger.documents.request_queries import RequestQueries
from jitvault.ledger.findings import FindingQueries, put_finding
from jitvault.ledger.installation import InstallationQueries
from jitvault.ledger.model import Change, GrantAdmission, TaskRecord, TaskRow
from jitvault.ledger.notices import NoticeQueue
from jitvault.ledger.recovery import RecoveryQueries, check_not_recovering
from jitvault.ledger.retention import RetentionQueries
from jitvault.ledger.rows import get
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.postgres import Listener
from jitvault.ledger.stream import ingest as stream
from jitvault.ledger.stream import task_trail as trail
from jitvault.ledger.stream.alarms import FreezeQueries
from jitvault.ledger.stream.positions import AuditPositions
from jitvault.ledger.stream.queries import StreamQueries
from jitvault.ledger.sweep_queries import SweepQueries
from jitvault.ledger.task_change import record_after, write_change
from jitvault.ledger.task_claims import TaskClaims
from jitvault.ledger.task_queries import TASK_BY_ID, TaskQueries, read_record, read_task
from jitvault.ledger.upkeep_queries import UpkeepQueries
from jitvault.model.event_bodies import HandedOn, Recovered, TokenCreated
from jitvault.model.kinds import EventKind
from jitvault.model.states import State, check_move

# Locks the task row until the transaction ends. KEY SHARE, because rows that only refer to the task do not change it.
_FENCED = TASK_BY_ID.where(schema.tasks.c.claim_epoch == bindparam("claim")).with_for_update(key_share=True)
_LINE_ABOUT_TOKEN = (
    select(schema.observations.c.line).where(schema.observations.c.subject == bindparam("token")).limit(1)
)
_REVOKED_ITSELF = _LINE_ABOUT_TOKEN.with_only_columns(schema.observations.c.at).where(
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
    UpkeepQueries,
    SweepQueries,
    GrantCounts,
    FindingQueries,
    NoticeQueue,
    RecoveryQueries,
    RetentionQueries,
    RequestQueries,
    DocumentQueries,
    TaskQueries,
    InstallationQueries,
):
    """Everything that is read from the ledger or written to it.

    Each method raises LedgerUnavailable when the database is missing, locked for too long, full or of another version.
    The base classes hold the methods of one subject each and share the database.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._taken = {}
        self._lent = {}
        self._held = {}
        self._unfinished = set()
        self._staying = set()
        self._this = secrets.token_hex(8)
        self._moves = threading.local()

    def close(self) -> None:
        """Close the connections that no thread is using."""
        self._db.close()

    def mark(self) -> Hashable | None:
        """Return what every commit to the ledger changes; None where that is not known. Raises nothing."""
        return self._db.mark()

    def listener(self) -> Listener | None:
        """Return what hears of new lines of the stream, whichever process read them; None on SQLite."""
        return self._db.listener()

    # -- changing a task ----------------------------------------------------------------------------

    @contextmanager
    def moves(self) -> Iterator[dict[str, TaskRow]]:
        """Yield the tasks that this thread moves to another state in the block.

        Each is as its last move left it. What other threads and processes move is not among them.
        """
        moved = self._moves.tasks = dict[str, TaskRow]()
        try:
            yield moved
        finally:
            del self._moves.tasks

    def _note_done(self, change: Change, before: State | None, after: TaskRow) -> None:
        """Note a committed change, where it moved the task to another state or gave its claim back."""
        if change.gives_back:
            self._held.pop(after.task_id, None)
        moved: dict[str, TaskRow] | None = getattr(self._moves, "tasks", None)
        if moved is not None and before is not after.state:
            moved[after.task_id] = after

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
            return _replay_known_lines(connection, created, change, at)

        created = self._db.write(unit)
        self._note_done(change, None, created)
        return created

    def apply(self, task_id: str, change: Change, *, claim: int, at: datetime) -> TaskRow:
        """Write `change` and its event in one transaction; return the task.

        `claim` is the epoch of the caller's claim on the task. Raises WrongState when the claim was lost, and Frozen
        for an issue while a recovery is open.
        """

        def unit(connection: Connection) -> tuple[State, TaskRow]:
            task = _fenced(connection, task_id, claim, change)
            changed = write_change(connection, task, change, at).task
            return task.state, _replay_known_lines(connection, changed, change, at)

        before, changed = self._db.write(unit)
        self._note_done(change, before, changed)
        return changed

    def change(
        self, record: TaskRecord, change: Change, *, claim: int, at: datetime, admission: GrantAdmission | None = None
    ) -> TaskRecord:
        """Write `change` as `apply` does; return the task's record after it.

        It is read again only where the task is not as in `record` any more: the stream entered lines of it meanwhile.
        The findings are those of `record`. `admission`, where given, is judged in the same transaction. Raises
        WrongState when the claim was lost, whatever the admission's judge raises, and Frozen for an issue while a
        recovery is open.
        """
        task_id, task = record.task.task_id, record.task

        def unit(connection: Connection) -> tuple[State, TaskRecord]:
            if admission is not None:
                admit(connection, admission)
                _record_delegation(connection, admission, at)
            try:
                _check_allowed(connection, task, change)
                written = write_change(connection, task, change, at, claim=claim)
            except WrongState:
                current = _fenced(connection, task_id, claim, change)
                write_change(connection, current, change, at)
                return current.state, read_record(connection, task_id, known=record.events) or record
            after = record_after(record, change.rows, written)
            return task.state, after or read_record(connection, task_id, known=record.events) or record

        before, after = self._db.write(unit, alone=admission is not None)
        self._note_done(change, before, after.task)
        return after

    # -- reading a task's lines ----------------------------------------------------------------------

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

    def self_revoked_at(self, token: str) -> datetime | None:
        """Return when a task's token was revoked by itself, by Vault's clock; None if it was not.

        `token` is the HMAC of the token's accessor.
        """
        with self._db.read() as connection:
            found: datetime | None = connection.execute(_REVOKED_ITSELF, {"token": token}).scalar()
            return found

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


def _replay_known_lines(connection: Connection, task: TaskRow, change: Change, at: datetime) -> TaskRow:
    """Enter known lines of tokens that were named just now.

    A recovery named them, or the line of their creation. Returns the task. The lines were ingested before the ledger
    knew the tokens, so no task was told of them.
    """
    accessors: list[str] = []
    if isinstance(change.body, Recovered):
        accessors = [grant.accessor for grant in change.body.grants]
    elif isinstance(change.body, TokenCreated) and change.body.line:
        accessors = [change.body.accessor or ""]
    if not accessors:
        return task
    stream.replay_known_lines(connection, task.task_id, accessors, at)
    changed = read_task(connection, task.task_id)
    return changed or task


def _record_delegation(connection: Connection, admission: GrantAdmission, at: datetime) -> None:
    """Record in the parent's chain that it delegates a part of its access.

    Editing the child's rows then does not hide the delegation.
    """
    parent = read_task(connection, admission.parent) if admission.parent else None
    if parent is not None:
        write_change(connection, parent, Change(EventKind.HANDED_ON, HandedOn(to=admission.task_id)), at)


def _fenced(connection: Connection, task_id: str, claim: int, change: Change) -> TaskRow:
    """Return the task if `claim` is current and `change` is allowed.

    Raises WrongState where another process has claimed the task since, or where the task's state does not allow the
    change, and Frozen for an issue while a recovery is open.
    """
    row = connection.execute(_FENCED, {"task_id": task_id, "claim": claim}).mappings().first()
    if row is None:
        raise WrongState(f"another process took over task {task_id}", hint="Run the command again.")
    task = get(row, TaskRow)
    _check_allowed(connection, task, change)
    return task


def _check_allowed(connection: Connection, task: TaskRow, change: Change) -> None:
    """Raise WrongState where the state does not allow `change`, Frozen for an issue in a recovery."""
    check_move(task.task_id, task.state, change.state or task.state, change.event)
    if change.state is State.ISSUING:
        check_not_recovering(connection, task.task_id)
