"""Which lines of a batch the ledger stores, and which it only counts.

Anyone can make Vault write some kinds of lines, without a token or with Vault's `default` policy: a refused unwrap, a
look-up of a lease, a rewrap of an own wrapping. Such a line is stored where it belongs to a task or to the worker. Of
lines that one token can repeat without gaining anything, only so many are stored. All others are counted by kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import BindParameter, Column, Connection, Select, bindparam, func, select

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.tripwires.fleet_rules import is_publication, is_signature
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.dialect import upsert
from jitvault.ledger.stream.model import CountedLines

MOST_OF_ONE = 100
"""How many lines of a kind are stored of one token that gains nothing by them."""
MOST_REWRAPS = 200
"""How many rewraps of unknown wrappings are stored of one hour of Vault's time.

The line that says which task a wrapping belongs to may stand in a file that is not read yet, and a lease may be known
by that wrapping alone. Without the rewrap's line the task is not confirmed before its leases were listed.
"""
MOST_DENIED = 1000
"""How many lines of refused requests are stored of one task token; more than `JITVAULT_DENIED_LIMIT` can be."""

# anyone who reaches Vault can cause these lines
_BY_ANYONE = frozenset({Kind.REFUSED, Kind.UNWRAP_REFUSED, Kind.CUBBYHOLE_READ, Kind.LEASE_LOOKUP, Kind.OWN})
# anyone can have these refused; a refusal means something only for tokens of tasks and of the worker
_REFUSED_BY_ANYONE = frozenset(
    {
        Kind.CANARY,
        Kind.TOKEN_CREATED,
        Kind.TOKEN_REVOKED,
        Kind.TOKEN_LOOKUP,
        Kind.LEASE_REVOKED,
        Kind.LEASE_LOOKUP,
        Kind.RENEWED,
    }
)
_REPEATED = frozenset({Kind.REFUSED, Kind.UNWRAP_REFUSED, Kind.CUBBYHOLE_READ, Kind.LEASE_LOOKUP, Kind.DENIED})

_HOUR = timedelta(hours=1)

_LINE = schema.observations.c
_GRANTS = select(schema.grants.c.accessor_hmac).where(
    schema.grants.c.accessor_hmac.in_(bindparam("values", expanding=True))
)
# during a recovery the grants are not in the ledger yet, but the lines that created their tokens are
_CREATED = select(_LINE.subject).where(
    _LINE.subject.in_(bindparam("values", expanding=True)), _LINE.kind == Kind.TOKEN_CREATED
)
_DELIVERED = select(schema.grants.c.wrapping_hmac).where(
    schema.grants.c.wrapping_hmac.in_(bindparam("values", expanding=True))
)
_LEASES = select(schema.leases.c.lease_id).where(schema.leases.c.lease_id.in_(bindparam("values", expanding=True)))
_REWRAPS = select(func.count()).where(_LINE.kind == Kind.REWRAPPED, _LINE.at > bindparam("since"))
_REPEATED_KINDS = sorted(_REPEATED)


def stored_and_counted(
    connection: Connection, new: Sequence[Observation], stands_for: Collection[str], sessions: Collection[str]
) -> tuple[list[Observation], list[Observation]]:
    """Return the lines to store and the lines to count.

    `stands_for` holds the tokens that stand for task tokens, `sessions` the accessor HMACs of the worker's tokens.
    """
    doubtful = [o for o in new if _can_be_by_anyone(o)]
    if not doubtful:
        return list(new), []
    too_many = _rewraps_too_many(connection, doubtful, stands_for)
    tokens = {o.token for o in doubtful if o.token in stands_for}
    actors = {o.actor for o in doubtful if o.actor}
    ours = set(sessions) | _known(connection, actors, new)
    leases = _leases(connection, [o.subject for o in doubtful if o.kind is Kind.RENEWED], new)

    def belongs(o: Observation) -> bool:
        if o.kind is Kind.REWRAPPED:
            return o.line not in too_many
        if o.actor in ours or o.token in tokens:
            return True
        return o.kind is Kind.RENEWED and o.subject in leases

    return _some_of_each(connection, new, lambda o: not _can_be_by_anyone(o) or belongs(o), tokens, set(sessions))


def _can_be_by_anyone(o: Observation) -> bool:
    """Return whether a line may concern nothing known, or repeat others."""
    if "worker" in o.detail and (is_signature(o) or is_publication(o) or (o.kind is Kind.RENEWED and not o.failed)):
        # Also for a token that no login of this worker gave: a thief of its login credentials has another token.
        return False
    if (
        o.kind in _BY_ANYONE
        or o.kind in (Kind.DENIED, Kind.REWRAPPED)
        or (o.kind in _REFUSED_BY_ANYONE and "denied" in o.detail)
    ):
        return True
    if o.kind is Kind.TOKEN_REVOKED and not o.subject:
        return True
    # a renewal that names its token or lease in the body; the response of a lease's renewal names it in its path
    return o.kind is Kind.RENEWED and (not o.subject or o.path.startswith("sys/"))


def _rewraps_too_many(connection: Connection, lines: Sequence[Observation], stands_for: Collection[str]) -> set[str]:
    """Return the rewraps beyond the number stored for an hour.

    More are stored of tasks' wrappings than of others. The rewrap of a delivered wrapping is always stored, so that no
    flood hides who took the wrapping; there is at most one of each, since a rewrap uses its wrapping up.
    """
    rewraps = [o for o in lines if o.kind is Kind.REWRAPPED]
    if not rewraps:
        return set()
    delivered = set(connection.execute(_DELIVERED, {"values": [o.token for o in rewraps]}).scalars())
    rewraps = [o for o in rewraps if o.token not in delivered]
    if not rewraps:
        return set()
    stored = connection.execute(_REWRAPS, {"since": max(o.at for o in rewraps) - _HOUR}).scalar() or 0
    too_many: set[str] = set()
    for o in rewraps:
        most = MOST_REWRAPS * 5 if o.token in stands_for else MOST_REWRAPS
        if stored >= most:
            too_many.add(o.line)
        else:
            stored += 1
    return too_many


def _known(connection: Connection, names: Collection[str], new: Sequence[Observation]) -> set[str]:
    """Return those of these accessor HMACs that belong to task tokens."""
    accessors = [name for name in names if name]
    if not accessors:
        return set()
    found = {o.subject for o in new if o.kind is Kind.TOKEN_CREATED and o.subject in names and "denied" not in o.detail}
    found |= set(connection.execute(_GRANTS, {"values": accessors}).scalars())
    found |= set(connection.execute(_CREATED, {"values": accessors}).scalars())
    return found


def _leases(connection: Connection, ids: Sequence[str], new: Sequence[Observation]) -> set[str]:
    """Return those of these lease ids that are known, or issued in `new`."""
    values = [lease_id for lease_id in ids if lease_id and not lease_id.startswith("hmac-")]
    if not values:
        return set()
    issued = {o.subject for o in new if o.kind is Kind.LEASE_ISSUED}
    return (issued & set(values)) | set(connection.execute(_LEASES, {"values": values}).scalars())


def _some_of_each(
    connection: Connection,
    new: Sequence[Observation],
    belongs: Callable[[Observation], bool],
    tokens: Collection[str],
    sessions: Collection[str],
) -> tuple[list[Observation], list[Observation]]:
    """Split lines: store those that belong, and the first repeated ones.

    Repeated are lines that one token can cause again and again without gaining anything.
    """
    kept: list[Observation] = []
    counted: list[Observation] = []
    repeated = {o.line: o for o in new if o.kind in _REPEATED and o.actor not in sessions and belongs(o)}
    stored = _stored_counts(connection, list(repeated.values()), tokens)
    for o in new:
        if not belongs(o):
            counted.append(o)
            continue
        if o.line in repeated:
            key = (o.kind, o.token if o.token in tokens else o.actor)
            if stored[key] >= _most(o):
                counted.append(o)
                continue
            stored[key] += 1
        kept.append(o)
    return kept, counted


def _most(o: Observation) -> int:
    """Return how many lines like this one are stored.

    The response to a stored request is stored as well: without it, the request would be in flight for ever.
    """
    most = MOST_DENIED if o.kind is Kind.DENIED else MOST_OF_ONE
    return most + MOST_OF_ONE if o.closing else most


def _stored_counts(
    connection: Connection, repeated: Sequence[Observation], tokens: Collection[str]
) -> Counter[tuple[Kind, str]]:
    """Return how many lines of each kind and token the ledger has."""
    found: Counter[tuple[Kind, str]] = Counter()
    by_token = {o.token for o in repeated if o.token in tokens}
    by_actor = {o.actor for o in repeated if o.actor and o.token not in tokens}
    for column, values in ((_LINE.token, by_token), (_LINE.actor, by_actor)):
        if values:
            for kind, value, lines in connection.execute(_count(column), {"values": list(values)}):
                found[Kind(kind), value] += lines
    return found


def _count(column: Column[str]) -> Select[Any]:
    values: BindParameter[str] = bindparam("values", expanding=True)
    query = select(_LINE.kind, column, func.count()).where(column.in_(values), _LINE.kind.in_(_REPEATED_KINDS))
    if column is _LINE.token:
        query = query.where(schema.is_given(column))
    return query.group_by(_LINE.kind, column)


def add_counts(connection: Connection, lines: Sequence[Observation]) -> None:
    """Add up how many lines of each kind were not stored.

    Also when and from which address the last one of each kind came.
    """
    table = schema.lines_not_kept
    by_kind: dict[Kind, list[Observation]] = {}
    for o in lines:
        by_kind.setdefault(o.kind, []).append(o)
    for kind, of_kind in sorted(by_kind.items()):
        last = max(of_kind, key=lambda o: o.at)
        values = {"kind": kind, "lines": len(of_kind), "last_at": last.at, "last_remote": last.remote[:64]}
        statement = upsert(connection, table).values(values)
        changed = {**values, "lines": table.c.lines + len(of_kind)}
        connection.execute(statement.on_conflict_do_update(index_elements=["kind"], set_=changed))


def counts_by_kind(connection: Connection) -> Sequence[CountedLines]:
    """Return how many lines were counted by kind, most first."""
    table = schema.lines_not_kept
    rows = connection.execute(select(table).order_by(table.c.lines.desc(), table.c.kind)).mappings()
    return [CountedLines(row["kind"], row["lines"], row["last_at"], row["last_remote"]) for row in rows]
