"""Canaries: lines that prove how far the stream was trusted when read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import CompoundSelect, Connection, bindparam, func, select, tuple_, union

from jitvault.audit.observation import Kind, Observation, Place, renewed_until
from jitvault.audit.trail import Canary, done
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.dialect import Upsert, batches, upsert_on

_LINE, _CANARY, _SOURCE = schema.observations.c, schema.canaries.c, schema.audit_sources.c
_TIMES_AT_ONCE = 20
# built once: revocations wait for these queries
_FIND = select(schema.observations).where(
    _LINE.subject == bindparam("expected"),
    _LINE.source == bindparam("source"),
    _LINE.kind == Kind.CANARY,
    _LINE.closing,
)
_BESIDE = schema.canaries.alias("beside").c
_OF_SEGMENT = (_CANARY.source == _LINE.source) & (_CANARY.epoch == _LINE.epoch)
_OF_SEGMENT_BESIDE = (_BESIDE.source == _LINE.source) & (_BESIDE.epoch == _LINE.epoch)
_COPIES = select(_LINE.line).where(
    _LINE.line.in_(bindparam("lines", expanding=True)),
    _LINE.source != bindparam("source"),
    select(_CANARY.at).where(_OF_SEGMENT, _CANARY.offset == _LINE.offset).exists(),
)
_OF_LINES = _LINE.line.in_(bindparam("lines", expanding=True))
_BEFORE = select(func.max(_BESIDE.offset)).where(_OF_SEGMENT_BESIDE, _BESIDE.offset < _LINE.offset).scalar_subquery()
_AFTER = select(func.min(_BESIDE.offset)).where(_OF_SEGMENT_BESIDE, _BESIDE.offset >= _LINE.offset).scalar_subquery()
_BESIDE_LINES = union(
    *(
        select(schema.canaries).join_from(schema.observations, schema.canaries, is_beside).where(_OF_LINES)
        for is_beside in (_OF_SEGMENT & (_CANARY.offset == _BEFORE), _OF_SEGMENT & (_CANARY.offset == _AFTER))
    )
)


@cache
def _near(times: int) -> CompoundSelect[Any]:
    """Return the statement for each source's canaries near `first` and so many further times.

    These are the last one before `first`, and the first one from each other time on.
    """
    before = select(func.max(_BESIDE.at)).where(_BESIDE.source == _SOURCE.name, _BESIDE.at < bindparam("first"))
    after = [
        select(func.min(_BESIDE.at)).where(_BESIDE.source == _SOURCE.name, _BESIDE.at >= bindparam(f"time_{n}"))
        for n in range(times)
    ]
    # not a join: a database may go through all canaries for one
    found = (select(_SOURCE.name, at.scalar_subquery()) for at in (before, *after))
    return union(*(select(schema.canaries).where(tuple_(_CANARY.source, _CANARY.at).in_(each)) for each in found))


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
    rows: list[Any] = []
    for batch in batches([o.line for o in lines]):
        rows += connection.execute(_BESIDE_LINES, {"lines": batch})
    # Nodes take turns: the canary nearest in time can stand in another node's file.
    first = min(o.at for o in lines)
    times = sorted({max(o.at for o in lines), *filter(None, expiries), *_ends(lines)})
    for n in range(0, len(times), _TIMES_AT_ONCE):
        some = {f"time_{i}": time for i, time in enumerate(times[n : n + _TIMES_AT_ONCE])}
        rows += connection.execute(_near(len(some)), {"first": first, **some})
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
