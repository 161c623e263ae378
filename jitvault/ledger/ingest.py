"""The audit stream in the ledger: what a batch of lines means for tasks. `trail` reads it back as evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import BindParameter, Connection, bindparam, insert, or_, select, update

from jitvault.audit.issued_lease import Issued, issued
from jitvault.audit.observation import Kind, Observation
from jitvault.audit.token_links import derived_tokens, linked
from jitvault.audit.trail import done
from jitvault.documents.paths import work_item_for
from jitvault.ledger import alarms, documents, noise, schema, writes
from jitvault.ledger.change import write_change
from jitvault.ledger.findings import put_finding
from jitvault.ledger.model import Change, GrantRow, LeaseRow, OpState, TaskRow
from jitvault.ledger.rows import get, get_observation, observation_values
from jitvault.ledger.trail import tokens_for
from jitvault.ledger.writes import CLAIM
from jitvault.model.finding import AFTER_SEAL
from jitvault.model.kinds import EventKind
from jitvault.model.states import DELIVERED_STATES, State, Verdict

_ANYBODYS = frozenset({Kind.LEASE_ISSUED, Kind.CUBBYHOLE_READ, Kind.REWRAPPED})

# a worker asks for a canary every few seconds
_NOTED_EVERY = timedelta(minutes=1)

# made once: to put one together takes longer than to run it, and each batch of lines takes all of them
_LINE = schema.observations.c
_OUR_SESSIONS, _ENTER = select(schema.worker_sessions), insert(schema.observations)
_KNOWN = select(_LINE.line).where(_LINE.line.in_(bindparam("lines", expanding=True)))
_GRANTS = select(schema.grants).where(schema.grants.c.accessor_hmac.in_(bindparam("accessors", expanding=True)))
_NAMED = select(schema.observations).where(
    _LINE.alias.in_(bindparam("tokens", expanding=True)), schema.is_given(_LINE.alias)
)
_GIVEN = select(schema.grants.c.wrapping_hmac, schema.grants.c.accessor_hmac).where(
    schema.grants.c.wrapping_hmac.in_(bindparam("tokens", expanding=True)), schema.grants.c.accessor_hmac.is_not(None)
)
_WAITING = select(schema.observations).where(
    _LINE.token.in_(bindparam("aliases", expanding=True)), schema.is_given(_LINE.token)
)
_OPS: BindParameter[str] = bindparam("ops", expanding=True)
_SETTLE = (
    update(schema.operations)
    .where(schema.operations.c.op_id.in_(_OPS), schema.operations.c.state == OpState.ANSWERED)
    .values(state=OpState.SETTLED)
)
_TASK = select(schema.tasks).where(schema.tasks.c.task_id == bindparam("task_id")).with_for_update(key_share=True)
_LEASES = select(schema.leases.c.lease_id, schema.grants).join_from(
    schema.leases, schema.grants, schema.leases.c.grant_id == schema.grants.c.grant_id
)
_OF_LEASES = _LEASES.where(schema.leases.c.lease_id.in_(bindparam("leases", expanding=True)))


def ingest_batch(connection: Connection, seen: Sequence[Observation], at: datetime, shared: Sequence[str]) -> None:
    """Write the lines of a batch that are not known yet, and everything that they mean."""
    new = _unknown(connection, seen)
    # before any of it is left out: however often somebody writes, the last time counts
    documents.note(connection, new)
    stands_for = _aliases(connection, new)
    sessions = _sessions(connection, new)
    new, counted = noise.split(connection, new, stands_for, sessions)
    new, again = writes.split(connection, new)
    claimed = _with_claims(connection, [o for _, o in again])
    writes.note(connection, [(path, o) for (path, _), o in zip(again, claimed, strict=True)])
    noise.count(connection, [*counted, *claimed])
    if not new:
        return
    new = _with_claims(connection, new)
    connection.execute(_ENTER, [observation_values(o) for o in new])
    _settle_operations(connection, new, sessions)
    # what others unwrap on the worker's host is theirs
    ours = [o for o in new if o.kind not in _ANYBODYS or o.token in stands_for]
    alarms.raise_for(connection, ours, sessions, at, shared)
    alarms.tell_restores(connection, new, at)
    earlier = _waiting(connection, new)
    lines = [*new, *earlier]
    renewed = _renewed_leases(connection, (o for o in new if o.actor not in sessions))
    _tell_tasks(connection, lines, _aliases(connection, lines) if earlier else stands_for, renewed, at)


def _sessions(connection: Connection, new: Iterable[Observation]) -> frozenset[str]:
    """The accessor HMACs of the worker's own tokens; where each acts from, and until when, is noted on the way."""
    table = schema.worker_sessions
    known = {row.accessor_hmac: (row.remote, row.last_at) for row in connection.execute(_OUR_SESSIONS)}
    for o in new:
        if o.kind is not Kind.CANARY or not o.remote or o.actor not in known:
            continue
        remote, last_at = known[o.actor]
        now = (o.remote, o.at if o.at - last_at >= _NOTED_EVERY else last_at)
        if now != (remote, last_at):
            known[o.actor] = now
            acts = {"remote": o.remote[:64], "last_at": now[1]}
            connection.execute(update(table).where(table.c.accessor_hmac == o.actor).values(acts))
    return frozenset(known)


