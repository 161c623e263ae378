"""The audit stream read back as evidence: the lines of one task, and what casts doubt on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, bindparam, func, literal_column, or_, select

from jitvault.domain.evidence import Trail
from jitvault.domain.observation import Kind, Observation
from jitvault.ledger import schema
from jitvault.ledger.canaries import around
from jitvault.ledger.dialect import batches
from jitvault.ledger.rows import get_observation
from jitvault.ports.ledger import TaskFile

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
# word for word as the index says it, without which it is not used
_NAMES_A_TOKEN = _LINE.token != literal_column("''")
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
_BY_OP = select(schema.observations).where(_LINE.op.in_(_VALUES))
_BY_TOKEN = select(schema.observations).where(_LINE.token.in_(_VALUES), _NAMES_A_TOKEN)
_SINCE = _LINE.at >= bindparam("since")
_HAZARD_SINCE = select(_LINE.line).where(_LINE.kind == Kind.HAZARD, _SINCE).limit(1)
_HAZARDS = select(schema.observations).where(_LINE.kind == Kind.HAZARD, _SINCE)
# a revocation that names its lease in the body shows an HMAC that the ledger does not know
_UNNAMED = select(schema.observations).where(
    _LINE.kind == Kind.LEASE_REVOKED, _LINE.subject.startswith("hmac-"), _SINCE
)


def trail(connection: Connection, file: TaskFile, *, proves: bool) -> Trail:
    lines = in_order(_lines(connection, file, doubts=proves))
    return Trail(
        observations=lines,
        canaries=around(connection, lines, [grant.expires_at for grant in file.grants]) if proves else (),
        worker_accessors=frozenset(connection.execute(_SESSIONS).scalars()),
    )


def _lines(connection: Connection, file: TaskFile, *, doubts: bool) -> list[Observation]:
    """Every line that concerns the task, by source and place; with `doubts` what others did that may hide more."""
    task = {"task_id": file.task.task_id}
    tokens = {g.accessor_hmac for g in file.grants if g.accessor_hmac}
    leases, ops = connection.execute(_LEASES, task).scalars(), connection.execute(_OPS, task).scalars()
    found: dict[str, Observation] = {}

    def add(query: Select[Any], values: Iterable[str]) -> None:
        for some in batches(list(values)):
            take(query, {"values": some})

    def take(query: Select[Any], values: Mapping[str, object]) -> None:
        found.update((row["line"], get_observation(row)) for row in connection.execute(query, values).mappings())

    add(_BY_ACTOR, tokens)
    add(_BY_SUBJECT, [*tokens, *leases])
    named = {o.alias for o in found.values() if o.alias and {o.actor, o.subject} & tokens}
    add(_BY_OP, ops)
    own = list(found.values())
    asked = set[str]()
    while fresh := named - asked:
        asked |= fresh
        add(_BY_TOKEN, fresh)
        # what was wrapped again stands for what the wrapping before stood for
        named = {o.alias for o in found.values() if o.kind is Kind.REWRAPPED and o.alias and o.token in asked}
    if doubts:
        since = {"since": min((o.at for o in own), default=file.task.created_at)}
        take(_HAZARDS, since)
        take(_UNNAMED, since)
    return sorted(found.values(), key=lambda o: (o.place.source, o.place.epoch, o.place.offset))


def interrupted(connection: Connection, file: TaskFile) -> bool:
    tokens = [g.accessor_hmac for g in file.grants if g.accessor_hmac]
    newest = connection.execute(_NEWEST).first()
    if newest is None or not tokens:
        return False
    subjects = tokens + [lease.lease_id for lease in file.leases]
    named = {"tokens": tokens, "subjects": subjects, "since": _begun(file)}
    return bool(connection.execute(_INTERRUPTED, {**named, **newest._mapping}).scalar())


def endangered(connection: Connection, file: TaskFile) -> bool:
    # Vault's clock and ours differ by no more than what is trusted
    return connection.execute(_HAZARD_SINCE, {"since": _begun(file) - _SKEW}).first() is not None


def _begun(file: TaskFile) -> datetime:
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
