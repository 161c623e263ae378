"""Seal a task: its settle window has passed, and its receipt is signed.

The window passed on a trusted stream. A read that was in flight while its token was revoked can still get a lease
(docs/vault-facts.md, "Revocation"), at the latest after the server's longest request. So a task is finished only after
that time, its settle window.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.ledger.model import Change, OperationRow, TaskRecord
from jitvault.lifecycle.confirmation.evidence import Evidence, tokens_of, unaccounted_leases
from jitvault.lifecycle.confirmation.quiet_rules import settles_at
from jitvault.lifecycle.confirmation.sign_receipt import signed_receipt
from jitvault.lifecycle.record.reopenings import why_seal_postponed
from jitvault.lifecycle.requests.publish import announced_publication
from jitvault.lifecycle.revocation.cascade import unsealed_below
from jitvault.model.event_bodies import EventBody, Sealed
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import DEAD, State, Verdict
from jitvault.stream.reading import canary as fresh_canary


def has_late_lease(record: TaskRecord) -> bool:
    """Return whether a lease appeared that is not proven dead.

    In a task that was closed without proof, `unverifiable` leases do not count.
    """
    settled = DEAD | {Verdict.UNVERIFIABLE} if record.task.state is State.UNVERIFIED else DEAD
    return any(lease.verdict not in settled for lease in record.leases)


def seal(worker: WorkerContext, found: Evidence, listed: Collection[str], claim: int) -> OperationRow | None:
    """Seal the task, and return the intent to publish that; None where it was not sealed.

    It is not sealed while its settle window lasts, or while a task below it is not sealed: a late lease there would
    make untrue what the receipt says of the tree. `listed` are the leases that Vault has below the task's paths.
    """
    record = found.record
    newest = found.newest
    if unsealed_below(worker, record.task.task_id):
        return None
    settled = settles_at(tokens_of(record), found.trail, worker.settle_window)
    if settled is not None and newest.at < settled:
        return None
    unknown = _unaccounted(worker, record, sorted(listed), until=settled or newest.at)
    if unknown:
        _postpone(worker, record, claim, f"Vault lists leases that belong to no task and can be its own: {unknown[0]}")
        return None
    sealed_at = worker.now()
    receipt = signed_receipt(worker, record, sealed_at)
    publication = announced_publication(worker, record.task.task_id)
    prefixes = sorted(entry.path for entry in Revision.of(record.revision.body).access)
    change = Change(
        EventKind.SEALED,
        Sealed(head=record.task.head, listed_prefixes=tuple(prefixes)),
        state=State.SEALED,
        fields={"receipt": receipt, "due_at": None},
        rows=(publication,),
        gives_back=True,
    )
    worker.ledger.apply(record.task.task_id, change, claim=claim, at=sealed_at)
    return publication


def _postpone(worker: WorkerContext, record: TaskRecord, claim: int, why: str) -> None:
    """Record why the task is not sealed after its window.

    Each reason is recorded once.
    """
    if why != why_seal_postponed(record.events):
        change = Change(EventKind.SEAL_PUT_OFF, EventBody(note=why))
        worker.ledger.apply(record.task.task_id, change, claim=claim, at=worker.now())


def _unaccounted(worker: WorkerContext, record: TaskRecord, listed: list[str], *, until: datetime) -> list[str]:
    """Return the leases below the task's paths that belong to no task.

    Where the lines of an issue never arrived, only the listing shows the lease: a log shipper that drops lines leaves
    no gap. A lease that another task holds in a wrapping looks like that as well, and ends with that task. So a finding
    is recorded only while no task has access.
    """
    if len(worker.ledger.known_leases(listed)) == len(listed):
        return []
    # leases that were issued to others just now are known once the stream was read up to here
    fresh_canary(worker)
    unknown = unaccounted_leases(worker, record, listed, until=until)
    if unknown and not worker.ledger.live_tasks():
        message = f"{len(unknown)} leases that belong to no task were made while its token lived: {unknown[0]}"
        worker.ledger.finding(record.task.task_id, "unaccounted_lease", message, worker.now())
    return unknown