def _with_claims(connection: Connection, new: list[Observation]) -> list[Observation]:
    """The same; what people wrote about a task with the newest claim of it. Whoever takes a later one reads it, and no
    other worker has to look.
    """
    named = {
        o.line: ask.task_id for o in new if o.kind is Kind.WRITTEN and (ask := work_item_for(o.subject)) and ask.task_id
    }
    if not named:
        return new
    task = schema.tasks.c
    query = select(task.task_id, task.claim_epoch).where(task.task_id.in_(set(named.values())))
    claims = {row.task_id: row.claim_epoch for row in connection.execute(query)}
    return [replace(o, detail={**o.detail, CLAIM: claims.get(named[o.line], 0)}) if o.line in named else o for o in new]


def _settle_operations(connection: Connection, new: Iterable[Observation], sessions: frozenset[str]) -> None:
    """Mark the acts whose own line was read, so that those that are missing are few and quickly found.

    An operation id counts in a line of one of our own sessions alone: anybody can send the header.
    """
    ops = {o.op for o in new if o.op and o.closing and o.actor in sessions}
    if ops:
        connection.execute(_SETTLE, {"ops": list(ops)})


def _aliases(connection: Connection, lines: Sequence[Observation]) -> dict[str, str]:
    """Which task token each token stands for that `lines` name, by them and by all lines before."""
    found, asked = list(lines), set[str]()
    given: dict[str, str] = {}
    while wanted := {o.token for o in found if o.token} - asked:
        asked |= wanted
        # what the worker delivered it knows without the line, which may stand in a file that is not read yet
        given |= {row.wrapping_hmac: row.accessor_hmac for row in connection.execute(_GIVEN, {"tokens": list(wanted)})}
        # what was wrapped again stands for what the wrapping before stood for
        rows = connection.execute(_NAMED, {"tokens": list(wanted)}).mappings()
        found += [get_observation(row) for row in rows]
    return derived_tokens(found, given)


def _waiting(connection: Connection, new: Sequence[Observation]) -> list[Observation]:
    """Lines that were read before the one that says which token they are about: several files have no order."""
    found, asked = list(new), set[str]()
    while wanted := {o.alias for o in found if o.alias} - asked:
        asked |= wanted
        rows = connection.execute(_WAITING, {"aliases": list(wanted)}).mappings()
        found += [get_observation(row) for row in rows]
    return [o for o in found[len(new) :] if o not in new]


def _unknown(connection: Connection, seen: Sequence[Observation]) -> list[Observation]:
    """The lines of a batch that the ledger does not have: the same bytes twice change nothing."""
    by_line = {o.line: o for o in seen}
    known = set(connection.execute(_KNOWN, {"lines": list(by_line)}).scalars())
    return [o for line, o in by_line.items() if line not in known]


def _renewed_leases(connection: Connection, lines: Iterable[Observation]) -> list[tuple[GrantRow, Observation]]:
    """The lines in which a known lease was renewed, each with the grant that the lease came of."""
    renewed = [o for o in lines if o.kind is Kind.RENEWED and done(o)]
    if not renewed:
        return []
    rows = connection.execute(_OF_LEASES, {"leases": sorted({o.subject for o in renewed})}).mappings()
    grants = {row["lease_id"]: get(row, GrantRow) for row in rows}
    return [(grants[o.subject], o) for o in renewed if o.subject in grants]


