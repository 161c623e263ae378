"""Revoke one of many tasks in three phases, each under a claim of its own.

The kill switch, and the end of a task with tasks below it, take all tasks through one phase before the next: all tokens
are revoked before any lease. Between two phases another process may work on the task.
"""

from __future__ import annotations

from collections.abc import Callable

from jitvault.context import WorkerContext
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.record.integrity import check_integrity
from jitvault.lifecycle.revocation.results import Verdicts
from jitvault.lifecycle.revocation.revoke import (
    Revocation,
    confirm_still_live,
    is_replaced_token_unproven,
    live_credentials,
    live_leases,
    revoke_tokens,
    to_look_up_first,
)
from jitvault.model.event_bodies import EndCause
from jitvault.model.states import State

_REVOCABLE = frozenset({State.ISSUED, State.ACTIVE, State.ENDING})

WhyEnd = Callable[[WorkerContext, TaskRecord], EndCause | None]
"""Returns why a task ends, None where it is ending already."""


class PhasedRevocation:
    """One task's `Revocation`, with others' phases between its own.

    It is for a caller that has others to revoke between the phases. Each phase returns the verdicts that Vault reports,
    and None where there is nothing to revoke. Each raises like `Revocation`, and SecurityFinding where the task's rows
    were edited.
    """

    def __init__(self, task_id: str, why: WhyEnd) -> None:
        self._task_id = task_id
        self._why = why
        self._begun: Revocation | None = None

    def revoke_tokens(self, worker: WorkerContext) -> Verdicts | None:
        """Revoke the task's tokens.

        The intents for its leases are in the same commit.
        """
        return _with_task_claim(worker, self._task_id, self._revoke_tokens)

    def revoke_leases(self, worker: WorkerContext) -> Verdicts | None:
        """Revoke the task's leases.

        The intents are those of the first phase, where they still hold.
        """
        begun = self._begun
        self._begun = None
        if begun is not None:
            with worker.ledger.claim(self._task_id, partly=True) as claim:
                task = worker.ledger.task(self._task_id)
                if task is not None and task.version == begun.record.task.version:
                    with begun.resumed(worker, claim) as revocation:
                        return revocation.revoke_leases()
        # another process has changed the task since, so it is read again
        return _with_task_claim(worker, self._task_id, self._revoke_leases)

    def look_up(self, worker: WorkerContext) -> Verdicts | None:
        """Look up the task's credentials whose revocation Vault acknowledged."""
        return _with_task_claim(worker, self._task_id, _look_up)

    def _revoke_tokens(self, worker: WorkerContext, record: TaskRecord, claim: int) -> Verdicts:
        credentials = live_credentials(worker, record)
        look_first = to_look_up_first(worker, record, credentials)
        begun = Revocation(worker, record, claim, credentials, why=self._why(worker, record), look_first=look_first)
        with begun:
            verdicts = begun.revoke_tokens()
        self._begun = begun
        return verdicts

    def _revoke_leases(self, worker: WorkerContext, record: TaskRecord, claim: int) -> Verdicts:
        why = self._why(worker, record)
        if why is None:
            with Revocation(worker, record, claim, live_leases(worker, record)) as revocation:
                return revocation.revoke_leases()
        # the task was issued after the first phase
        with Revocation(worker, record, claim, live_credentials(worker, record), why=why) as revocation:
            revocation.revoke_tokens()
            return revocation.revoke_leases()


def revoke_task_tokens(worker: WorkerContext, task_id: str) -> Verdicts | None:
    """Revoke the tokens of a task that its caller advances later."""
    return _with_task_claim(worker, task_id, revoke_tokens)


def confirm_task_still_live(worker: WorkerContext, task_id: str) -> None:
    """Look up the credentials of a task before whole roles are revoked.

    Only those are looked up whose end could not be proven otherwise.
    """
    _with_task_claim(worker, task_id, confirm_still_live)


def _look_up(worker: WorkerContext, record: TaskRecord, claim: int) -> Verdicts:
    with Revocation(worker, record, claim, live_credentials(worker, record)) as revocation:
        return revocation.look_up()


def _with_task_claim(
    worker: WorkerContext, task_id: str, act: Callable[[WorkerContext, TaskRecord, int], Verdicts]
) -> Verdicts | None:
    """Do `act` under the task's claim.

    Return None where there is nothing to revoke.

    A task that is being issued may have a token that is not known yet. It is left to `advance`, which finds that token,
    unless somebody holds the token that an extension replaces.
    """
    with worker.ledger.claim(task_id, partly=True) as claim:
        record = worker.ledger.record(task_id)
        if record is None or not (record.task.state in _REVOCABLE or is_replaced_token_unproven(record)):
            return None
        check_integrity(worker, record)
        return act(worker, record, claim)
