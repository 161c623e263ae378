"""What the stream cannot say by itself: list the leases below a task's paths, and see that each is accounted for.

A gap may hide a lease; what was read in a wrapping that nobody opened has one that no line shows; a request that
never got an answer may have made one. Whatever Vault lists now, made while the token lived, has to belong to a task.

What other tasks read in a wrapping leaves leases of nobody below the same path, thousands of them where an agent wants
that. Each is counted as one of theirs where a wrapped read of theirs can have made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from jitvault.audit.issued_lease import is_token_lease
from jitvault.audit.observation import Kind
from jitvault.audit.trail import AuditTrail
from jitvault.context import WorkerContext
from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.model import Change, OpState, TaskRecord
from jitvault.lifecycle.confirmation.evidence import Evidence, collect_evidence, tokens_of
from jitvault.lifecycle.confirmation.rounds import ACCOUNTED
from jitvault.lifecycle.confirmation.wrapped_reads import unexplained, wrapped_reads
from jitvault.lifecycle.decision.admit import drift_besides_request
from jitvault.lifecycle.decision.template_gate import under_check
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.revision import Revision
from jitvault.operations import new_operation, record_answer
from jitvault.stream.reading import canary

_PATIENCE_S = 10.0
"""So long leases of nobody are looked up in one turn; a claim is for 30 s. What is left over counts as unexplained."""


def reconciled(worker: WorkerContext, task_id: str, claim: int) -> Evidence:
    """What there is to judge a task by now, once what its lines leave open was listed. Raises AuditUntrusted."""
    found = collect_evidence(worker, task_id)
    open_ = found.doubts(worker)
    # what has no answer yet is waited for
    if not open_.why_list or open_.pending or found.listing_covers_all():
        return found
    _list(worker, found.file, claim, open_.why_list)
    return collect_evidence(worker, task_id)


def _list(worker: WorkerContext, file: TaskRecord, claim: int, why: str) -> None:
    task_id = file.task.task_id
    paths = sorted({entry["path"] for entry in Revision.of(file.revision.body).access})
    ops = [new_operation(worker, OperationKind.LIST_LEASES, path, task_id=task_id) for path in paths]
    intent = Change(EventKind.LISTING_INTENDED, {"ops": [op.op_id for op in ops], "why": why}, rows=ops)
    worker.ledger.apply(task_id, intent, claim=claim, at=worker.now())
    listed = [lease for op in ops for lease in worker.leases.list(op.subject, op=op.op_id)]
    # what others were given just now is known once the stream was read up to here
    canary(worker)
    unknown = unaccounted_leases(worker, file, listed, until=_no_later_than(worker, file))
    drifted = drift_besides_request(worker, file)
    answer = ACCOUNTED if not unknown and drifted is None else "not accounted for"
    if lasting := _listed_before(file) & set(unknown):
        message = f"{len(lasting)} leases that belong to no task were made while its token lived: {min(lasting)}"
        worker.ledger.finding(task_id, "unaccounted_lease", message, worker.now())
    answered = [record_answer(worker, op, OpState.ANSWERED, answer) for op in ops]
    change = Change(EventKind.LISTED, {"answer": answer, "suspects": unknown[:100], "drift": drifted}, rows=answered)
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _no_later_than(worker: WorkerContext, file: TaskRecord) -> datetime:
    """When the last read of the task's tokens can have ended: what was made later is somebody else's."""
    gone = [grant.dead_at for grant in file.grants if grant.dead_at]
    return max(gone) + worker.settle_window + MAX_SKEW if gone else worker.now()


def _listed_before(file: TaskRecord) -> set[str]:
    """What the listing before this one left over. Vault ends the leases of a revoked token within a moment, so one that
    is listed once alarms nobody.
    """
    listings = (e.body["suspects"] for e in reversed(file.events) if e.kind == EventKind.LISTED)
    return set(next(listings, ()))


def unaccounted_leases(worker: WorkerContext, file: TaskRecord, listed: list[str], *, until: datetime) -> list[str]:
    """Leases of nobody that were made while a token of the task lived, or up to `until`, by Vault's clock, and that no
    wrapped read of another task can have made.

    The stream was read up to a canary after the listing: what others were given just then is known.
    """
    known = worker.ledger.known_leases(listed)
    unknown = [lease_id for lease_id in listed if lease_id not in known and not is_token_lease(lease_id)]
    begun = min((grant.issued_at for grant in file.grants if grant.issued_at), default=file.task.created_at)
    dated: dict[str, datetime] = {}
    found: list[str] = []
    patience = worker.clock.monotonic() + _PATIENCE_S
    for n, lease_id in enumerate(unknown):
        if worker.clock.monotonic() > patience:
            # nobody knows of these: they count as what was looked up and has no time
            found += unknown[n:]
            break
        record = worker.leases.lookup(lease_id)
        if record is not None and record.issued_at is None:
            found.append(lease_id)
        elif record is not None and record.issued_at is not None and begun <= record.issued_at <= until:
            dated[lease_id] = record.issued_at
    found += _of_no_other(worker, file, dated)
    # an administrator's check of a template makes a lease below the same path, for a moment
    return sorted(set(found) - under_check(worker)) if found else []


def _of_no_other(worker: WorkerContext, file: TaskRecord, made: Mapping[str, datetime]) -> list[str]:
    """Return the leases that no wrapped read of another task can have made. Whose a read is says its token's accessor,
    whatever became of its task since.
    """
    if not made:
        return []
    by_path: dict[str, dict[str, datetime]] = {}
    for lease_id, at in made.items():
        by_path.setdefault(lease_id.rpartition("/")[0], {})[lease_id] = at
    settle = worker.settle_window
    lines = worker.ledger.used_at(sorted(by_path), since=min(made.values()) - settle)
    others = frozenset(line.actor for line in lines if line.kind is Kind.USED) - tokens_of(file)
    reads = wrapped_reads(others, AuditTrail(lines, (), frozenset()), leased=frozenset(by_path), settle=settle)
    # one that shows its lease has that one, which is known
    hidden = [read for read in reads if not read.lease_id]
    return [
        lease_id
        for path, leases in by_path.items()
        for lease_id in unexplained(leases, [read for read in hidden if read.path == path])
    ]
