"""The audit stream read back as evidence: the lines of one task, and what casts doubt on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Select, bindparam, func, or_, select

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.token_links import with_subjects
from jitvault.audit.trail import AuditTrail
from jitvault.ledger import schema
from jitvault.ledger.canaries import around
from jitvault.ledger.dialect import batches
from jitvault.ledger.model import TaskRecord
from jitvault.ledger.rows import get_observation
from jitvault.model.vault_access import last_end

_SKEW = timedelta(seconds=30)

# made once: while these are asked, access is still there
_LINE, _SOURCE, _GAP = schema.observations.c, schema.audit_sources.c, schema.audit_gaps.c
_TOKENS: BindParameter[str] = bindparam("tokens", expanding=True)
_SUBJECTS: BindParameter[str] = bindparam("subjects", expanding=True)
_CANARY = schema.canaries.c
# a gap counts from the line that makes it, and not only from the canary after it
_NEWEST = (
    select(_CANARY.source, _CANARY.epoch, func.coalesce(_SOURCE.epoch, _CANARY.epoch).label("read"))
    .join_from(schema.canaries, schema.audit_sources, _SOURCE.name == _CANARY.source, isouter=True)
    .order_by(_CANARY.at.desc())
    .limit(1)
)
# whoever has an accessor hashed says nothing about its token
_ELSEWHERE = (_LINE.kind != Kind.CANARY) & or_(
    _LINE.source != bindparam("source"),
    _LINE.epoch != bindparam("epoch"),
    _LINE.epoch != bindparam("read"),
)
# what is missing elsewhere may be what a token of the task did; each by its own index
_INTERRUPTED = select(
    or_(
        select(_LINE.line).where(_LINE.actor.in_(_TOKENS), _ELSEWHERE).exists(),
        select(_LINE.line).where(_LINE.subject.in_(_SUBJECTS), _ELSEWHERE).exists(),
        select(_GAP.source).where(_GAP.at >= bindparam("since")).exists(),
    )
)
_LEASES = select(schema.leases.c.lease_id).where(schema.leases.c.task_id == bindparam("task_id"))
_OPS = select(schema.operations.c.op_id).where(schema.operations.c.task_id == bindparam("task_id"))
# the HMACs of all tokens that stood for these: their wrapping, themselves, what they had wrapped
_ALIASES = select(_LINE.alias).where(or_(_LINE.subject.in_(_TOKENS), _LINE.actor.in_(_TOKENS)), _LINE.alias != "")
_REWRAP = select(_LINE.alias).where(_LINE.kind == Kind.REWRAPPED, _LINE.alias != "")
_REWRAPPED = _REWRAP.where(_LINE.token.in_(_ALIASES))
_REWRAPPED_AGAIN = _REWRAP.where(_LINE.token.in_(bindparam("fresh", expanding=True)))
_SESSIONS = select(schema.worker_sessions.c.accessor_hmac)
# each by its own index, and with values instead of subqueries: PostgreSQL reads all lines for an OR of them, and, where
# nobody has told it yet how many there are, for a subquery as well
_VALUES: BindParameter[str] = bindparam("values", expanding=True)
_BY_ACTOR = select(schema.observations).where(_LINE.actor.in_(_VALUES))
_BY_SUBJECT = select(schema.observations).where(_LINE.subject.in_(_VALUES))
_KEPT = _LINE.kind.in_([Kind.RENEWED, Kind.TOKEN_LOOKUP]) & _LINE.actor.in_(_SESSIONS)
_DONE_TO = _BY_SUBJECT.where(~_KEPT)
_BY_OP = select(schema.observations).where(_LINE.op.in_(_VALUES))
_BY_TOKEN = select(schema.observations).where(_LINE.token.in_(_VALUES), schema.is_given(_LINE.token))
_SINCE = _LINE.at >= bindparam("since")
_HAZARD_SINCE = select(_LINE.line).where(_LINE.kind == Kind.HAZARD, _SINCE).limit(1)
_HAZARDS = select(schema.observations).where(_LINE.kind == Kind.HAZARD, _SINCE)
# whose path is one that a credential may come from
_ISSUES = frozenset({Kind.LEASE_ISSUED, Kind.USED})
# a revocation that names its lease in the body shows an HMAC that the ledger does not know
_UNNAMED = select(schema.observations).where(
    _LINE.kind == Kind.LEASE_REVOKED, _LINE.subject.startswith("hmac-"), _SINCE
)


def trail(connection: Connection, file: TaskRecord) -> AuditTrail:
    found = _Found(connection)
    tokens, leases = _names(connection, file)
    found.add(_BY_ACTOR, tokens)
    found.add(_BY_SUBJECT, [*tokens, *leases])
    named = found.named(tokens)
    found.add(_BY_OP, connection.execute(_OPS, {"task_id": file.task.task_id}).scalars())
    since = {"since": min((o.at for o in found.lines.values()), default=file.task.created_at)}
    found.follow(named)
    # what others did that may hide more
    # where a wrapping is opened, only its lease says where that came from
    sources = [*found.sources(), *(lease.path for lease in file.leases)]
    found.take(_HAZARDS.where(can_touch(sources)), since)
    found.take(_UNNAMED, since)
    lines = with_subjects(found.in_order())
    ends = [end for grant in file.grants for end in (grant.expires_at, last_end(grant.role, grant.issued_at))]
    return AuditTrail(lines, around(connection, lines, ends), _sessions(connection))


def can_touch(paths: Iterable[str]) -> ColumnElement[bool]:
    """Whether an act can concern a credential from one of these paths: it is about all of Vault, or about its mount.

    A mount is known here by the first part of its name. Whoever may write to other mounts makes as many lines there as
    they want, and none of them is read for a task that has nothing of there.
    """
    mounts = sorted({"sys", "auth"} | {path.partition("/")[0] for path in paths if path})
    return or_(*(_LINE.path.startswith(f"{mount}/", autoescape=True) for mount in mounts))


def acts(connection: Connection, file: TaskRecord) -> AuditTrail:
    found = _Found(connection)
    tokens, leases = _names(connection, file)
    found.add(_BY_ACTOR, tokens)
    found.add(_DONE_TO, [*tokens, *leases])
    found.follow(found.named(tokens))
    return AuditTrail(found.in_order(), (), _sessions(connection))


def _names(connection: Connection, file: TaskRecord) -> tuple[set[str], list[str]]:
    """What the task's tokens and leases are called in the lines."""
    leases = connection.execute(_LEASES, {"task_id": file.task.task_id}).scalars()
    return {g.accessor_hmac for g in file.grants if g.accessor_hmac}, list(leases)


