"""Raise alarms while lines are ingested, and lift their freezes.

A line that shows that the worker's identity is stolen freezes everything; a restore of Vault becomes a finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, String, and_, bindparam, cast, func, or_, select, update

from jitvault.audit.create_intent import Intent, words_of
from jitvault.audit.observation import Kind, Observation, restores
from jitvault.audit.tripwires.fleet_rules import is_publication, is_signature, of_fleet
from jitvault.documents.paths import OF_WORKER, vault_path
from jitvault.errors import CorruptRecord
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.findings import put_finding
from jitvault.ledger.model import ENDED_UNSEEN, OpState
from jitvault.ledger.recovery import is_recovery, newest
from jitvault.ledger.rows import get_observation
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import upsert
from jitvault.ledger.stream.model import Freeze, LiftedFreeze
from jitvault.model.kinds import OperationKind

# the kinds that `of_fleet` looks at
_WATCHED_KINDS = frozenset(
    {Kind.TOKEN_CREATED, Kind.RENEWED, Kind.UNWRAPPED, Kind.CUBBYHOLE_READ, Kind.REWRAPPED, Kind.LEASE_ISSUED}
)
# An address can be given to another host later, so it identifies a worker only for a while. No wrapping lives longer
# than 10 minutes, so that all wrapping tokens of a worker are gone by then.
_ADDRESS_TRUSTED_FOR = timedelta(minutes=15)

_RENEWALS = (OperationKind.RENEW_TOKEN, OperationKind.RENEW_LEASE)
# which part of a document the worker writes or removes
_PARTS = {OperationKind.PUBLISH: "data", OperationKind.REMOVE_PUBLISHED: "metadata", OperationKind.DELIVER: "data"}

_LINE, _GRANT, _OPERATION = schema.observations.c, schema.grants.c, schema.operations.c
_OPS: BindParameter[str] = bindparam("ops", expanding=True)
_INTENTS = (
    select(
        _GRANT.create_op,
        _GRANT.role,
        _GRANT.wrap_ttl_s,
        _GRANT.accessor_hmac,
        _GRANT.settled,
        _OPERATION.state,
        _OPERATION.answer,
    )
    .join_from(schema.grants, schema.operations, _OPERATION.op_id == _GRANT.create_op, isouter=True)
    .where(_GRANT.create_op.in_(_OPS))
)
_RECENT_ADDRESSES = select(schema.worker_sessions.c.remote).where(
    schema.worker_sessions.c.remote != "", schema.worker_sessions.c.last_at > bindparam("after")
)
_SENT = select(_OPERATION.op_id, _OPERATION.sent_at).where(_OPERATION.op_id.in_(_OPS))
_ASKED = select(_GRANT.create_op, _GRANT.asked).where(_GRANT.create_op.in_(_OPS))
_MEANT = select(_OPERATION.op_id, _OPERATION.kind, _OPERATION.subject).where(
    _OPERATION.op_id.in_(_OPS), _OPERATION.kind.in_((*_RENEWALS, *_PARTS, OperationKind.SIGN))
)
_FIRST_PUBLICATION = select(func.min(_OPERATION.sent_at)).where(_OPERATION.kind == OperationKind.PUBLISH)
_IS_PUBLICATION = and_(_LINE.kind == Kind.OWN, or_(*(_LINE.subject.startswith(begins) for begins in OF_WORKER)))
_DONE = and_(_LINE.kind.in_((Kind.TOKEN_CREATED, Kind.RENEWED)) | _IS_PUBLICATION, _LINE.closing, ~_LINE.failed)
# Whether Vault says that the token had the worker's policy. Compared as text: an edited row may not be JSON.
_IS_WORKERS = cast(_LINE.detail, String).contains('"worker":', autoescape=True)
# Operation ids under which the worker's tokens did more than one act. An id is for one act, and anyone who reads the
# audit log can send it again.
_USED_AGAIN = (
    select(_LINE.op)
    .where(_DONE, _LINE.op.in_(_OPS), _LINE.actor.in_(bindparam("sessions", expanding=True)) | _IS_WORKERS)
    .group_by(_LINE.op)
    .having(func.count(_LINE.request_id.distinct()) > 1)
)


def raise_for(
    connection: Connection, lines: Sequence[Observation], sessions: frozenset[str], at: datetime, shared: Sequence[str]
) -> None:
    """Record a finding and a freeze for each line that only theft explains.

    `sessions` are the accessor HMACs of the worker's own tokens, `shared` the networks that the worker has in common
    with agents.
    """
    lines = [o for o in lines if o.kind in _WATCHED_KINDS or is_publication(o) or is_signature(o)]
    recovered = newest(connection) if lines else None
    if recovered is not None:
        # a recovered ledger lacks the intents from before its recovery
        lines = [o for o in lines if o.at >= recovered]
    if not lines:
        return
    ops = sorted({o.op for o in lines if o.op})
    meant = {row.op_id: row for row in connection.execute(_MEANT, {"ops": ops})}
    lines = [o for o in lines if o.kind in _WATCHED_KINDS or o.op in meant or _is_since(connection, o)]
    address_since = min(o.at for o in lines) - _ADDRESS_TRUSTED_FOR if lines else at
    trips = of_fleet(
        lines,
        sessions=sessions,
        intents=_intents(connection, ops),
        renewals={op: row.subject for op, row in meant.items() if row.kind in _RENEWALS},
        publications={op: vault_path(_PARTS[row.kind], row.subject) for op, row in meant.items() if row.kind in _PARTS},
        signatures={op: row.subject for op, row in meant.items() if row.kind == OperationKind.SIGN},
        used_again=frozenset(connection.execute(_USED_AGAIN, {"ops": ops, "sessions": list(sessions)}).scalars()),
        worker_addresses=frozenset(connection.execute(_RECENT_ADDRESSES, {"after": address_since}).scalars()),
        shared=shared,
    )
    for trip in trips:
        put_finding(connection, None, trip.rule, trip.message, at, line=trip.line, request_id=trip.request_id)
        values = {"reason": trip.message[:1000], "line": trip.line, "at": at}
        connection.execute(upsert(connection, schema.freezes).values(values).on_conflict_do_nothing())


def tell_restores(connection: Connection, lines: Sequence[Observation], at: datetime) -> None:
    """Record a finding for each snapshot of Vault that was restored.

    Only a person can tell what else the restore undid.
    """
    for o in restores(lines):
        message = (
            f"Vault was restored from a snapshot at {rfc3339(o.at)}: entities that were disabled "
            "since it was made are enabled again, and approvals that were withdrawn since count again"
        )
        put_finding(connection, None, "vault_restored", message, at, line=o.line, request_id=o.request_id)


def _is_since(connection: Connection, line: Observation) -> bool:
    """Return whether this ledger has the intents of the time of a line.

    A ledger that was made anew lacks the intents of what the worker published and signed before. A worker publishes a
    task before it signs anything about it, so the first publication that the ledger has is where its intents begin.
    """
    try:
        first = connection.execute(_FIRST_PUBLICATION).scalar()
    except CorruptRecord:
        # an edited time says nothing: count the line
        return True
    return first is not None and line.at >= first


def raise_for_operation(connection: Connection, op_id: str, at: datetime) -> None:
    """Judge the lines of a create again whose intent was given up later.

    The lines were ingested before the worker gave the create up.
    """
    rows = connection.execute(select(schema.observations).where(_DONE, _LINE.op == op_id)).mappings()
    sessions = frozenset(connection.execute(select(schema.worker_sessions.c.accessor_hmac)).scalars())
    raise_for(connection, [o for row in rows if (o := get_observation(row)).actor in sessions], sessions, at, ())


def _values_of_ops(connection: Connection, query: Select[tuple[str, Any]], ops: Sequence[str]) -> dict[str, Any]:
    """Return one value of each operation; empty where one is unreadable.

    Someone may have edited a row so that a time or JSON cannot be read. One such row must not stop the ingest of all
    lines.
    """
    try:
        return {row[0]: row[1] for row in connection.execute(query, {"ops": ops})}
    except CorruptRecord:
        return {}


def _intents(connection: Connection, ops: Sequence[str]) -> dict[str, Intent]:
    """Return the intent under each known operation id."""
    sent_at = _values_of_ops(connection, _SENT, ops)
    asked = _values_of_ops(connection, _ASKED, ops)
    return {
        row.create_op: Intent(
            role=row.role,
            wrap_ttl_s=row.wrap_ttl_s,
            words=words_of(asked.get(row.create_op)),
            accessor=row.accessor_hmac,
            # The line of a token revoked unseen can still come, from another node's file.
            given_up=row.settled or (row.state == OpState.ABANDONED and row.answer != ENDED_UNSEEN),
            sent_at=sent_at.get(row.create_op),
        )
        for row in connection.execute(_INTENTS, {"ops": ops})
    }


def _oldest_freeze() -> Select[str, str, datetime]:
    freeze = schema.freezes.c
    in_force = (freeze.lifted_at.is_(None), ~is_recovery())
    return select(freeze.reason, freeze.line, freeze.at).where(*in_force).order_by(freeze.id).limit(1)


# built once: building a statement takes longer than running it
_OLDEST_FREEZE = _oldest_freeze()
_LIFTED = (
    select(*(schema.freezes.c[name] for name in ("reason", "line", "at", "lifted_at", "lifted_why")))
    .where(schema.freezes.c.lifted_at.is_not(None), ~is_recovery())
    .order_by(schema.freezes.c.id)
)


class FreezeQueries:
    """Read and lift freezes; a part of `Ledger`."""

    _db: Database

    def judge_failed_create(self, op_id: str, at: datetime) -> None:
        """Freeze everything where a token was made under a failed create.

        A create failed if Vault refused it or the worker gave it up; `op_id` is its operation id.
        """
        self._db.write(lambda c: raise_for_operation(c, op_id, at))

    def freeze(self) -> Freeze | None:
        """Return the oldest freeze that was not lifted, None where there is none."""
        with self._db.read() as connection:
            row = connection.execute(_OLDEST_FREEZE).first()
        return Freeze(*row) if row else None

    def lifted_freezes(self) -> list[LiftedFreeze]:
        """Return the freezes by tripwires that were lifted, the oldest first."""
        with self._db.read() as connection:
            return [LiftedFreeze(*row) for row in connection.execute(_LIFTED)]

    def lift_freezes(self, why: str, at: datetime) -> int:
        """Lift all freezes; return how many were in force."""
        table = schema.freezes
        lift = (
            update(table).where(table.c.lifted_at.is_(None), ~is_recovery()).values(lifted_at=at, lifted_why=why[:500])
        )
        return self._db.write(lambda c: c.execute(lift).rowcount)
