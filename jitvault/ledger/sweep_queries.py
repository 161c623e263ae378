"""Find untracked credentials, and the acts on them.

These belong to no task. The sweep compares Vault, ledger and stream; here are its queries and the rows that it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select
from sqlalchemy.engine import RowMapping

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.trail import AuditTrail, Canary
from jitvault.errors import CorruptRecord, WrongState
from jitvault.ledger.claims import extend, held
from jitvault.ledger.findings import put_finding
from jitvault.ledger.model import (
    FindingRow,
    GrantRow,
    LeaseRow,
    OperationRow,
    UntrackedCredentialRow,
)
from jitvault.ledger.rows import get, get_observation, put
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import batches, upsert
from jitvault.ledger.stream.task_trail import can_touch, in_order, worker_sessions
from jitvault.ledger.task_change import settle_seen
from jitvault.model.revision import Revision
from jitvault.model.states import DEAD, UNSEALED, Verdict

_SKEW = timedelta(seconds=30)


class SweepQueries:
    """Look for what no task knows; a part of `Ledger`."""

    _db: Database

    # -- writing ---------------------------------------------------------------------------------------

    @contextmanager
    def claim_sweep(self) -> Iterator[int]:
        """Hold the exclusive right to revoke what belongs to no task, for 30 s.

        Waits while another process holds the claim; yields the claim's epoch.
        """
        with held(self._db, schema.installation.c.one, 1, "what belongs to no task") as epoch:
            yield epoch

    def extend_sweep(self, claim: int) -> None:
        """Hold the claim for another 30 s. Raises WrongState when it was lost."""
        if not extend(self._db, schema.installation.c.one, 1, claim):
            raise _claim_lost()

    def keep(
        self,
        *,
        orphans: Sequence[UntrackedCredentialRow] = (),
        operations: Sequence[OperationRow] = (),
        findings: Sequence[FindingRow] = (),
        at: datetime,
        claim: int | None = None,
    ) -> None:
        """Write untracked credentials, operations and findings in one transaction.

        An operation alone locks nobody else out.

        Raises WrongState when `claim` was lost.
        """

        def unit(connection: Connection) -> None:
            held_claim = select(schema.installation.c.one).where(schema.installation.c.claim_epoch == claim)
            if claim is not None and connection.execute(held_claim).first() is None:
                raise _claim_lost()
            for orphan in orphans:
                _put(connection, orphan)
            put(connection, operations)
            settle_seen(connection, operations)
            for finding in findings:
                put_finding(
                    connection,
                    finding.task_id,
                    finding.rule,
                    finding.message,
                    at,
                    line=finding.line or None,
                    request_id=finding.request_id or None,
                )

        self._db.write(unit, alone=bool(orphans or findings))

    # -- what was found before -------------------------------------------------------------------------

    def untracked_credentials(self) -> list[UntrackedCredentialRow]:
        """Return every untracked credential that was ever found."""
        query = select(schema.orphans).order_by(schema.orphans.c.first_seen_at, schema.orphans.c.lease_id)
        with self._db.read() as connection:
            return [_untracked_row(row) for row in connection.execute(query).mappings()]

    def operations_on(self, lease_ids: Sequence[str]) -> list[OperationRow]:
        """Return operations of no task on these leases, the oldest first."""
        op = schema.operations.c
        with self._db.read() as connection:
            found = [
                get(row, OperationRow)
                for wanted in batches(lease_ids)
                for row in connection.execute(
                    select(schema.operations).where(op.task_id.is_(None), op.subject.in_(wanted))
                ).mappings()
            ]
        return sorted(found, key=lambda operation: (operation.sent_at, operation.op_id))

    def untracked_trail(self, lease_ids: Sequence[str]) -> AuditTrail:
        """Return the evidence about these untracked leases.

        The lines of the operations on them, what others did to these leases, hazards, and the canaries around all of
        these.
        """
        op, line = schema.operations.c, schema.observations.c
        own_ops = set[str]()
        lines: dict[str, Observation] = {}
        sent: list[datetime] = []
        with self._db.read() as connection:
            for wanted in batches(lease_ids):
                query = select(op.op_id, op.sent_at).where(op.task_id.is_(None), op.subject.in_(wanted))
                ops = connection.execute(query).all()
                own_ops |= {row.op_id for row in ops}
                sent += [row.sent_at for row in ops]
                _add_lines(connection, lines, and_(line.kind == Kind.LEASE_REVOKED, line.subject.in_(wanted)))
            for batch in batches(sorted(own_ops)):
                _add_lines(connection, lines, line.op.in_(batch))
            since = min(sent, default=None)
            if since is not None:
                # A revocation that names its lease in the body shows an HMAC, which the ledger cannot match to a lease.
                unnamed = and_(line.kind == Kind.LEASE_REVOKED, line.subject.startswith("hmac-"))
                hazards = and_(line.kind == Kind.HAZARD, can_touch(lease_ids))
                _add_lines(connection, lines, and_(or_(hazards, unnamed), line.at >= since - _SKEW))
            ordered = in_order(sorted(lines.values(), key=lambda o: (o.place.source, o.place.epoch, o.place.offset)))
            return AuditTrail(ordered, _canaries(connection, ordered), worker_sessions(connection))

    def lines_of_findings(self, rules: Sequence[str]) -> frozenset[str]:
        """Return the audit lines that findings of these rules name."""
        found = schema.findings.c
        query = select(found.line).where(found.rule.in_(rules), found.line.is_not(None))
        with self._db.read() as connection:
            return frozenset(connection.execute(query).scalars())

    # -- what belongs to tasks -------------------------------------------------------------------------

    def grants_since(self, at: datetime) -> list[GrantRow]:
        """Return grants issued at `at` or later, and those still open.

        A grant is open where it has no issue time or is not settled.
        """
        grant = schema.grants.c
        recent = or_(grant.issued_at >= at, grant.issued_at.is_(None), ~grant.settled)
        query = select(schema.grants).where(recent).order_by(grant.issued_at, grant.grant_id)
        with self._db.read() as connection:
            return [get(row, GrantRow) for row in connection.execute(query).mappings()]

    def leases_among(self, lease_ids: Sequence[str]) -> list[LeaseRow]:
        """Return those of these leases that belong to a task."""
        lease = schema.leases.c
        with self._db.read() as connection:
            return [
                get(row, LeaseRow)
                for wanted in batches(lease_ids)
                for row in connection.execute(select(schema.leases).where(lease.lease_id.in_(wanted))).mappings()
            ]

    def leases_not_dead(self) -> list[LeaseRow]:
        """Return all leases of tasks that are not known to be dead.

        Leases that were closed without proof are left out.
        """
        lease = schema.leases.c
        # closing without proof was reported then, and stays so
        over = [*DEAD, Verdict.UNVERIFIABLE]
        query = select(schema.leases).where(lease.verdict.not_in(over)).order_by(lease.issued_at, lease.lease_id)
        with self._db.read() as connection:
            return [get(row, LeaseRow) for row in connection.execute(query).mappings()]

    def access_paths(self) -> dict[str, bool]:
        """Return the Vault paths that tasks were ever allowed to read.

        Each with whether a task that is not over has it.
        """
        task, revision = schema.tasks.c, schema.revisions.c
        joined = schema.revisions.join(schema.tasks, task.task_id == revision.task_id)
        query = select(revision.body, task.state).select_from(joined)
        found: dict[str, bool] = {}
        with self._db.read() as connection:
            # streamed: there may be millions of revisions
            for body, state in connection.execution_options(yield_per=500).execute(query):
                for path in _paths(body):
                    found[path] = found.get(path, False) or state in UNSEALED
        return found


def _paths(body: bytes) -> list[str]:
    """Return the paths to which an approved request gives access.

    Empty for a request that cannot be read: what templates allow is known elsewhere.
    """
    try:
        return [entry.path for entry in Revision.of(body).access]
    except CorruptRecord:
        return []


def _claim_lost() -> WrongState:
    return WrongState("another process took over the untracked credentials", hint="Run the command again.")


def _put(connection: Connection, orphan: UntrackedCredentialRow) -> None:
    values = {**asdict(orphan), "checks": [dict(check) for check in orphan.checks]}
    changed = {name: value for name, value in values.items() if name not in ("lease_id", "first_seen_at")}
    statement = upsert(connection, schema.orphans).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["lease_id"], set_=changed))


def _untracked_row(row: RowMapping) -> UntrackedCredentialRow:
    values: dict[str, Any] = {column.name: row[column.name] for column in fields(UntrackedCredentialRow)}
    return UntrackedCredentialRow(**{**values, "verdict": Verdict(values["verdict"])})


def _add_lines(connection: Connection, lines: dict[str, Observation], which: ColumnElement[bool]) -> None:
    rows = connection.execute(select(schema.observations).where(which)).mappings()
    lines |= {row["line"]: get_observation(row) for row in rows}


def _canaries(connection: Connection, lines: Sequence[Observation]) -> tuple[Canary, ...]:
    """Return canaries, from the last one of each source before the first line."""
    if not lines:
        return ()
    canary, other = schema.canaries.c, schema.canaries.alias()
    first = min(o.at for o in lines)
    before = select(func.max(other.c.at)).where(other.c.source == canary.source, other.c.at < first).scalar_subquery()
    query = select(schema.canaries).where(canary.at >= func.coalesce(before, first))
    rows = connection.execute(query.order_by(canary.source, canary.epoch, canary.offset))
    return tuple(Canary(Place(row.source, row.epoch, row.offset), row.at) for row in rows)
