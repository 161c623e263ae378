"""Search the stored lines of the audit stream across all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from operator import attrgetter

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, or_, select

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.ledger.documents import lines as document_lines
from jitvault.ledger.documents.index import WrittenDocument
from jitvault.ledger.rows import get_observation
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import batches
from jitvault.ledger.stream.model import NO_PLACES, CreationLine
from jitvault.ledger.stream.task_trail import worker_sessions
from jitvault.model.states import UNSEALED

# how long before its response line an issue counts as begun where its request line was lost
_LONGEST_REQUEST = timedelta(seconds=1)

_LINE = schema.observations.c
_WRITTEN = select(schema.observations).where(_LINE.kind == Kind.WRITTEN, _LINE.at >= bindparam("since"))
_WRITTEN_ELSEWHERE = _WRITTEN.where(_LINE.source.not_in(bindparam("sources", expanding=True)))
_WRITTEN_AFTER = _WRITTEN.where(
    _LINE.source == bindparam("source"),
    or_(_LINE.epoch > bindparam("epoch"), and_(_LINE.epoch == bindparam("epoch"), _LINE.offset > bindparam("offset"))),
)


@cache
def _configured(mount: str) -> Select[datetime]:
    """Return the query for the newest write to a mount's configuration.

    Built once for each mount.
    """
    below = _LINE.path.startswith(f"{mount}/config/", autoescape=True)
    return select(func.max(_LINE.at)).where(_LINE.kind == Kind.HAZARD, _LINE.at > bindparam("since"), below)


class StreamQueries:
    """Search the lines that the ledger stores; a part of `Ledger`."""

    _db: Database

    def written_documents(
        self, *, since: datetime, after: Mapping[str, Place] = NO_PLACES
    ) -> Sequence[WrittenDocument]:
        """Return documents of people that the stream showed as written.

        Those written at `since` or later, in the order of Vault's time. `after` gives a place by source: lines of that
        source at this place or before are left out, because each source is read in the order of its places.
        """
        with self._db.read() as connection:
            rows = list(connection.execute(_WRITTEN_ELSEWHERE, {"since": since, "sources": list(after)}))
            for source, place in after.items():
                values = {"since": since, "source": source, "epoch": place.epoch, "offset": place.offset}
                rows += connection.execute(_WRITTEN_AFTER, values)
            repeated = document_lines.written_since(connection, since, after)
        kept = [
            WrittenDocument(
                row.subject, row.at, Place(row.source, row.epoch, row.offset), row.detail.get(document_lines.CLAIM)
            )
            for row in sorted(rows, key=lambda row: (row.at, row.line))
        ]
        return sorted([*kept, *repeated], key=attrgetter("at"))

    def configured(self, mount: str, since: datetime) -> datetime | None:
        """Return when an engine's configuration was last written since `since`.

        Vault's time of the newest such line; None where there is none.
        """
        with self._db.read() as connection:
            return connection.execute(_configured(mount), {"since": since}).scalar()

    def unclaimed_creations(self) -> list[CreationLine]:
        """Return lines that created tokens or leases which no grant or lease has."""
        line, grant = schema.observations.c, schema.grants.c
        known = select(grant.accessor_hmac).where(grant.accessor_hmac.is_not(None))
        # The answer of an open create was lost or is on its way; the handling of its grant finds the token.
        open_creates = select(grant.create_op).where(grant.accessor_hmac.is_(None), ~grant.settled)
        ours = and_(line.op.in_(open_creates), line.actor.in_(select(schema.worker_sessions.c.accessor_hmac)))
        token = and_(line.kind == Kind.TOKEN_CREATED, line.subject.not_in(known), ~ours)
        lease = and_(line.kind == Kind.LEASE_ISSUED, line.subject.not_in(select(schema.leases.c.lease_id)))
        return self._creation_lines(or_(token, lease))

    def wrapped_reads(self) -> list[CreationLine]:
        """Return wrapped reads of task tokens whose wrapping was never opened.

        A lease is inside such a wrapping where no line shows that it was unwrapped. Only tasks that are not over count.
        """
        line, grant, task = schema.observations.c, schema.grants.c, schema.tasks.c
        other = schema.observations.alias()
        opened = select(other.c.token).where(other.c.kind == Kind.LEASE_ISSUED, other.c.token != "")
        grants_of_tasks = schema.grants.join(schema.tasks, task.task_id == grant.task_id)
        tokens = select(grant.accessor_hmac).select_from(grants_of_tasks)
        tokens = tokens.where(grant.accessor_hmac.is_not(None), task.state.in_(UNSEALED))
        used = and_(line.kind == Kind.USED, line.alias != "", line.alias.not_in(opened), line.actor.in_(tokens))
        return self._creation_lines(used)

    def uses_without_lease(self, paths: Sequence[str], *, since: datetime) -> list[Observation]:
        """Return task tokens' requests for these paths that show no lease.

        And all lines that show a wrapping opened or rewrapped; both since `since`, in the order of the stream.
        """
        line = schema.observations.c
        reads = and_(line.kind == Kind.USED, line.path.in_(paths))
        opened = and_(line.kind.in_((Kind.LEASE_ISSUED, Kind.REWRAPPED)), schema.is_given(line.token))
        query = select(schema.observations).where(or_(reads, opened), line.at >= since)
        with self._db.read() as connection:
            found = [get_observation(row) for row in connection.execute(query).mappings()]
        return sorted(found, key=lambda o: (o.place.source, o.place.epoch, o.place.offset))

    def worker_accessors(self) -> frozenset[str]:
        """Return the accessor HMACs of the worker's own tokens."""
        with self._db.read() as connection:
            return worker_sessions(connection)

    def _creation_lines(self, which: ColumnElement[bool]) -> list[CreationLine]:
        """Return successful responses among `which` lines.

        Each with Vault's time of its request line; where that line is missing, one second before the response.
        """
        line = schema.observations.c
        done = select(schema.observations).where(which, line.closing, ~line.failed)
        with self._db.read() as connection:
            lines = [get_observation(row) for row in connection.execute(done.order_by(line.at, line.line)).mappings()]
            request_times: dict[str, datetime] = {}
            for wanted in batches(sorted({o.request_id for o in lines if o.request_id})):
                first = select(line.request_id, func.min(line.at)).where(line.request_id.in_(wanted), ~line.closing)
                request_times |= {row[0]: row[1] for row in connection.execute(first.group_by(line.request_id))}
        return [CreationLine(o, request_times.get(o.request_id, o.at - _LONGEST_REQUEST)) for o in lines]
