"""The audit record on a database: positions, canaries, gaps, freezes."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields
from datetime import datetime
from operator import attrgetter

from sqlalchemy import BindParameter, Connection, Select, and_, bindparam, func, insert, or_, select, true, update

from jitvault.audit.observation import Kind, Place
from jitvault.audit.source import Batch, Position
from jitvault.audit.trail import Canary
from jitvault.errors import WrongState
from jitvault.ledger import alarms, canaries, noise, schema, writes
from jitvault.ledger import ingest as stream
from jitvault.ledger.claims import held
from jitvault.ledger.database import Database
from jitvault.ledger.dialect import upsert
from jitvault.ledger.model import OpState
from jitvault.ledger.recovery import is_recovery
from jitvault.ledger.stream_model import NO_PLACES, CountedLines, Freeze, Gap, SourceReading, WrittenDocument

_SOURCE = schema.audit_sources.c


def _unseen() -> Select[str]:
    op, line, gap = schema.operations.c, schema.observations.c, schema.audit_gaps.c
    ours = select(schema.worker_sessions.c.accessor_hmac)
    seen = select(line.op).where(line.op == op.op_id, line.closing, line.actor.in_(ours))
    # what is missing before a gap may be what is missing in it
    excused = select(gap.source).where(gap.at >= op.answered_at)
    before: BindParameter[datetime] = bindparam("before")
    return select(op.op_id).where(
        op.state == OpState.ANSWERED, op.answered_at < before, ~seen.exists(), ~excused.exists()
    )


def _tripped() -> Select[str, str, datetime]:
    freeze = schema.freezes.c
    tripped = (freeze.lifted_at.is_(None), ~is_recovery())
    return select(freeze.reason, freeze.line, freeze.at).where(*tripped).order_by(freeze.id).limit(1)


# made once: to put one together takes longer than to run it
_READINGS, _UNSEEN, _TRIPPED = select(schema.audit_sources), _unseen(), _tripped()
_LINE = schema.observations.c
_OWN_CANARY = (
    select(_LINE.line)
    .where(_LINE.subject == bindparam("canary"), _LINE.kind == Kind.CANARY)
    .where(_LINE.actor.in_(select(schema.worker_sessions.c.accessor_hmac)))
    .limit(1)
)
_OF_SOURCE = select(func.max(schema.canaries.c.at)).where(schema.canaries.c.source == _SOURCE.name)
_LAST_CANARIES = select(_SOURCE.name, _OF_SOURCE.scalar_subquery())
_WRITTEN = select(schema.observations).where(_LINE.kind == Kind.WRITTEN, _LINE.at >= bindparam("since"))
_WRITTEN_ELSEWHERE = _WRITTEN.where(_LINE.source.not_in(bindparam("sources", expanding=True)))
_WRITTEN_AFTER = _WRITTEN.where(
    _LINE.source == bindparam("source"),
    or_(_LINE.epoch > bindparam("epoch"), and_(_LINE.epoch == bindparam("epoch"), _LINE.offset > bindparam("offset"))),
)
_MOVE_ON = (
    update(schema.audit_sources)
    .where(
        _SOURCE.name == bindparam("source"),
        *(_SOURCE[field.name] == bindparam(f"was_{field.name}") for field in fields(Position)),
    )
    .values({name: bindparam(name) for name in (*(field.name for field in fields(Position)), "read_at")})
)


class AuditPositions:
    """Enter lines of the audit stream and the positions they were read from; a part of `Ledger`."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    # -- reading ---------------------------------------------------------------------------------------

    def readings(self) -> Mapping[str, SourceReading]:
        """By name, every source that was ever read."""
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
        """Begin a source; one that is known keeps its own position."""
        values = {"name": source, "vouched": False, **asdict(position)}
        self._db.write(lambda c: c.execute(upsert(c, schema.audit_sources).values(values).on_conflict_do_nothing()))

    @contextmanager
    def claim_source(self, source: str) -> Iterator[int]:
        """The exclusive right to change what is said of a source, as `Ledger.claim` for a task."""
        with held(self._db, schema.audit_sources.c.name, source, f"audit source {source}") as epoch:
            yield epoch

    def turn(self, source: str) -> AbstractContextManager[object]:
        """Wait for the other threads of this process that read the source."""
        return self._turns[source]

    def vouch(self, source: str, *, claim: int) -> None:
        """From now on the source's lines count."""
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
        """Write a batch, what it means for tasks and for all of them, and the position after it, at once.

        Raises WrongState where the source was not read up to `after`, exactly: somebody else has read on.

        Gives, and keeps, the canary whose HMAC is `expected`, when its line is in the batch. `shared` are networks
        whose addresses the worker has in common with agents (`jitvault.audit.tripwires.rules.of_fleet`).
        """

        def unit(connection: Connection) -> Canary | None:
            _move_on(connection, source, after, batch.position, at)
            if batch.gaps:
                _add_gap(connection, Gap(source, batch.position.epoch, "; ".join(batch.gaps), at))
            stream.ingest_batch(connection, batch.observations, at, shared)
            found = canaries.keep_seen(connection, source, batch.observations, expected)
            return found or (canaries.keep(connection, source, expected) if expected else None)

        return self._db.write(unit, alone=True)

    # -- trust -----------------------------------------------------------------------------------------

    def keep_canary(self, source: str, expected: str) -> Canary | None:
        """The canary `expected`, kept, if another process has read its line."""
        with self._db.read() as connection:
            if canaries.find(connection, source, expected) is None:
                return None
        return self._db.write(lambda c: canaries.keep(c, source, expected))

    def last_canaries(self) -> Mapping[str, datetime]:
        """Vault's time of the newest canary of each source."""
        with self._db.read() as connection:
            return {name: at for name, at in connection.execute(_LAST_CANARIES) if at is not None}

    def not_kept(self) -> Sequence[CountedLines]:
        """How many lines were counted and not kept, since they belong to no task or repeat themselves; by kind."""
        with self._db.read() as connection:
            return noise.counted(connection)

    def gaps(self) -> Sequence[Gap]:
        """All gaps, the newest first."""
        gap = schema.audit_gaps.c
        query = select(gap.source, gap.epoch, gap.what, gap.at).order_by(gap.at.desc(), gap.source, gap.epoch.desc())
        with self._db.read() as connection:
            return [Gap(*row) for row in connection.execute(query)]

    def unseen_operations(self, before: datetime) -> list[str]:
        """Own operations that Vault answered before `before`, and whose line has not been read, with no gap since."""
        with self._db.read() as connection:
            return list(connection.execute(_UNSEEN, {"before": before}).scalars())

    def session(self, accessor_hmac: str, at: datetime) -> None:
        """Remember the accessor HMAC of this worker's token: an operation id only counts with one of them."""
        values = {"accessor_hmac": accessor_hmac, "first_at": at, "last_at": at}

        def unit(connection: Connection) -> None:
            statement = upsert(connection, schema.worker_sessions).values(values)
            connection.execute(statement.on_conflict_do_update(index_elements=["accessor_hmac"], set_={"last_at": at}))

        self._db.write(unit)

    def is_own(self, canary: str) -> bool:
        """Whether the canary's line names a session that is remembered; `canary` is its HMAC."""
        with self._db.read() as connection:
            return connection.execute(_OWN_CANARY, {"canary": canary}).first() is not None

    def salt(self, mark: str, at: datetime) -> bool:
        """Remember the HMAC of a constant; True if the device had another salt before: it was made anew."""
        table = schema.audit_salts

        def unit(connection: Connection) -> bool:
            known = set(connection.execute(select(table.c.mark)).scalars())
            if mark in known:
                return False
            connection.execute(insert(table).values(mark=mark, first_at=at))
            return bool(known)

        return self._db.write(unit, alone=True)

    def break_stretches(self, what: str, at: datetime, *, only: Collection[str] | None = None) -> int:
        """Begin a new stretch in every source, or in `only` those: what comes is not the continuation of what was read.

        Gives how many sources there are.
        """
        table = schema.audit_sources
        which = table.c.name.in_(only) if only is not None else true()

        def unit(connection: Connection) -> int:
            # the claim goes as well: whoever reads just now would write the old stretch back
            change = (
                update(table)
                .where(which)
                .values(epoch=table.c.epoch + 1, claim_epoch=table.c.claim_epoch + 1, claim_until=0)
            )
            broken = connection.execute(change.returning(table.c.name, table.c.epoch)).all()
            for source, epoch in broken:
                _add_gap(connection, Gap(source, epoch, what, at))
            return len(broken)

        return self._db.write(unit, alone=True)

    # -- freezes ---------------------------------------------------------------------------------------

    def alarm(self, op_id: str, at: datetime) -> None:
        """Freeze everything where a token was made under a create that Vault refused, or that was given up."""
        self._db.write(lambda c: alarms.raise_for_operation(c, op_id, at))

    def freeze(self) -> Freeze | None:
        """The oldest freeze that was not lifted."""
        with self._db.read() as connection:
            row = connection.execute(_TRIPPED).first()
        return Freeze(*row) if row else None

    def written(self, *, since: datetime, after: Mapping[str, Place] = NO_PLACES) -> Sequence[WrittenDocument]:
        """People's documents that the stream showed as written at `since` or later, in the order of Vault's time.

        `after` leaves out, by source, what stands there or before: each is read in the order of its places.
        """
        with self._db.read() as connection:
            rows = list(connection.execute(_WRITTEN_ELSEWHERE, {"since": since, "sources": list(after)}))
            for source, place in after.items():
                known = {"since": since, "source": source, "epoch": place.epoch, "offset": place.offset}
                rows += connection.execute(_WRITTEN_AFTER, known)
            again = writes.since(connection, since, after)
        kept = [
            WrittenDocument(row.subject, row.at, Place(row.source, row.epoch, row.offset), row.detail.get(writes.CLAIM))
            for row in sorted(rows, key=lambda row: (row.at, row.line))
        ]
        return sorted([*kept, *again], key=attrgetter("at"))

    def configured(self, mount: str, since: datetime) -> datetime | None:
        """Vault's time of the newest write to the configuration of an engine that the stream showed after `since`."""
        newest = select(func.max(_LINE.at)).where(
            _LINE.kind == Kind.HAZARD, _LINE.at > since, _LINE.path.startswith(f"{mount}/config/", autoescape=True)
        )
        with self._db.read() as connection:
            return connection.execute(newest).scalar()

    def lift_freezes(self, why: str, at: datetime) -> int:
        """Lift all freezes; gives how many there were."""
        table = schema.freezes
        lift = (
            update(table).where(table.c.lifted_at.is_(None), ~is_recovery()).values(lifted_at=at, lifted_why=why[:500])
        )
        return self._db.write(lambda c: c.execute(lift).rowcount)


def _change_source(connection: Connection, source: str, claim: int, **values: object) -> None:
    """Write columns of a source under its claim. Raises WrongState when the claim was lost."""
    table = schema.audit_sources
    change = update(table).where(table.c.name == source, table.c.claim_epoch == claim).values(**values)
    if connection.execute(change).rowcount != 1:
        raise WrongState(f"another process reads audit source {source}", hint="Run the command again.")


def _move_on(connection: Connection, source: str, after: Position, to: Position, at: datetime) -> None:
    """Note how far a source was read. Raises WrongState where it is not `after` any more: somebody else has read on."""
    was = {f"was_{name}": value for name, value in asdict(after).items()}
    if connection.execute(_MOVE_ON, {"source": source, **was, **asdict(to), "read_at": at}).rowcount != 1:
        raise WrongState(f"another process reads audit source {source}", hint="Run the command again.")


def _add_gap(connection: Connection, gap: Gap) -> None:
    values = {**asdict(gap), "what": gap.what[:500]}
    connection.execute(upsert(connection, schema.audit_gaps).values(values).on_conflict_do_nothing())
