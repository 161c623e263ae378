"""Find credentials that are alive in the ledger and not in Vault.

The ledger believes them to be alive, and Vault does not have them any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from jitvault.context import WorkerContext
from jitvault.errors import CorruptRecord, JitvaultError
from jitvault.formats.clocks import TOLERANCE
from jitvault.ledger.model import GrantRow, LeaseRow, OpState, TaskRecord
from jitvault.lifecycle.record.lookups import is_any_live
from jitvault.model.revision import Revision
from jitvault.model.states import State, Verdict
from jitvault.model.ttl import unrenewed_expiry
from jitvault.sweep.compare import Class, Classification, Owned
from jitvault.sweep.inventory import Inventory, is_older, owned_lease, owned_token
from jitvault.sweep.missing import MissingCredential, explain

# a task that was closed without proof makes no claim about its credentials: a sweep lists it and goes on
_BELIEVED = frozenset({Verdict.LIVE, Verdict.REVOKE_FAILED, Verdict.IRREVOCABLE})


def find_missing(worker: WorkerContext, inventory: Inventory) -> tuple[list[MissingCredential], list[Classification]]:
    """Return missing credentials with causes, and those too young to judge."""
    ghosts: list[MissingCredential] = []
    waiting: list[Classification] = []
    files: dict[str, TaskRecord] = {}
    for row in _gone(worker, inventory):
        owned = owned_lease(row) if isinstance(row, LeaseRow) else owned_token(row)
        if row.task_id not in files:
            # read after the look-up: a credential that was revoked in the meantime is not missing
            try:
                again = worker.ledger.record(row.task_id)
            except CorruptRecord as error:
                waiting.append(_waiting(owned, str(error)))
                continue
            if again is None:
                continue
            files[row.task_id] = again
        record = files[row.task_id]
        present = _again(record, row)
        if present is None or present.verdict not in _BELIEVED:
            continue
        if not is_older(row.issued_at, inventory, worker.settle_window):
            waiting.append(_waiting(owned, "too young to judge"))
        elif _is_open(record, owned):
            waiting.append(_waiting(owned, f"an act on it of task {row.task_id} is open"))
        else:
            ghosts.append(_explained(worker, inventory, record, present, owned))
    young = [g for g in ghosts if g.at is not None and not is_older(g.at, inventory, worker.settle_window)]
    waiting += [_waiting(ghost.owned, f"too young to judge: {ghost.why}") for ghost in young]
    return [ghost for ghost in ghosts if ghost not in young], waiting


def _gone(worker: WorkerContext, inventory: Inventory) -> Iterator[GrantRow | LeaseRow]:
    """Yield credentials that count as alive and that Vault does not have.

    A task that is being issued is left out: its issue is still open.
    """
    for grant in inventory.grants:
        task = inventory.tasks.get(grant.task_id)
        accessor = grant.wrapped_accessor
        if task is None or task.state is State.ISSUING or accessor is None or grant.verdict not in _BELIEVED:
            continue
        if worker.tokens.lookup_accessor(accessor) is None:
            yield grant
    for lease in inventory.leases:
        listed = lease.lease_id in inventory.ids
        if lease.verdict in _BELIEVED and not listed and worker.leases.lookup(lease.lease_id) is None:
            yield lease


def _again(record: TaskRecord, row: GrantRow | LeaseRow) -> GrantRow | LeaseRow | None:
    if isinstance(row, LeaseRow):
        return next((lease for lease in record.leases if lease.lease_id == row.lease_id), None)
    return next((grant for grant in record.grants if grant.grant_id == row.grant_id), None)


def _is_open(record: TaskRecord, owned: Owned) -> bool:
    states = (OpState.INTENDED, OpState.UNKNOWN)
    return any(op.state in states and op.subject == owned.subject for op in record.operations)


def _waiting(owned: Owned, why: str) -> Classification:
    return Classification(owned.kind, Class.WAITING, owned.path, owned.issued_at, why, task_id=owned.task_id)


def _explained(
    worker: WorkerContext, inventory: Inventory, record: TaskRecord, row: GrantRow | LeaseRow, owned: Owned
) -> MissingCredential:
    trail = worker.ledger.trail(record)
    names = {owned.subject}
    grant = next((g for g in record.grants if g.grant_id == row.grant_id), None)
    if isinstance(row, LeaseRow):
        expires_at = _expiry(worker, record, row)
        names.add(worker.hasher.remembered(row.lease_id))
        token_is_gone = grant is None or not is_any_live(worker, [grant])
    else:
        expires_at, token_is_gone = _unrenewed_expiry(row), False
    return explain(
        owned,
        frozenset(names),
        trail.observations,
        sessions=trail.worker_accessors,
        expires_at=expires_at,
        step=timedelta(seconds=grant.step_s if grant else 0),
        now=inventory.canary.at,
        token_is_gone=token_is_gone,
    )


def _unrenewed_expiry(grant: GrantRow) -> datetime | None:
    """Return when a token expires by Vault's clock after the last renewal that the ledger knows.

    The chain commits the latest end of several steps ahead. A token that nobody renews expires after one, which is half
    a step after its next renewal was due.
    """
    if grant.issued_at is None or grant.renew_at is None or grant.expires_at is None:
        return grant.expires_at
    return min(grant.expires_at, unrenewed_expiry(grant.issued_at, grant.renew_at, grant.step_s) + TOLERANCE)


def _expiry(worker: WorkerContext, record: TaskRecord, lease: LeaseRow) -> datetime | None:
    """Return when a lease expired at the latest, by its role's settings now.

    None where the configuration does not say.
    """
    try:
        entry = Revision.of(record.revision.body).access_at(lease.path)
    except CorruptRecord:
        # the task is swept nevertheless; only when the lease expired is not known
        return None
    if entry is None or entry.engine not in worker.engines:
        return None
    engine, inside = worker.engines[entry.engine], entry.path.removeprefix(f"{entry.mount}/")
    try:
        role: Mapping[str, Any] = engine.snapshot(worker.reader.read, entry.mount, inside).get("role") or {}
    except JitvaultError:
        return None
    ttl = role.get("default_ttl") or role.get("ttl")
    return lease.issued_at + timedelta(seconds=ttl) if isinstance(ttl, int) and ttl > 0 else None
