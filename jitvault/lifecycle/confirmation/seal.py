"""Close a task for good: the settle window has passed under trust, and the receipt is signed.

A read that was in flight while its token was revoked can still get a lease (docs/vault-facts.md, "Revocation"), at the
latest after the server's longest request. Only then is a task finished.
"""

from __future__ import annotations

from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.ledger.model import Change, TaskRecord
from jitvault.lifecycle.confirmation.evidence import Evidence, tokens_of
from jitvault.lifecycle.confirmation.quiet import settles_at
from jitvault.lifecycle.confirmation.reconcile import unaccounted_leases
from jitvault.lifecycle.confirmation.rounds import why_put_off
from jitvault.lifecycle.record.receipt import receipt_of
from jitvault.lifecycle.record.sign_receipt import sign_receipt
from jitvault.lifecycle.revocation.cascade import children_for_receipt, unsealed_below
from jitvault.lifecycle.revocation.revoke import DEAD
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import State, Verdict
from jitvault.stream.reading import canary as fresh_canary


def has_late_lease(file: TaskRecord) -> bool:
    """Whether a lease appeared that nobody has revoked yet."""
    settled = DEAD | {Verdict.UNVERIFIABLE} if file.task.state is State.UNVERIFIED else DEAD
    return any(lease.verdict not in settled for lease in file.leases)


def seal(worker: WorkerContext, found: Evidence, claim: int) -> bool:
    """Seal the task if its settle window is over; False while it is not, a lease is listed still, or something that was
    handed on is not sealed: a late lease there would make what its receipt says of the tree untrue.
    """
    file, newest = found.file, found.newest
    if unsealed_below(worker, file.task.task_id):
        return False
    settled = settles_at(tokens_of(file), found.trail, worker.settle_window)
    if settled is not None and newest.at < settled:
        return False
    revision = Revision.of(file.revision.body)
    listed = {lease for entry in revision.access for lease in worker.leases.list(entry["path"])}
    if there := listed & {lease.lease_id for lease in file.leases}:
        _put_off(worker, file, claim, f"Vault lists {min(there)} still")
        return False
    if unknown := _unaccounted(worker, file, sorted(listed), until=settled or newest.at):
        _put_off(worker, file, claim, f"Vault lists leases that belong to no task and can be its own: {unknown[0]}")
        return False
    sealed_at = worker.now()
    told = receipt_of(worker.installation, file, sealed_at, children=children_for_receipt(worker, file.task.task_id))
    receipt = sign_receipt(worker, file.task.task_id, told)
    change = Change(
        EventKind.SEALED,
        {"head": file.task.head, "listed_prefixes": sorted(entry["path"] for entry in revision.access)},
        state=State.SEALED,
        fields={"receipt": receipt, "due_at": None},
    )
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=sealed_at)
    return True


def _put_off(worker: WorkerContext, file: TaskRecord, claim: int, why: str) -> None:
    """Keep why the task is not sealed after its window, once for each reason."""
    if why != why_put_off(file.events):
        change = Change(EventKind.SEAL_PUT_OFF, {"why": why})
        worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())


def _unaccounted(worker: WorkerContext, file: TaskRecord, listed: list[str], *, until: datetime) -> list[str]:
    """Return the leases below the task's paths that belong to no task.

    Where lines of an issue never came, nothing else tells of it: a shipper that drops them leaves no gap. What another
    task holds in a wrapping looks the same and ends with that task, so it is told only where nobody holds anything.
    """
    fresh_canary(worker)
    unknown = unaccounted_leases(worker, file, listed, until=until)
    if unknown and not worker.ledger.held():
        message = f"{len(unknown)} leases that belong to no task were made while its token lived: {unknown[0]}"
        worker.ledger.finding(file.task.task_id, "unaccounted_lease", message, worker.now())
    return unknown
