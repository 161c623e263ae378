"""Find tasks that ended before a kill switch, without confirmation.

These are the tasks that ended before the kill switch started, and whose end is not confirmed. A kill switch answers for
the tasks that it had to end. A task that ended long ago, and of which neither Vault nor its target shows a credential,
has no access. No run of the kill switch changes that, so no run fails because of such a task; it is only listed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from jitvault.context import WorkerContext
from jitvault.documents.proof import LeaseProof
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.record.receipt import proof_of, unproven_reason
from jitvault.lifecycle.unexpected_error import others_go_on
from jitvault.model.states import DEAD, State, Verdict

EARLIER = timedelta(hours=1)
"""A task that ended more recently belongs to the incident that the operator is working on."""
_GONE = DEAD | {Verdict.GONE}
_NOTHING_IN_BETWEEN, _TARGET_REFUSES = 4, 6


def ended_earlier(worker: WorkerContext, tasks: Iterable[str]) -> frozenset[str]:
    """Return those of `tasks` that ended long ago and show no access.

    They ended an hour ago or more.
    """
    before = worker.now() - EARLIER
    found = set()
    for task_id in tasks:
        # a task that cannot be looked at is treated as one that has access
        with others_go_on(task_id):
            record = worker.ledger.record(task_id)
            if (
                record is not None
                and record.task.ending_at
                and record.task.ending_at <= before
                and shows_no_access(record)
            ):
                found.add(task_id)
    return frozenset(found)


def shows_no_access(record: TaskRecord) -> bool:
    """Return whether a task is ending without proof, but shows no credential.

    Neither Vault nor its target has any of its credentials.
    """
    if record.task.state is not State.ENDING or unproven_reason(record) is None:
        return False
    verdicts = {grant.verdict for grant in record.grants} | {lease.verdict for lease in record.leases}
    if not verdicts <= _GONE:
        return False
    proof = proof_of(record)
    return proof is not None and all(_is_refused(lease) for lease in proof.leases)


def _is_refused(lease: LeaseProof) -> bool:
    """Return whether the target, where it is asked, refuses a credential.

    Where it is not asked there is only Vault's look-up, which counts if no act can have faked it.
    """
    ok = {check.n: check.ok for check in lease.checks}
    return bool(ok.get(_TARGET_REFUSES, ok.get(_NOTHING_IN_BETWEEN, False)))
