"""Read the audit stream back as evidence about one task.

The lines of the task, and the lines that cast doubt on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    bindparam,
    func,
    or_,
    select,
    union_all,
)

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import AuditTrail, with_subjects
from jitvault.ledger.model import TaskRecord
from jitvault.ledger.rows import get_observation
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.dialect import batches
from jitvault.ledger.stream.canaries import around
from jitvault.model.vault_access import last_end

_SKEW = timedelta(seconds=30)

Query = Select[Any] | CompoundSelect[Any]

# built once: revocations wait for these queries
_LINE, _SOURCE, _GAP = schema.observations.c, schema.audit_sources.c, schema.audit_gaps.c
_TOKENS: BindParameter[str] = bindparam("tokens", expanding=True)
_SUBJECTS: BindParameter[str] = bindparam("subjects", expanding=True)
_CANARY = schema.canaries.c
# a gap counts from its first line on, not only from the next canary
_NEWEST = (
    select(_CANARY.source, _CANARY.epoch, func.coalesce(_SOURCE.epoch, _CANARY.epoch).label("read"))
    .join_from(schema.canaries, schema.audit_sources, _SOURCE.name == _CANARY.source, isouter=True)
    .order_by(_CANARY.at.desc())
    .limit(1)
    .subquery()
)
# a canary line that hashes an accessor says nothing about the token
_ELSEWHERE = (_LINE.kind != Kind.CANARY) & or_(
    _LINE.source != _NEWEST.c.source,
    _LINE.epoch != _NEWEST.c.epoch,
    _LINE.epoch != _NEWEST.c.read,
)
# A gap elsewhere may hide what a token of the task did. Each condition uses its own index.
_INTERRUPTED = select(
    or_(
        select(_LINE.line).where(_LINE.actor.in_(_TOKENS), _ELSEWHERE).correlate(_NEWEST).exists(),
        select(_LINE.line).where(_LINE.subject.in_(_SUBJECTS), _ELSEWHERE).correlate(_NEWEST).exists(),
        select(_GAP.source).where(_GAP.at >= bindparam("since")).exists(),
    )
).select_from(_NEWEST)
# the HMACs of all tokens that stood for these: their wrappings, themselves, and what they had wrapped
_ALIASES = select(_LINE.alias).where(or_(_LINE.subject.in_(_TOKENS), _LINE.actor.in_(_TOKENS)), _LINE.alias != "")
_REWRAP = select(_LINE.alias).where(_LINE.kind == Kind.REWRAPPED, _LINE.alias != "")
_REWRAPPED = _REWRAP.where(_LINE.token.in_(_ALIASES))
_REWRAPPED_AGAIN = _REWRAP.where(_LINE.token.in_(bindparam("fresh", expanding=True)))
_SESSIONS = select(schema.worker_sessions.c.accessor_hmac)
# Each uses its own index, and values instead of subqueries: PostgreSQL scans all lines for an OR of the conditions, and
# for a subquery as well while it has no statistics.
_VALUES: BindParameter[str] = bindparam("values", expanding=True)
_BY_ACTOR = select(schema.observations).where(_LINE.actor.in_(_TOKENS))
_BY_SUBJECT = select(schema.observations).where(_LINE.subject.in_(_SUBJECTS))
_OWN_UPKEEP = _LINE.kind.in_([Kind.RENEWED, Kind.TOKEN_LOOKUP]) & _LINE.actor.in_(_SESSIONS)
_ACTS = union_all(_BY_ACTOR, _BY_SUBJECT.where(~_OWN_UPKEEP))
_ABOUT = union_all(
    _BY_ACTOR, _BY_SUBJECT, select(schema.observations).where(_LINE.op.in_(bindparam("ops", expanding=True)))
)
_BY_TOKEN = select(schema.observations).where(_LINE.token.in_(_VALUES), schema.is_given(_LINE.token))
_SINCE = _LINE.at >= bindparam("since")
_HAZARD_SINCE = select(_LINE.line).where(_LINE.kind == Kind.HAZARD, _SINCE).limit(1)
_HAZARDS = select(schema.observations).where(_LINE.kind == Kind.HAZARD, _SINCE)
# lines whose path is one that a credential may come from
_ISSUES = frozenset({Kind.LEASE_ISSUED, Kind.USED})
# A revocation that names its lease in the body shows an HMAC, which the ledger cannot match to a lease.
_UNNAMED = select(schema.observations).where(
    _LINE.kind == Kind.LEASE_REVOKED, _LINE.subject.startswith("hmac-"), _SINCE
)


def trail(connection: Connection, record: TaskRecord) -> AuditTrail:
    """Return the evidence about a task: its lines, hazards and canaries.

    See `Ledger.trail`.
    """
    found = _LineSet(connection)
    tokens, subjects = _names(record)
    found.add(_ABOUT, tokens=tokens, subjects=subjects, ops=[op.op_id for op in record.operations])
    stand_ins = found.stand_ins(tokens)
    since = {"since": min((o.at for o in found.lines.values()), default=record.task.created_at)}
    found.follow(stand_ins)
    # Acts of others that may hide a credential. Of an unwrapped lease only its own path says where it came from.
    sources = [*found.sources(), *(lease.path for lease in record.leases)]
    found.take(union_all(_HAZARDS.where(can_touch(sources)), _UNNAMED), since)
    lines = with_subjects(found.in_order())
    ends = [end for grant in record.grants for end in (grant.expires_at, last_end(grant.role, grant.issued_at))]
    return AuditTrail(lines, around(connection, lines, ends), worker_sessions(connection))


def can_touch(paths: Iterable[str]) -> ColumnElement[bool]:
    """Return the condition that an act can concern a credential of `paths`.

    An act can if it is about all of Vault or about the mount of a path. A mount is known by the first part of its name.
    Someone who may write to other mounts can make any number of lines there; none of them is read for a task that has
    nothing from these mounts.
    """
    mounts = sorted({"sys", "auth"} | {path.partition("/")[0] for path in paths if path})
    return or_(*(_LINE.path.startswith(f"{mount}/", autoescape=True) for mount in mounts))


def acts(connection: Connection, record: TaskRecord) -> AuditTrail:
    """Return the acts of a task's tokens and the acts on them.

    See `Ledger.acts`.
    """
    lines = _LineSet(connection)
    tokens, subjects = _names(record)
    lines.add(_ACTS, tokens=tokens, subjects=subjects)
    lines.follow(lines.stand_ins(tokens))
    return AuditTrail(lines.in_order(), (), worker_sessions(connection))


def _names(record: TaskRecord) -> tuple[set[str], list[str]]:
    """Return the names in audit lines of the task's tokens, and of its tokens and leases."""
    tokens = {grant.accessor_hmac for grant in record.grants if grant.accessor_hmac}
    return tokens, [*tokens, *(lease.lease_id for lease in record.leases)]


