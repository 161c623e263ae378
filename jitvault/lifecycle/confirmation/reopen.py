"""What comes after a task was called over: evidence that does not carry any more, and leases that appear too late."""

from __future__ import annotations

from dataclasses import replace

from jitvault.context import WorkerContext
from jitvault.errors import SecurityFinding
from jitvault.ledger.model import Change, CheckRow, TaskRecord
from jitvault.lifecycle.confirmation.confirm import judge
from jitvault.lifecycle.confirmation.evidence import collect_evidence
from jitvault.lifecycle.confirmation.lookups import is_any_live, proven_before
from jitvault.lifecycle.confirmation.rounds import MOST_ROUNDS, is_going_round, why_reopened
from jitvault.lifecycle.record.integrity import Published, check_integrity
from jitvault.lifecycle.revocation.revoke import revoke
from jitvault.model.finding import AFTER_SEAL
from jitvault.model.kinds import EventKind
from jitvault.model.proof_check import QUIET_N
from jitvault.model.states import State, Verdict

BACK = "Vault has again what was proven dead"


def reopen(worker: WorkerContext, file: TaskRecord, claim: int, event: EventKind, why: str) -> None:
    """Reopen a task whose proof does not hold: look up and end all of it anew.

    Of a Vault that was restored nothing that was seen before counts, and a late lease can come of that. Check 7 says
    why until the task is judged again: should this process end here, its other checks still hold.
    """
    task_id = file.task.task_id
    grants = [replace(g, verdict=Verdict.ACKNOWLEDGED) for g in file.grants if g.verdict is not Verdict.NEVER_ISSUED]
    leases = [replace(lease, verdict=Verdict.ACKNOWLEDGED) for lease in file.leases]
    check = CheckRow(task_id, task_id, QUIET_N, ok=False, evidence=f"it began to end again: {why}"[:1000])
    change = Change(event, {"why": why}, state=State.ENDING, rows=(*grants, *leases, check))
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())
    tell_round(worker, worker.file(task_id))


def tell_round(worker: WorkerContext, file: TaskRecord) -> None:
    """Keep a finding for a task that was called proven again and again."""
    if not is_going_round(file.events):
        return
    task_id = file.task.task_id
    message = (
        f"its end was called proven {MOST_ROUNDS} times and did not stay so, the last time because "
        f"{why_reopened(file.events)}. It is called proven again only when it can be sealed; "
        f"`jitvault revoke {task_id} --force --reason WHY` closes it without proof"
    )
    worker.ledger.finding(task_id, "goes_round", message, worker.now())


def check_not_back(worker: WorkerContext, file: TaskRecord, said: Published) -> None:
    """Raise SecurityFinding, and record it, when Vault has again what a closed task had ended.

    Vault then `said` of it what was before the close; so it does after a crash, and then nothing is there.
    """
    closed = file.task.state in (State.SEALED, State.UNVERIFIED)
    if not closed or said.get("state") == file.task.state:
        return
    # rows that somebody edited may call it closed as well
    check_integrity(worker, file)
    if not is_any_live(worker, proven_before(file)):
        return
    message = f"{BACK}: task {file.task.task_id} is {file.task.state}, and Vault was restored since"
    worker.ledger.finding(file.task.task_id, "back_after_seal", message, worker.now())
    raise SecurityFinding(message, hint="`jitvault sweep --fix` ends what is there, and proves it.")


def end_late(worker: WorkerContext, file: TaskRecord, claim: int) -> None:
    """A lease that appears after the settle window: the task stays sealed, the lease is ended and it is told."""
    worker.ledger.finding(file.task.task_id, *AFTER_SEAL, worker.now())
    revoke(worker, file, claim)
    found = collect_evidence(worker, file.task.task_id)
    judged = judge(worker, found)
    change = Change(EventKind.JUDGED, {"canary": found.newest.place.offset}, rows=(*judged.leases, *judged.checks))
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())
