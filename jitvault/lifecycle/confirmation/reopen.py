"""Reopen tasks whose proof does not hold any more, and revoke leases that appear late."""

from __future__ import annotations

from dataclasses import replace

from jitvault.context import WorkerContext
from jitvault.ledger.model import Change, CheckRow, TaskRecord
from jitvault.lifecycle.confirmation.confirm import judge
from jitvault.lifecycle.confirmation.evidence import collect_evidence
from jitvault.lifecycle.record.rounds import MOST_ROUNDS, is_going_round, why_reopened
from jitvault.lifecycle.revocation.revoke import revoke
from jitvault.model.finding import AFTER_SEAL
from jitvault.model.kinds import EventKind
from jitvault.model.proof_check import QUIET_N
from jitvault.model.states import State, Verdict


def reopen(worker: WorkerContext, file: TaskRecord, claim: int, event: EventKind, why: str) -> TaskRecord:
    """Reopen a task whose proof does not hold, and return it: it has to end again.

    After a restore of Vault, nothing observed before it counts, and a late lease can be the sign of a restore. So every
    credential is looked up and revoked again. Until the task is judged anew, check 7 says why it was reopened: should
    this process die here, the rows of the other checks still hold.
    """
    task_id = file.task.task_id
    issued = [grant for grant in file.grants if grant.verdict is not Verdict.NEVER_ISSUED]
    grants = [replace(grant, verdict=Verdict.ACKNOWLEDGED) for grant in issued]
    leases = [replace(lease, verdict=Verdict.ACKNOWLEDGED) for lease in file.leases]
    check = CheckRow(task_id, task_id, QUIET_N, ok=False, evidence=f"it began to end again: {why}"[:1000])
    change = Change(event, {"why": why}, state=State.ENDING, rows=(*grants, *leases, check))
    file = worker.ledger.change(file, change, claim=claim, at=worker.now())
    record_round(worker, file)
    return file


def record_round(worker: WorkerContext, file: TaskRecord) -> None:
    """Record a finding for a task that was confirmed and reopened repeatedly."""
    if not is_going_round(file.events):
        return
    task_id = file.task.task_id
    message = (
        f"its end was called proven {MOST_ROUNDS} times and did not stay so, the last time because "
        f"{why_reopened(file.events)}. It is called proven again only when it can be sealed; "
        f"`jitvault revoke {task_id} --force --reason WHY` closes it without proof"
    )
    worker.ledger.finding(task_id, "goes_round", message, worker.now())


def revoke_late_lease(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """Revoke a lease that appeared after the task was closed, and record a finding.

    The task stays sealed.
    """
    worker.ledger.finding(file.task.task_id, *AFTER_SEAL, worker.now())
    revoke(worker, file, claim)
    found = collect_evidence(worker, file.task.task_id)
    judged = judge(worker, found)
    change = Change(EventKind.JUDGED, {"canary": found.newest.place.offset}, rows=(*judged.leases, *judged.checks))
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())