def _tell_tasks(
    connection: Connection,
    lines: Sequence[Observation],
    stands_for: Mapping[str, str],
    renewed: Iterable[tuple[GrantRow, Observation]],
    at: datetime,
) -> None:
    """Enter the leases that the lines show, and give each task that they concern one event.

    `renewed` are the lines that are about a lease by its id alone.
    """
    accessors = {o.actor for o in lines} | {o.subject for o in lines} | set(stands_for.values())
    named = {"accessors": sorted(a for a in accessors if a)}
    grants = {row["accessor_hmac"]: get(row, GrantRow) for row in connection.execute(_GRANTS, named).mappings()}
    by_task: dict[str, list[tuple[GrantRow, Observation]]] = {}
    for grant, line in (*linked(lines, grants, stands_for), *renewed):
        by_task.setdefault(grant.task_id, []).append((grant, line))
    for task_id, told in sorted(by_task.items()):
        _tell(connection, task_id, told, at)


def replay_known_lines(connection: Connection, task_id: str, accessors: Sequence[str], at: datetime) -> None:
    """Enter what the lines that are known already say of these tokens of a task."""
    line = schema.observations.c
    query = select(schema.grants).where(
        schema.grants.c.task_id == task_id, schema.grants.c.accessor_hmac.in_(accessors)
    )
    grants = {row["accessor_hmac"]: get(row, GrantRow) for row in connection.execute(query).mappings()}
    tokens = line.token.in_(tokens_for(connection, accessors)) & schema.is_given(line.token)
    wanted = or_(line.actor.in_(accessors), line.subject.in_(accessors), tokens)
    rows = connection.execute(select(schema.observations).where(wanted)).mappings()
    lines = [get_observation(row) for row in rows]
    told = list(linked(lines, grants, derived_tokens(lines)))
    if told:
        _tell(connection, task_id, told, at)


def _tell(connection: Connection, task_id: str, told: Sequence[tuple[GrantRow, Observation]], at: datetime) -> None:
    found = connection.execute(_TASK, {"task_id": task_id}).mappings().first()
    if found is None:
        # whoever deletes a task must not keep the others' lines from being read
        put_finding(connection, None, "ledger_edited", f"task {task_id} was deleted", at, line=None, request_id=None)
        return
    task = get(found, TaskRow)
    rows = _new_leases(connection, told, at)
    if rows and task.state is State.SEALED:
        # nobody looks at it any more by itself
        put_finding(connection, task_id, *AFTER_SEAL, at, line=None, request_id=None)
    body = {"lines": sorted({o.line for _, o in told}), "leases": [row.lease_id for row in rows]}
    write_change(connection, task, Change(EventKind.OBSERVED, body, fields=_due(task, told, rows, at), rows=rows), at)


def _due(
    task: TaskRow, told: Iterable[tuple[GrantRow, Observation]], rows: Sequence[LeaseRow], at: datetime
) -> dict[str, datetime]:
    """A task that is held has to be looked at when its token is unwrapped, and for each new lease that is renewed or
    has nobody.
    """
    told = list(told)
    unwrapped = any(o.kind is Kind.UNWRAPPED and done(o) for _, o in told)
    # what comes of a token that another one has replaced is to be ended
    replaced = {grant.grant_id for grant, _ in told if grant.settled}
    news = unwrapped or any(row.renew_at is not None or row.grant_id in replaced for row in rows)
    return {"due_at": at} if news and task.state in DELIVERED_STATES else {}


def _new_leases(
    connection: Connection, told: Iterable[tuple[GrantRow, Observation]], at: datetime
) -> tuple[LeaseRow, ...]:
    shown: dict[str, tuple[GrantRow, Issued]] = {}
    for grant, line in told:
        if lease := issued(line):
            shown.setdefault(lease.lease_id, (grant, lease))
    lease_id = schema.leases.c.lease_id
    known = set(connection.execute(select(lease_id).where(lease_id.in_(shown))).scalars()) if shown else ()
    return tuple(
        LeaseRow(
            lease_id=lease.lease_id,
            task_id=grant.task_id,
            grant_id=grant.grant_id,
            path=lease.path,
            target_name=lease.target_name,
            issued_at=lease.at,
            verdict=Verdict.LIVE,
            dead_at=None,
            # at once: its role may have given it longer than a step
            renew_at=at if grant.rolling and not grant.settled else None,
        )
        for grant, lease in shown.values()
        if lease.lease_id not in known
    )
