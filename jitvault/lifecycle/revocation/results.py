"""Record Vault's answers to revocations and look-ups.

What Vault could not revoke now is queued in Vault.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from jitvault.backoff import jittered
from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError, VaultRefused
from jitvault.ledger.model import Change, GrantRow, LeaseRow, OperationRow, OpState, Row, TaskRecord
from jitvault.lifecycle.revocation.credential import RevocationResult
from jitvault.model.event_bodies import VerdictsGiven
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.states import Verdict
from jitvault.model.ttl import LONGEST_PAUSE, SHORTEST_PAUSE
from jitvault.operations import new_operation, record_answer
from jitvault.vault.interface import LeaseRecord

Verdicts = frozenset[Verdict]
"""The verdicts that Vault reports of the credentials that were acted on."""

# answers are committed and the claim is extended at least so often, well within a claim's 30 s
_COMMIT_EVERY_S = 5.0


class ResultRecorder:
    """Collects Vault's answers about one task's credentials and commits them.

    `record` is the task's record, as of the last commit. `since` is when the task began to end: the next try is due by
    how long that lasts. `event` is the kind of the event with which the answers are committed. `left_to_vault` names
    the leases that Vault could not revoke.
    """

    def __init__(
        self,
        worker: WorkerContext,
        record: TaskRecord,
        claim: int,
        *,
        since: datetime | None,
        event: EventKind = EventKind.REVOKED,
    ) -> None:
        self._worker = worker
        self._claim = claim
        self._event = event
        # a credential that was revoked and then looked up has two results, of which the later one counts
        self._rows: dict[str, Row] = {}
        self._uncommitted: dict[str, str] = {}
        self._committed_at = worker.clock.monotonic()
        self._failures: list[JitvaultError] = []
        self.record = record
        self.since = since
        self.left_to_vault: list[str] = []

    def add(self, *rows: Row) -> None:
        """Add rows to commit; commit when the last commit is long ago."""
        self._rows |= {_key(row): row for row in rows}
        if self._worker.clock.monotonic() - self._committed_at > _COMMIT_EVERY_S:
            self.commit()
            self._worker.ledger.extend(self.record.task.task_id, self._claim)

    def add_result(self, subject: str, result: RevocationResult) -> None:
        """Add one credential's result.

        `subject` names the credential in the event.
        """
        self._uncommitted[subject] = result.row.verdict.value
        if result.failure is not None:
            self._failures.append(result.failure)
        if isinstance(result.row, LeaseRow) and result.row.verdict is Verdict.REVOKE_FAILED:
            self.left_to_vault.append(subject)
        self.add(result.row, *result.operations)

    def raise_failure(self) -> None:
        """Raise the first error that kept Vault from answering for a credential."""
        if self._failures:
            raise self._failures[0]

    def commit(self) -> None:
        """Commit the rows that were added since the last commit."""
        if self._rows:
            now = self._worker.now()
            due = {"due_at": next_try(self.since, now)} if self.since else {}
            rows = tuple(self._rows.values())
            change = Change(self._event, VerdictsGiven(verdicts=self._uncommitted), fields=due, rows=rows)
            self.record = self._worker.ledger.change(self.record, change, claim=self._claim, at=now)
            self._rows = {}
            self._uncommitted = {}
        self._committed_at = self._worker.clock.monotonic()


def _key(row: Row) -> str:
    """Return the key of a row.

    Ids of grants, leases and operations do not collide.
    """
    match row:
        case GrantRow():
            return row.grant_id
        case LeaseRow():
            return row.lease_id
        case OperationRow():
            return row.op_id
    raise TypeError(f"a revocation has no {type(row).__name__}")


def queue_in_vault(worker: WorkerContext, record: TaskRecord, claim: int, lease_ids: Sequence[str]) -> TaskRecord:
    """Put leases that a backend could not revoke now into Vault's queue.

    Vault then retries without jitvault. A lease that is in the queue already is left alone. The end of its token puts a
    lease there as well, but not a lease that appeared afterwards (docs/vault-facts.md, "Revocation"). Returns the task
    after it.
    """
    waiting = [lease_id for lease_id in lease_ids if _is_unqueued(worker.leases.lookup(lease_id))]
    if not waiting:
        return record
    task_id = record.task.task_id
    ops = [new_operation(worker, OperationKind.QUEUE_LEASE, lease_id, task_id=task_id) for lease_id in waiting]
    record = worker.ledger.change(record, Change(EventKind.QUEUE_INTENDED, rows=ops), claim=claim, at=worker.now())
    answered: list[Row] = []
    try:
        for op in ops:
            worker.leases.queue(op.subject, op=op.op_id)
            answered.append(record_answer(worker, op, OpState.ANSWERED, "accepted"))
    except VaultRefused as error:
        answered.append(record_answer(worker, ops[len(answered)], OpState.ABANDONED, error))
    finally:
        record = worker.ledger.change(record, Change(EventKind.QUEUED, rows=answered), claim=claim, at=worker.now())
    return record


def _is_unqueued(record: LeaseRecord | None) -> bool:
    """Return whether Vault has the lease, but not in its revocation queue.

    A queued lease has no TTL left.
    """
    return record is not None and record.ttl_s > 0 and record.revoke_error is None


def next_try(begun: datetime, now: datetime) -> datetime:
    """Return when to retry a task that began to end at `begun`.

    The wait grows with the time that the end has lasted so far, and its jitter spreads the tasks out. It is no shorter
    than the quiet second of the proof.
    """
    wait = min((now - begun) / 2, LONGEST_PAUSE)
    return now + max(jittered(wait), SHORTEST_PAUSE)
