"""Whether the ledger's rows still say what its chain says. The ledger is a cache and a record, never an authority.

Somebody who can write the database can change both; what they cannot change is what Vault holds: the signed
documents that every decision is made from, and the worker's own published state, which is compared before
anything is issued.
"""

from __future__ import annotations

from jitvault.domain.canonical import sha256_hex
from jitvault.domain.chain import breaks
from jitvault.domain.lifecycle import ENDED, State
from jitvault.domain.revision import Revision
from jitvault.errors import SecurityFinding
from jitvault.ports.ledger import TaskFile
from jitvault.services.context import Worker

_OVER = frozenset({*ENDED, State.CANCELLED})


def check_integrity(worker: Worker, file: TaskFile) -> None:
    """Raise SecurityFinding, and record it, when the task's rows do not agree with its chain."""
    task = file.task
    problems = breaks(file.events, head=task.head)
    if file.events and file.events[-1].body.get("state") != task.state.value:
        problems.append(f"the task's state was set to {task.state} by hand")
    if "sha256:" + sha256_hex(file.revision.body) != file.revision.digest or file.revision.digest != task.digest:
        problems.append("the revision's bytes do not have its digest")
    elif Revision.of(file.revision.body).content["requester"]["entity"] != task.requester:
        problems.append("the task's requester is not the one of its revision")
    decided = [e.body["digest"] for e in file.events if e.kind in ("submitted", "revised")]
    if decided and decided[-1] != task.digest:
        problems.append("the task's digest is not the one that was decided about")
    seen = {lease for e in file.events if e.kind == "observed" for lease in e.body["leases"]}
    if seen != {lease.lease_id for lease in file.leases}:
        problems.append("the task's leases are not the ones that were observed")
    created = {e.body["grant"] for e in file.events if e.kind == "token_created"}
    if not created <= {grant.grant_id for grant in file.grants}:
        problems.append("a grant of the task is missing")
    if problems:
        message = "; ".join(problems)
        worker.ledger.finding(task.task_id, "ledger_edited", message, worker.now())
        raise SecurityFinding(f"the ledger's record of task {task.task_id} was changed: {message}")


def check_published(worker: Worker, file: TaskFile) -> None:
    """Raise SecurityFinding when Vault says that the task, or this revision of it, is already over."""
    published = worker.documents.get(f"tasks/{file.task.task_id}") or {}
    state = published.get("state")
    if state in {s.value for s in _OVER}:
        message = f"Vault says that task {file.task.task_id} is {state}, the ledger says {file.task.state}"
        worker.ledger.finding(file.task.task_id, "ledger_rolled_back", message, worker.now())
        raise SecurityFinding(message, hint="The ledger was edited or restored: nothing is issued from it.")
    if published.get("digest") != file.task.digest:
        raise SecurityFinding(f"the published digest of task {file.task.task_id} is not the ledger's")
