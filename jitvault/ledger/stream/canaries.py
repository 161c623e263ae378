"""Canaries: lines that prove how far the stream was trusted when read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from jitvault.audit.observation import Kind, Observation, Place, renewed_until
from jitvault.audit.trail import Canary, done
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.dialect import Upsert, batches, upsert_on

_LINE, _CANARY, _SOURCE = schema.observations.c, schema.canaries.c, schema.audit_sources.c
# built once: revocations wait for these queries
_FIND = select(schema.observations).where(
    _LINE.subject == bindparam("expected"),
    _LINE.source == bindparam("source"),
    _LINE.kind == Kind.CANARY,
    _LINE.closing,
)
_SOURCES = select(_SOURCE.name).order_by(_SOURCE.name)
_OF_SEGMENT = (_CANARY.source == _LINE.source) & (_CANARY.epoch == _LINE.epoch)
_COPIES = select(_LINE.line).where(
    _LINE.line.in_(bindparam("lines", expanding=True)),
    _LINE.source != bindparam("source"),
    select(_CANARY.at).where(_OF_SEGMENT, _CANARY.offset == _LINE.offset).exists(),
)
_BESIDE = select(
    _LINE.source,
    _LINE.epoch,
    select(func.max(_CANARY.offset))
    .where(_OF_SEGMENT, _CANARY.offset < _LINE.offset)
    .scalar_subquery()
    .label("before"),
    select(func.min(_CANARY.offset))
    .where(_OF_SEGMENT, _CANARY.offset >= _LINE.offset)
    .scalar_subquery()
    .label("after"),
).where(_LINE.line.in_(bindparam("lines", expanding=True)))
_AT_PLACES = select(schema.canaries).where(
    _CANARY.source == bindparam("source"),
    _CANARY.epoch == bindparam("epoch"),
    _CANARY.offset.in_(bindparam("offsets", expanding=True)),
)
_OF_SOURCE = select(schema.canaries).where(_CANARY.source == bindparam("source")).limit(1)
_LAST_BEFORE = _OF_SOURCE.where(_CANARY.at < bindparam("time")).order_by(_CANARY.at.desc())
_FIRST_FROM = _OF_SOURCE.where(_CANARY.at >= bindparam("time")).order_by(_CANARY.at)


def find(connection: Connection, source: str, expected: str) -> Canary | None:
    """Return the canary whose HMAC is `expected`, None if not read yet."""
    row = connection.execute(_FIND, {"expected": expected, "source": source}).mappings().first()
    return Canary(Place(source, row["epoch"], row["offset"]), row["at"]) if row else None


def keep(connection: Connection, source: str, expected: str) -> Canary | None:
    """Store and return the canary whose HMAC is `expected`.

    None before its line is read.
    """
    found = find(connection, source, expected)
    if found is not None:
        _put(connection, found)
    return found


def keep_seen(connection: Connection, source: str, seen: Iterable[Observation], expected: str | None) -> Canary | None:
    """Store the canaries in lines that were just read.

    That is the `expected` one, which is returned, and each one whose line was found in another source before. A line
    can come through two sources, and the ledger keeps the place where it was read first. Both places show the canary:
    what came first in one of the sources must not wait for a canary that is always found first in the other.
    """
    lines = {o.line: o for o in seen if o.kind is Kind.CANARY and o.closing}
    if not lines:
        return None
    copies = set(connection.execute(_COPIES, {"lines": list(lines), "source": source}).scalars())
    own = next((o for o in lines.values() if o.subject == expected), None)
    for o in lines.values():
        if o is own or o.line in copies:
            _put(connection, Canary(o.place, o.at))
    return Canary(own.place, own.at) if own else None


def _put(connection: Connection, canary: Canary) -> None:
    place = canary.place
    values = {"source": place.source, "epoch": place.epoch, "offset": place.offset, "at": canary.at}
    connection.execute(_mark(connection.dialect.name), values)


def around(
    connection: Connection, lines: Sequence[Observation], expiries: Iterable[datetime | None]
) -> tuple[Canary, ...]:
    """Return the canaries that say something about a task's lines.

    In the segment of each line, the nearest canaries before and after it. In each source, the last canary before the
    first line, and the first canaries after the last line and after each time at which a token ended (`expiries`, and
    renewals in the lines).

    A worker leaves thousands of canaries a day, and a proof must not take longer because of them.
    """
    if not lines:
        return ()
    beside: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    rows: list[Any] = []
    for batch in batches([o.line for o in lines]):
        for row in connection.execute(_BESIDE, {"lines": batch}):
            beside[row.source, row.epoch] |= {row.before, row.after} - {None}
    for (source, epoch), offsets in beside.items():
        for places in batches(list(offsets)):
            rows += connection.execute(_AT_PLACES, {"source": source, "epoch": epoch, "offsets": places})
    # Nodes take turns: the canary nearest in time can stand in another node's file.
    first = min(o.at for o in lines)
    times = {max(o.at for o in lines), *filter(None, expiries), *_ends(lines)}
    for source in connection.execute(_SOURCES).scalars().all():
        rows += connection.execute(_LAST_BEFORE, {"source": source, "time": first})
        for time in times:
            rows += connection.execute(_FIRST_FROM, {"source": source, "time": time})
    found = {Canary(Place(row.source, row.epoch, row.offset), row.at) for row in rows}
    return tuple(sorted(found, key=lambda c: (c.place.source, c.place.epoch, c.place.offset)))


def _ends(lines: Sequence[Observation]) -> set[datetime]:
    """Return until when renewals in the lines let tokens live.

    Of answered renewals the last one of each token counts, by each of its names; a renewal without an answer counts
    itself.
    """
    renewals = [(o, until) for o in lines if (until := renewed_until(o))]
    answered = {o.request_id for o, _ in renewals if o.closing}
    open_ = {until for o, until in renewals if not o.closing and o.request_id not in answered}
    latest: dict[tuple[str, str], datetime] = {}
    for o, until in renewals:
        if done(o):
            name = (o.subject, o.token)
            latest[name] = max(until, latest.get(name, until))
    return open_ | set(latest.values())


@cache
def _mark(dialect: str) -> Upsert:
    return upsert_on(dialect, schema.canaries).on_conflict_do_nothing()