def _sessions(connection: Connection) -> frozenset[str]:
    return frozenset(connection.execute(_SESSIONS).scalars())


class _Found:
    """The lines that were found so far, by their digest."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.lines: dict[str, Observation] = {}

    def add(self, query: Select[Any], values: Iterable[str]) -> None:
        for some in batches(list(values)):
            self.take(query, {"values": some})

    def take(self, query: Select[Any], values: Mapping[str, object]) -> None:
        rows = self._connection.execute(query, values).mappings()
        self.lines.update((row["line"], get_observation(row)) for row in rows)

    def named(self, tokens: set[str]) -> set[str]:
        """What stands for `tokens` in other lines: their wrapping, themselves, what they had wrapped."""
        return {o.alias for o in self.lines.values() if o.alias and {o.actor, o.subject} & tokens}

    def follow(self, named: set[str]) -> None:
        """Add the lines about what is `named`, and about what that was wrapped in again."""
        asked = set[str]()
        while fresh := named - asked:
            asked |= fresh
            self.add(_BY_TOKEN, fresh)
            # what was wrapped again stands for what the wrapping before stood for
            named = {o.alias for o in self.lines.values() if o.kind is Kind.REWRAPPED and o.alias and o.token in asked}

    def sources(self) -> Iterator[str]:
        """Yield the paths from which the task's tokens got something, or may have."""
        for o in self.lines.values():
            if o.kind in _ISSUES and "denied" not in o.detail:
                yield o.path

    def in_order(self) -> tuple[Observation, ...]:
        by_place = sorted(self.lines.values(), key=lambda o: (o.place.source, o.place.epoch, o.place.offset))
        return in_order(by_place)


def interrupted(connection: Connection, file: TaskRecord) -> bool:
    tokens = [g.accessor_hmac for g in file.grants if g.accessor_hmac]
    newest = connection.execute(_NEWEST).first()
    if newest is None or not tokens:
        return False
    subjects = tokens + [lease.lease_id for lease in file.leases]
    named = {"tokens": tokens, "subjects": subjects, "since": _begun(file)}
    return bool(connection.execute(_INTERRUPTED, {**named, **newest._mapping}).scalar())


def endangered(connection: Connection, file: TaskRecord) -> bool:
    # Vault's clock and ours differ by no more than what is trusted
    return connection.execute(_HAZARD_SINCE, {"since": _begun(file) - _SKEW}).first() is not None


def _begun(file: TaskRecord) -> datetime:
    """When the task's first token was meant, by our clock."""
    creates = {grant.create_op for grant in file.grants}
    return min((op.sent_at for op in file.operations if op.op_id in creates), default=file.task.created_at)


def in_order(lines: Sequence[Observation]) -> tuple[Observation, ...]:
    """By place within a source, by Vault's time across sources: a line is not before those that stand before it."""
    latest: dict[str, datetime] = {}
    keyed = []
    for o in lines:
        latest[o.place.source] = max(o.at, latest.get(o.place.source, o.at))
        keyed.append((latest[o.place.source], o))
    return tuple(o for _, o in sorted(keyed, key=lambda pair: pair[0]))


def tokens_for(connection: Connection, accessors: Sequence[str]) -> set[str]:
    """The HMACs of all tokens that stood for the tokens with these accessors, in the lines that are known."""
    found = _rewrapped(connection, accessors)
    found.update(connection.execute(_ALIASES, {"tokens": list(accessors)}).scalars())
    return found


def _rewrapped(connection: Connection, tokens: Sequence[str]) -> set[str]:
    """The HMACs of wrappings that one of those was moved into."""
    fresh = set(connection.execute(_REWRAPPED, {"tokens": list(tokens)}).scalars())
    found = set(fresh)
    while fresh:
        fresh = set(connection.execute(_REWRAPPED_AGAIN, {"fresh": list(fresh)}).scalars()) - found
        found |= fresh
    return found