def worker_sessions(connection: Connection) -> frozenset[str]:
    """Return the accessor HMACs of the worker's own tokens."""
    return frozenset(connection.execute(_SESSIONS).scalars())


class _LineSet:
    """The lines found so far, by their digest."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.lines: dict[str, Observation] = {}

    def add(self, query: Query, **values: Iterable[str]) -> None:
        """Add what the query finds for these values, in batches."""
        batched = [batches(list(some)) for some in values.values()]
        for some in zip_longest(*batched, fillvalue=()):
            self.take(query, dict(zip(values, some, strict=True)))

    def take(self, query: Query, values: Mapping[str, object]) -> None:
        """Add what one query finds."""
        for row in self._connection.execute(query, values).mappings():
            if row["line"] not in self.lines:
                self.lines[row["line"]] = get_observation(row)

    def stand_ins(self, tokens: set[str]) -> set[str]:
        """Return what stands for `tokens` in other lines.

        Their wrappings, themselves, and what they had wrapped.
        """
        return {o.alias for o in self.lines.values() if o.alias and {o.actor, o.subject} & tokens}

    def follow(self, stand_ins: set[str]) -> None:
        """Add the lines about `stand_ins` and everything they were rewrapped into."""
        followed = set[str]()
        while fresh := stand_ins - followed:
            followed |= fresh
            self.add(_BY_TOKEN, values=fresh)
            # a rewrapped token stands for what the wrapping before stood for
            rewraps = (o for o in self.lines.values() if o.kind is Kind.REWRAPPED and o.alias)
            stand_ins = {o.alias for o in rewraps if o.token in followed}

    def sources(self) -> Iterator[str]:
        """Yield the paths that may have given the task's tokens something."""
        for o in self.lines.values():
            if o.kind in _ISSUES and "denied" not in o.detail:
                yield o.path

    def in_order(self) -> tuple[Observation, ...]:
        """Return the lines in the order of the stream."""
        by_place = sorted(self.lines.values(), key=lambda o: (o.place.source, o.place.epoch, o.place.offset))
        return in_order(by_place)


def interrupted(connection: Connection, record: TaskRecord) -> bool:
    """Return whether the stream was interrupted during the task.

    See `Ledger.interrupted`.
    """
    tokens = [g.accessor_hmac for g in record.grants if g.accessor_hmac]
    if not tokens:
        return False
    subjects = tokens + [lease.lease_id for lease in record.leases]
    values = {"tokens": tokens, "subjects": subjects, "since": _first_create_sent(record)}
    # no row where there is no canary
    return bool(connection.execute(_INTERRUPTED, values).scalar())


def endangered(connection: Connection, record: TaskRecord) -> bool:
    """Return whether a hazard was seen since the task began.

    See `Ledger.endangered`.
    """
    # Vault's clock and the worker's differ by no more than this, or the stream is not trusted
    return connection.execute(_HAZARD_SINCE, {"since": _first_create_sent(record) - _SKEW}).first() is not None


def _first_create_sent(record: TaskRecord) -> datetime:
    """Return when the task's first token was requested, by the worker's clock."""
    creates = {grant.create_op for grant in record.grants}
    return min((op.sent_at for op in record.operations if op.op_id in creates), default=record.task.created_at)


def in_order(lines: Sequence[Observation]) -> tuple[Observation, ...]:
    """Return lines by place within a source, by Vault's time across sources.

    A line is never put before the lines that precede it in its source.
    """
    latest: dict[str, datetime] = {}
    keyed = []
    for o in lines:
        latest[o.place.source] = max(o.at, latest.get(o.place.source, o.at))
        keyed.append((latest[o.place.source], o))
    return tuple(o for _, o in sorted(keyed, key=lambda pair: pair[0]))


def tokens_for(connection: Connection, accessors: Sequence[str]) -> set[str]:
    """Return the HMACs of all tokens that stood for the tokens of `accessors`.

    As far as known lines tell.
    """
    found = _rewrapped(connection, accessors)
    found.update(connection.execute(_ALIASES, {"tokens": list(accessors)}).scalars())
    return found


def _rewrapped(connection: Connection, tokens: Sequence[str]) -> set[str]:
    """Return the HMACs of wrappings that one of these was rewrapped into."""
    fresh = set(connection.execute(_REWRAPPED, {"tokens": list(tokens)}).scalars())
    found = set(fresh)
    while fresh:
        fresh = set(connection.execute(_REWRAPPED_AGAIN, {"fresh": list(fresh)}).scalars()) - found
        found |= fresh
    return found
