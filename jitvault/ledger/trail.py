"""The audit stream read back as evidence: the lines of one task, and what casts doubt on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    union,
)

from jitvault.domain.evidence import Trail
from jitvault.domain.observation import Kind, Observation
from jitvault.ledger import schema
from jitvault.ledger.canaries import around
from jitvault.ledger.rows import get_observation
from jitvault.ports.ledger import TaskFile

_SKEW = timedelta(seconds=30)

# made once: while these are asked, access is still there
_LINE, _SOURCE, _GAP = schema.observations.c, schema.audit_sources.c, schema.audit_gaps.c
_TOKENS: BindParameter[str] = bindparam("tokens", expanding=True)
_SUBJECTS: BindParameter[str] = bindparam("subjects", expanding=True)
_NEWEST = select(schema.canaries).order_by(schema.canaries.c.at.desc()).limit(1)
_EPOCH = select(_SOURCE.epoch).where(_SOURCE.name == bindparam("source"))
_OWN = union(select(_LINE.line).where(_LINE.actor.in_(_TOKENS)), select(_LINE.line).where(_LINE.subject.in_(_SUBJECTS)))
_OWN_ELSEWHERE = (
    select(_LINE.line)
    .where(
        # by an index each: for the first of an OR of them PostgreSQL would read all lines that there are
        _LINE.line.in_(_OWN),
        # whoever has an accessor hashed says nothing about its token
        _LINE.kind != Kind.CANARY,
        or_(
            _LINE.source != bindparam("source"),
            _LINE.epoch != bindparam("epoch"),
            _LINE.epoch != bindparam("read"),
        ),
    )
    .limit(1)
)
# word for word as the index says it, without which it is not used
_NAMES_A_TOKEN = _LINE.token != literal_column("''")
# never a list of what an agent can make many of: a database takes only so many in one query
_LEASES = select(schema.leases.c.lease_id).where(schema.leases.c.task_id == bindparam("task_id"))
_OPS = select(schema.operations.c.op_id).where(schema.operations.c.task_id == bindparam("task_id"))
_WANTED = (_LINE.actor.in_(_TOKENS), _LINE.subject.in_(_TOKENS), _LINE.subject.in_(_LEASES), _LINE.op.in_(_OPS))
# the HMACs of all tokens that stood for these: their wrapping, themselves, what they had wrapped
_ALIASES = select(_LINE.alias).where(or_(_LINE.subject.in_(_TOKENS), _LINE.actor.in_(_TOKENS)), _LINE.alias != "")
_REWRAP = select(_LINE.alias).where(_LINE.kind == Kind.REWRAPPED, _LINE.alias != "")
_REWRAPPED = _REWRAP.where(_LINE.token.in_(_ALIASES))
_REWRAPPED_AGAIN = _REWRAP.where(_LINE.token.in_(bindparam("fresh", expanding=True)))
_SINCE_THEN = _LINE.at >= bindparam("began")


def _any(*conditions: ColumnElement[bool]) -> CompoundSelect[str]:
    """The lines for which any of these holds, each by its own index: PostgreSQL reads all lines for an OR of them."""
    return union(*(select(_LINE.line).where(condition) for condition in conditions))


_BEGAN = select(func.min(_LINE.at)).where(_LINE.line.in_(_any(*_WANTED)))
_OF_TASK = (
    select(schema.observations)
    .where(
        _LINE.line.in_(
            _any(
                *_WANTED,
                _LINE.token.in_(_ALIASES) & _NAMES_A_TOKEN,
                _LINE.token.in_(bindparam("rewrapped", expanding=True)) & _NAMES_A_TOKEN,
                (_LINE.kind == Kind.HAZARD) & _SINCE_THEN,
                # a revocation that names its lease in the body shows an HMAC that the ledger does not know
                (_LINE.kind == Kind.LEASE_REVOKED) & _LINE.subject.startswith("hmac-") & _SINCE_THEN,
            )
        )
    )
    .order_by(_LINE.source, _LINE.epoch, _LINE.offset)
)
_SESSIONS = select(schema.worker_sessions.c.accessor_hmac)
_GAP_SINCE = select(_GAP.source).where(_GAP.at >= bindparam("since")).limit(1)
_HAZARD_SINCE = select(_LINE.line).where(_LINE.kind == Kind.HAZARD, _LINE.at >= bindparam("since")).limit(1)


def trail(connection: Connection, file: TaskFile, *, canaries: bool) -> Trail:
    tokens = [g.accessor_hmac for g in file.grants if g.accessor_hmac]
    own = {"tokens": tokens, "task_id": file.task.task_id}
    began = connection.execute(_BEGAN, own).scalar() or file.task.created_at
    wanted = {**own, "began": began, "rewrapped": list(_rewrapped(connection, tokens))}
    lines = in_order([get_observation(row) for row in connection.execute(_OF_TASK, wanted).mappings()])
    return Trail(
        observations=lines,
        canaries=around(connection, lines, [grant.expires_at for grant in file.grants]) if canaries else (),
        worker_accessors=frozenset(connection.execute(_SESSIONS).scalars()),
    )


def interrupted(connection: Connection, file: TaskFile) -> bool:
    tokens = [g.accessor_hmac for g in file.grants if g.accessor_hmac]
    newest = connection.execute(_NEWEST).first()
    if newest is None or not tokens:
        return False
    # a gap counts from the line that makes it, and not only from the canary after it
    reading = connection.execute(_EPOCH, {"source": newest.source}).scalar()
    own = {"tokens": tokens, "subjects": tokens + [lease.lease_id for lease in file.leases]}
    stretch = {"source": newest.source, "epoch": newest.epoch, "read": reading or newest.epoch}
    if connection.execute(_OWN_ELSEWHERE, {**own, **stretch}).first() is not None:
        return True
    # what is missing elsewhere may be what a token of the task did
    return connection.execute(_GAP_SINCE, {"since": _begun(file)}).first() is not None


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
