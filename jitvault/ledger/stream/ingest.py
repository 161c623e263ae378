"""Ingest a batch of audit lines: what the lines mean for tasks.

This is the middle of the audit flow. The stream's reader hands over observations, `ingest_batch` writes them with all
that follows from them, and `jitvault.ledger.stream.task_trail` reads them back as evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import BindParameter, Connection, bindparam, insert, or_, select, update

from jitvault.audit.observation import Issued, Kind, Observation, issued
from jitvault.audit.trail import derived_tokens, done, linked
from jitvault.documents.paths import work_item_for
from jitvault.ledger.documents import index_queries as documents
from jitvault.ledger.documents import lines as document_lines
from jitvault.ledger.documents.lines import CLAIM
from jitvault.ledger.findings import put_finding
from jitvault.ledger.model import Change, GrantRow, LeaseRow, OpState, TaskRow
from jitvault.ledger.rows import get, get_observation, observation_values
from jitvault.ledger.storage import schema
from jitvault.ledger.stream import alarms, stored_lines
from jitvault.ledger.stream.task_trail import tokens_for
from jitvault.ledger.task_change import write_change
from jitvault.ledger.upkeep import RENEWALS
from jitvault.model.event_bodies import Observed
from jitvault.model.finding import AFTER_SEAL
from jitvault.model.kinds import EventKind
from jitvault.model.states import DELIVERED_STATES, State, Verdict

_POSSIBLY_OTHERS = frozenset({Kind.LEASE_ISSUED, Kind.CUBBYHOLE_READ, Kind.REWRAPPED})

# a worker requests a canary every few seconds; its session's row is not written for each
_SESSION_WRITTEN_EVERY = timedelta(minutes=1)

# built once: building a statement takes longer than running it, and each batch runs all of them
_LINE = schema.observations.c
_OUR_SESSIONS = select(schema.worker_sessions)
_INSERT_LINES = insert(schema.observations)
_KNOWN_LINES = select(_LINE.line).where(_LINE.line.in_(bindparam("lines", expanding=True)))
_GRANTS = select(schema.grants).where(schema.grants.c.accessor_hmac.in_(bindparam("accessors", expanding=True)))
_LINES_NAMING = select(schema.observations).where(
    _LINE.alias.in_(bindparam("tokens", expanding=True)), schema.is_given(_LINE.alias)
)
_DELIVERED = select(schema.grants.c.wrapping_hmac, schema.grants.c.accessor_hmac).where(
    schema.grants.c.wrapping_hmac.in_(bindparam("tokens", expanding=True)), schema.grants.c.accessor_hmac.is_not(None)
)
_EARLIER_LINES = select(schema.observations).where(
    _LINE.token.in_(bindparam("aliases", expanding=True)), schema.is_given(_LINE.token)
)
_OPS: BindParameter[str] = bindparam("ops", expanding=True)
_SETTLE = (
    update(schema.operations)
    .where(schema.operations.c.op_id.in_(_OPS), schema.operations.c.state == OpState.ANSWERED)
    .values(state=OpState.SETTLED)
)
_ANNOUNCED = select(schema.operations.c.op_id).where(
    schema.operations.c.op_id.in_(_OPS),
    schema.operations.c.kind.in_(RENEWALS),
    schema.operations.c.state != OpState.SETTLED,
)
_TASK = select(schema.tasks).where(schema.tasks.c.task_id == bindparam("task_id")).with_for_update(key_share=True)
_LEASES = select(schema.leases.c.lease_id, schema.grants).join_from(
    schema.leases, schema.grants, schema.leases.c.grant_id == schema.grants.c.grant_id
)
_GRANTS_OF_LEASES = _LEASES.where(schema.leases.c.lease_id.in_(bindparam("leases", expanding=True)))


def ingest_batch(connection: Connection, seen: Sequence[Observation], at: datetime, shared: Sequence[str]) -> None:
    """Write the new lines of a batch, and everything that follows from them.

    `seen` are the batch's observations, `shared` the networks that the worker has in common with agents. In this order:

    1. Documents that people wrote are noted in the index.
    2. Lines of no task that anyone can produce are counted instead of stored.
    3. Own operations whose line is there are settled.
    4. Alarms are raised, and restores of Vault are reported.
    5. Each task that the lines concern gets its leases and one event; a worker's own renewals make none.
    """
    new = _unknown(connection, seen)
    written = document_lines.stored_and_counted(connection, new)
    # also of lines that are counted: of repeated writes the last one counts
    documents.note(connection, [o for o in new if o.line not in written.invented])
    stands_for = _task_tokens(connection, new)
    sessions = _sessions(connection, new)
    new, counted = stored_lines.stored_and_counted(connection, written.stored, stands_for, sessions)
    claimed = _with_claims(connection, written.counted)
    document_lines.note_counted(connection, claimed)
    stored_lines.add_counts(connection, [*counted, *claimed])
    if not new:
        return
    new = _with_claims(connection, new)
    connection.execute(_INSERT_LINES, [observation_values(o) for o in new])
    named_later = _own_renewals(connection, new, sessions)
    _settle_operations(connection, new, sessions)
    # what other programs unwrap on the worker's host is not the worker's act
    ours = [o for o in new if o.kind not in _POSSIBLY_OTHERS or o.token in stands_for]
    alarms.raise_for(connection, ours, sessions, at, shared)
    alarms.tell_restores(connection, new, at)
    earlier = _earlier_lines(connection, new)
    lines = [*(o for o in new if o.line not in named_later), *earlier]
    renewed = _renewed_leases(connection, (o for o in new if o.actor not in sessions))
    _write_to_tasks(connection, lines, _task_tokens(connection, lines) if earlier else stands_for, renewed, at)


def _sessions(connection: Connection, new: Iterable[Observation]) -> frozenset[str]:
    """Return the accessor HMACs of the worker's own tokens.

    Also record from which address each session acts, and until when.
    """
    table = schema.worker_sessions
    known = {row.accessor_hmac: (row.remote, row.last_at) for row in connection.execute(_OUR_SESSIONS)}
    for o in new:
        if o.kind is not Kind.CANARY or not o.remote or o.actor not in known:
            continue
        remote, last_at = known[o.actor]
        seen_at = o.at if o.at - last_at >= _SESSION_WRITTEN_EVERY else last_at
        if (o.remote, seen_at) != (remote, last_at):
            known[o.actor] = (o.remote, seen_at)
            values = {"remote": o.remote[:64], "last_at": seen_at}
            connection.execute(update(table).where(table.c.accessor_hmac == o.actor).values(values))
    return frozenset(known)


def _with_claims(connection: Connection, new: list[Observation]) -> list[Observation]:
    """Return the lines, those of people's documents with their task's claim.

    The newest claim's epoch: a worker that takes a later claim reads the document, and no other worker has to look.
    """
    task_of_line: dict[str, str] = {}
    for o in new:
        item = work_item_for(o.subject) if o.kind is Kind.WRITTEN else None
        if item and item.task_id:
            task_of_line[o.line] = item.task_id
    if not task_of_line:
        return new
    task = schema.tasks.c
    query = select(task.task_id, task.claim_epoch).where(task.task_id.in_(set(task_of_line.values())))
    claims = {row.task_id: row.claim_epoch for row in connection.execute(query)}
    return [
        replace(o, detail={**o.detail, CLAIM: claims.get(task_of_line[o.line], 0)}) if o.line in task_of_line else o
        for o in new
    ]


def _settle_operations(connection: Connection, new: Iterable[Observation], sessions: frozenset[str]) -> None:
    """Settle the worker's operations whose own line was read.

    Operations without a line are then few and quickly found. An operation id counts only in a line of one of the
    worker's own sessions: anyone can send the header.
    """
    ops = {o.op for o in new if o.op and o.closing and o.actor in sessions}
    if ops:
        connection.execute(_SETTLE, {"ops": list(ops)})


def _own_renewals(connection: Connection, new: Iterable[Observation], sessions: frozenset[str]) -> set[str]:
    """Return the lines of renewals that a worker announced and that no line showed before.

    They make no event of their own: the chain names them later, many at once. A line that repeats an operation is not
    among them.
    """
    renewals = [o for o in new if o.kind is Kind.RENEWED and o.op and o.actor in sessions]
    if not renewals:
        return set()
    announced = set(connection.execute(_ANNOUNCED, {"ops": sorted({o.op for o in renewals})}).scalars())
    return {o.line for o in renewals if o.op in announced}


def _task_tokens(connection: Connection, lines: Sequence[Observation]) -> dict[str, str]:
    """Return the task token that each token in `lines` stands for.

    Keys and values are HMACs: of the token that a line names, and of the task token's accessor. Lines that were
    ingested before are followed as well.
    """
    found = list(lines)
    looked_up = set[str]()
    delivered: dict[str, str] = {}
    while wanted := {o.token for o in found if o.token} - looked_up:
        looked_up |= wanted
        # The worker knows the wrapping that it delivered without its line, which may stand in a file not read yet.
        for row in connection.execute(_DELIVERED, {"tokens": list(wanted)}):
            delivered[row.wrapping_hmac] = row.accessor_hmac
        # A rewrapped token stands for what the wrapping before stood for.
        rows = connection.execute(_LINES_NAMING, {"tokens": list(wanted)}).mappings()
        found += [get_observation(row) for row in rows]
    return derived_tokens(found, delivered)


def _earlier_lines(connection: Connection, new: Sequence[Observation]) -> list[Observation]:
    """Return known lines that only these new lines link to a task token.

    Several files have no common order: a line can be read before the line that says which token it is about.
    """
    found = list(new)
    looked_up = set[str]()
    while wanted := {o.alias for o in found if o.alias} - looked_up:
        looked_up |= wanted
        rows = connection.execute(_EARLIER_LINES, {"aliases": list(wanted)}).mappings()
        found += [get_observation(row) for row in rows]
    return [o for o in found[len(new) :] if o not in new]


def _unknown(connection: Connection, seen: Sequence[Observation]) -> list[Observation]:
    """Return the lines that the ledger lacks: repeated bytes change nothing."""
    by_line = {o.line: o for o in seen}
    known = set(connection.execute(_KNOWN_LINES, {"lines": list(by_line)}).scalars())
    return [o for line, o in by_line.items() if line not in known]


def _renewed_leases(connection: Connection, lines: Iterable[Observation]) -> list[tuple[GrantRow, Observation]]:
    """Return the lines that renew a known lease, each with its grant."""
    renewed = [o for o in lines if o.kind is Kind.RENEWED and done(o)]
    if not renewed:
        return []
    rows = connection.execute(_GRANTS_OF_LEASES, {"leases": sorted({o.subject for o in renewed})}).mappings()
    grants = {row["lease_id"]: get(row, GrantRow) for row in rows}
    return [(grants[o.subject], o) for o in renewed if o.subject in grants]


def _write_to_tasks(
    connection: Connection,
    lines: Sequence[Observation],
    stands_for: Mapping[str, str],
    renewed: Iterable[tuple[GrantRow, Observation]],
    at: datetime,
) -> None:
    """Give each task that the lines concern its new leases and one event.

    `stands_for` maps tokens to task tokens (`_task_tokens`). `renewed` are the lines that name a lease by its id alone.
    """
    accessors = {o.actor for o in lines} | {o.subject for o in lines} | set(stands_for.values())
    rows = connection.execute(_GRANTS, {"accessors": sorted(a for a in accessors if a)}).mappings()
    grants = {row["accessor_hmac"]: get(row, GrantRow) for row in rows}
    by_task: dict[str, list[tuple[GrantRow, Observation]]] = {}
    for grant, line in (*linked(lines, grants, stands_for), *renewed):
        by_task.setdefault(grant.task_id, []).append((grant, line))
    for task_id, linked_lines in sorted(by_task.items()):
        _write_observed(connection, task_id, linked_lines, at)


def replay_known_lines(connection: Connection, task_id: str, accessors: Sequence[str], at: datetime) -> None:
    """Write to a task what known lines say about tokens of it.

    `accessors` are the HMACs of the tokens' accessors.
    """
    line = schema.observations.c
    query = select(schema.grants).where(
        schema.grants.c.task_id == task_id, schema.grants.c.accessor_hmac.in_(accessors)
    )
    grants = {row["accessor_hmac"]: get(row, GrantRow) for row in connection.execute(query).mappings()}
    tokens = line.token.in_(tokens_for(connection, accessors)) & schema.is_given(line.token)
    wanted = or_(line.actor.in_(accessors), line.subject.in_(accessors), tokens)
    rows = connection.execute(select(schema.observations).where(wanted)).mappings()
    lines = [get_observation(row) for row in rows]
    linked_lines = list(linked(lines, grants, derived_tokens(lines)))
    if linked_lines:
        _write_observed(connection, task_id, linked_lines, at)


def _write_observed(
    connection: Connection, task_id: str, linked_lines: Sequence[tuple[GrantRow, Observation]], at: datetime
) -> None:
    found = connection.execute(_TASK, {"task_id": task_id}).mappings().first()
    if found is None:
        # a deleted task must not stop the lines of all other tasks from being read
        put_finding(connection, None, "ledger_edited", f"task {task_id} was deleted", at, line=None, request_id=None)
        return
    task = get(found, TaskRow)
    rows = _new_leases(connection, linked_lines, at)
    if rows and task.state is State.SEALED:
        # no worker looks at a sealed task by itself
        put_finding(connection, task_id, *AFTER_SEAL, at, line=None, request_id=None)
    lines = tuple(sorted({o.line for _, o in linked_lines}))
    body = Observed(lines=lines, leases=tuple(row.lease_id for row in rows))
    due = _due(task, linked_lines, rows, at)
    write_change(connection, task, Change(EventKind.OBSERVED, body, fields=due, rows=rows), at)


def _due(
    task: TaskRow, linked_lines: Iterable[tuple[GrantRow, Observation]], rows: Sequence[LeaseRow], at: datetime
) -> dict[str, datetime]:
    """Return the new due time as task fields, empty where nothing is due.

    A held task is due when its token is unwrapped, and for each lease to renew or of a replaced token.
    """
    linked_lines = list(linked_lines)
    unwrapped = any(o.kind is Kind.UNWRAPPED and done(o) for _, o in linked_lines)
    # a lease of a token that another grant has replaced has to be revoked
    replaced = {grant.grant_id for grant, _ in linked_lines if grant.settled}
    is_due = unwrapped or any(row.renew_at is not None or row.grant_id in replaced for row in rows)
    return {"due_at": at} if is_due and task.state in DELIVERED_STATES else {}


def _new_leases(
    connection: Connection, linked_lines: Iterable[tuple[GrantRow, Observation]], at: datetime
) -> tuple[LeaseRow, ...]:
    """Return a row for each lease that the lines show and the ledger lacks."""
    shown: dict[str, tuple[GrantRow, Issued]] = {}
    for grant, line in linked_lines:
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
            # at once: its role may have given the lease longer than one step
            renew_at=at if grant.rolling and not grant.settled else None,
        )
        for grant, lease in shown.values()
        if lease.lease_id not in known
    )
