"""What Vault answers to revocations and look-ups, on its way into the ledger, and what is left to Vault's own queue."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta

from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError, VaultRefused
from jitvault.ledger.model import Change, LeaseRow, OpState, Row
from jitvault.lifecycle.revocation.credential import RevocationResult
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.states import Verdict
from jitvault.operations import new_operation, record_answer
from jitvault.vault.interface import LeaseRecord

Verdicts = frozenset[Verdict]
"""What Vault claims of those that were acted on."""

SOONEST, LATEST = timedelta(seconds=1), timedelta(minutes=5)
"""How long after a failure the next try is due, at least and at most."""
# answers are committed and the claim is extended at least so often, well within a claim's 30 s
_COMMIT_EVERY_S = 5.0


class ResultRecorder:
    """What Vault said, until it is committed; and what it did not say. `since`: when the task began to end."""

    def __init__(
        self,
        worker: WorkerContext,
        task_id: str,
        claim: int,
        *,
        since: datetime | None,
        event: EventKind = EventKind.REVOKED,
    ) -> None:
        self._worker, self._task_id, self._claim, self._since, self._event = worker, task_id, claim, since, event
        self._rows: list[Row] = []
        self._claimed: set[Verdict] = set()
        self._untold: dict[str, str] = {}
        self._committed = worker.clock.monotonic()
        self._failures: list[JitvaultError] = []
        self.version = 0
        self.left_to_vault: list[str] = []

    def add(self, *rows: Row) -> None:
        self._rows += rows
        if self._worker.clock.monotonic() - self._committed > _COMMIT_EVERY_S:
            self.commit()
            self._worker.ledger.extend(self._task_id, self._claim)

    def add_ended(self, subject: str, ended: RevocationResult) -> None:
        self._claimed.add(ended.row.verdict)
        self._untold[subject] = ended.row.verdict.value
        if ended.failure is not None:
            self._failures.append(ended.failure)
        if isinstance(ended.row, LeaseRow) and ended.row.verdict is Verdict.REVOKE_FAILED:
            self.left_to_vault.append(subject)
        self.add(ended.row, *ended.operations)

    def verdicts(self) -> Verdicts:
        """Of all that were acted on. Raises the first thing that kept Vault from answering for one of them."""
        if self._failures:
            raise self._failures[0]
        return frozenset(self._claimed)

    def commit(self) -> None:
        if self._rows:
            now = self._worker.now()
            due = {"due_at": next_try(self._since, now)} if self._since else {}
            change = Change(self._event, {"verdicts": self._untold}, fields=due, rows=tuple(self._rows))
            self.version = self._worker.ledger.apply(self._task_id, change, claim=self._claim, at=now).version
            self._rows, self._untold = [], {}
        self._committed = self._worker.clock.monotonic()


def queue(worker: WorkerContext, task_id: str, claim: int, lease_ids: Sequence[str]) -> None:
    """Leave to Vault's own queue what its backend could not do now, unless it is in there: it goes on without us.

    Its token's end puts a lease there, too, but not one that appeared afterwards (docs/vault-facts.md, "Revocation").
    """
    waiting = [lease_id for lease_id in lease_ids if _is_idle(worker.leases.lookup(lease_id))]
    if not waiting:
        return
    ops = [new_operation(worker, OperationKind.QUEUE_LEASE, lease_id, task_id=task_id) for lease_id in waiting]
    intent = Change(EventKind.QUEUE_INTENDED, {"ops": [op.op_id for op in ops], "subjects": waiting}, rows=tuple(ops))
    worker.ledger.apply(task_id, intent, claim=claim, at=worker.now())
    answered: list[Row] = []
    try:
        for op in ops:
            worker.leases.queue(op.subject, op=op.op_id)
            answered.append(record_answer(worker, op, OpState.ANSWERED, "accepted"))
    except VaultRefused as error:
        answered.append(record_answer(worker, ops[len(answered)], OpState.ABANDONED, error))
    finally:
        change = Change(EventKind.QUEUED, {"subjects": waiting[: len(answered)]}, rows=tuple(answered))
        worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _is_idle(record: LeaseRecord | None) -> bool:
    """Whether Vault has the lease and is not about to end it: one in its queue has no time left."""
    return record is not None and record.ttl_s > 0 and record.revoke_error is None


def next_try(begun: datetime, now: datetime) -> datetime:
    """When what could not be revoked is due again: the longer it has lasted, the later, and never all at once."""
    wait = min(max((now - begun) / 2, SOONEST), LATEST)
    return now + wait * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
