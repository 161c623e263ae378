"""Positions in the audit stream, with canaries and gaps."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields
from datetime import datetime

from sqlalchemy import BindParameter, Connection, Select, bindparam, func, insert, select, true, update

from jitvault.audit.observation import Kind
from jitvault.audit.source import Batch, Position
from jitvault.audit.trail import Canary
from jitvault.errors import WrongState
from jitvault.ledger.claims import held
from jitvault.ledger.model import GapKind, OpState
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import upsert
from jitvault.ledger.stream import canaries, stored_lines
from jitvault.ledger.stream import ingest as stream
from jitvault.ledger.stream.model import CountedLines, Gap, SourceReading

_SOURCE = schema.audit_sources.c


def _unseen_operations() -> Select[str]:
    op, line, gap = schema.operations.c, schema.observations.c, schema.audit_gaps.c
    ours = select(schema.worker_sessions.c.accessor_hmac)
    seen = select(line.op).where(line.op == op.op_id, line.closing, line.actor.in_(ours))
    # a line missing before a gap may lie in the gap
    excused = select(gap.source).where(gap.at >= op.answered_at)
    before: BindParameter[datetime] = bindparam("before")
    return select(op.op_id).where(
        op.state == OpState.ANSWERED, op.answered_at < before, ~seen.exists(), ~excused.exists()
    )


# built once: building a statement takes longer than running it
_READINGS = select(schema.audit_sources)
_UNSEEN = _unseen_operations()
_LINE = schema.observations.c
_OWN_CANARY = (
    select(_LINE.line)
    .where(_LINE.subject == bindparam("canary"), _LINE.kind == Kind.CANARY)
    .where(_LINE.actor.in_(select(schema.worker_sessions.c.accessor_hmac)))
    .limit(1)
)
_LAST_OF_SOURCE = select(func.max(schema.canaries.c.at)).where(schema.canaries.c.source == _SOURCE.name)
_LAST_CANARIES = select(_SOURCE.name, _LAST_OF_SOURCE.scalar_subquery())
_ADVANCE = (
    update(schema.audit_sources)
    .where(
        _SOURCE.name == bindparam("source"),
        *(_SOURCE[field.name] == bindparam(f"was_{field.name}") for field in fields(Position)),
    )
    .values({name: bindparam(name) for name in (*(field.name for field in fields(Position)), "read_at")})
)


class AuditPositions:
    """Ingest audit lines and keep read positions; a part of `Ledger`."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    # -- reading ---------------------------------------------------------------------------------------

    def readings(self) -> Mapping[str, SourceReading]:
        """Return every source that was ever read, by its name."""
        with self._db.read() as connection:
            rows = connection.execute(_READINGS).mappings().all()
        return {
            row["name"]: SourceReading(
                row["name"],
                Position(row["identity"], row["offset"], row["epoch"]),
                row["vouched"],
                row["read_at"],
            )
            for row in rows
        }

    def start_source(self, source: str, position: Position) -> None:
        """Record a new source with its first position.

        A source that is known keeps its own position.
        """
        values = {"name": source, "vouched": False, **asdict(position)}
        self._db.write(lambda c: c.execute(upsert(c, schema.audit_sources).values(values).on_conflict_do_nothing()))

    @contextmanager
    def claim_source(self, source: str) -> Iterator[int]:
        """Hold the exclusive right to change a source's row.

        Like `Ledger.claim` for a task; yields the claim's epoch.
        """
        with held(self._db, schema.audit_sources.c.name, source, f"audit source {source}") as epoch:
            yield epoch

    def reading_lock(self, source: str) -> AbstractContextManager[object]:
        """Return the lock of this process for reading the source."""
        return self._locks[source]

    def trust_source(self, source: str, *, claim: int) -> None:
        """Trust the source's lines from now on.

        Raises WrongState when the claim was lost.
        """
        self._db.write(lambda c: _change_source(c, source, claim, vouched=True))

    def observe(
        self,
        source: str,
        batch: Batch,
        *,
        after: Position,
        at: datetime,
        expected: str | None = None,
        shared: Sequence[str] = (),
    ) -> Canary | None:
        """Ingest a batch and advance the source's position, in one transaction.

        `after` is the position that the batch was read from. Raises WrongState where the source was not read up to
        exactly `after`: another process has read on.

        Returns, and stores, the canary whose HMAC is `expected` when its line is in the batch or was ingested before.
        `shared` are networks whose addresses the worker has in common with agents
        (`jitvault.audit.tripwires.fleet_rules.of_fleet`).
        """

        def unit(connection: Connection) -> Canary | None:
            _advance(connection, source, after, batch.position, at)
            if batch.gaps:
                _add_gap(connection, Gap(source, batch.position.epoch, GapKind.OTHER, "; ".join(batch.gaps), at))
            stream.ingest_batch(connection, batch.observations, at, shared)
            found = canaries.keep_seen(connection, source, batch.observations, expected)
            return found or (canaries.keep(connection, source, expected) if expected else None)

        return self._db.write(unit, alone=True)

    # -- trust -----------------------------------------------------------------------------------------

    def keep_canary(self, source: str, expected: str) -> Canary | None:
        """Store and return the canary `expected` if another process ingested it.

        None where its line was not read yet.
        """
        with self._db.read() as connection:
            if canaries.find(connection, source, expected) is None:
                return None
        return self._db.write(lambda c: canaries.keep(c, source, expected))

    def last_canaries(self) -> Mapping[str, datetime]:
        """Return Vault's time of the newest canary of each source."""
        with self._db.read() as connection:
            return {name: at for name, at in connection.execute(_LAST_CANARIES) if at is not None}

    def not_kept(self) -> Sequence[CountedLines]:
        """Return how many lines were counted instead of stored, by kind.

        Such lines belong to no task, or repeat themselves.
        """
        with self._db.read() as connection:
            return stored_lines.counts_by_kind(connection)

    def gaps(self) -> Sequence[Gap]:
        """Return all gaps, the newest first."""
        gap = schema.audit_gaps.c
        query = select(schema.audit_gaps).order_by(gap.at.desc(), gap.source, gap.epoch.desc())
        with self._db.read() as connection:
            rows = connection.execute(query).mappings()
            return [Gap(**{**row, "kind": GapKind(row["kind"])}) for row in rows]

    def unseen_operations(self, before: datetime) -> list[str]:
        """Return own operations whose audit line is missing.

        Those that Vault answered before `before`, whose line has not been read, and since whose answer no gap was
        recorded.
        """
        with self._db.read() as connection:
            return list(connection.execute(_UNSEEN, {"before": before}).scalars())

    def record_session(self, accessor_hmac: str, at: datetime) -> None:
        """Record the accessor HMAC of this worker's token.

        Operation ids count only in lines of recorded sessions.
        """
        values = {"accessor_hmac": accessor_hmac, "first_at": at, "last_at": at}

        def unit(connection: Connection) -> None:
            statement = upsert(connection, schema.worker_sessions).values(values)
            connection.execute(statement.on_conflict_do_update(index_elements=["accessor_hmac"], set_={"last_at": at}))

        self._db.write(unit)

    def begun_at(self) -> datetime | None:
        """Return when a worker first used the ledger, None where none did."""
        with self._db.read() as connection:
            return connection.execute(select(func.min(schema.worker_sessions.c.first_at))).scalar()

    def is_own_canary(self, canary: str) -> bool:
        """Return whether a canary's line names a recorded session.

        `canary` is the canary's HMAC.
        """
        with self._db.read() as connection:
            return connection.execute(_OWN_CANARY, {"canary": canary}).first() is not None

    def record_salt(self, mark: str, at: datetime) -> bool:
        """Record the HMAC of a constant; return whether the device's salt is new.

        True if the device had another salt before: the audit device was set up again.
        """
        table = schema.audit_salts

        def unit(connection: Connection) -> bool:
            known = set(connection.execute(select(table.c.mark)).scalars())
            if mark in known:
                return False
            connection.execute(insert(table).values(mark=mark, first_at=at))
            return bool(known)

        return self._db.write(unit, alone=True)

    def start_segments(
        self, what: str, at: datetime, *, kind: GapKind = GapKind.OTHER, only: Collection[str] | None = None
    ) -> int:
        """Begin a new segment in every source, or in those of `only`.

        What comes next does not continue what was read before; `what` says why. Returns how many sources were changed.
        """
        table = schema.audit_sources
        which = table.c.name.in_(only) if only is not None else true()

        def unit(connection: Connection) -> int:
            # The claim is ended as well: a process that reads at this moment would write the old segment back.
            change = (
                update(table)
                .where(which)
                .values(epoch=table.c.epoch + 1, claim_epoch=table.c.claim_epoch + 1, claim_until=0)
            )
            broken = connection.execute(change.returning(table.c.name, table.c.epoch)).all()
            for source, epoch in broken:
                _add_gap(connection, Gap(source, epoch, kind, what, at))
            return len(broken)

        return self._db.write(unit, alone=True)


def _change_source(connection: Connection, source: str, claim: int, **values: object) -> None:
    """Write columns of a source under its claim.

    Raises WrongState when the claim was lost.
    """
    table = schema.audit_sources
    change = update(table).where(table.c.name == source, table.c.claim_epoch == claim).values(**values)
    if connection.execute(change).rowcount != 1:
        raise WrongState(f"another process reads audit source {source}", hint="Run the command again.")


def _advance(connection: Connection, source: str, after: Position, to: Position, at: datetime) -> None:
    """Record how far a source was read.

    Raises WrongState where the source's position is not `after` any more: another process has read on.
    """
    was = {f"was_{name}": value for name, value in asdict(after).items()}
    if connection.execute(_ADVANCE, {"source": source, **was, **asdict(to), "read_at": at}).rowcount != 1:
        raise WrongState(f"another process reads audit source {source}", hint="Run the command again.")


def _add_gap(connection: Connection, gap: Gap) -> None:
    values = {**asdict(gap), "what": gap.what[:500]}
    connection.execute(upsert(connection, schema.audit_gaps).values(values).on_conflict_do_nothing())
