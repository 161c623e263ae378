"""Revoke every token of jitvault's roles at once, known or not.

`revoke --all` starts with this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError, LedgerUnavailable
from jitvault.kill_switch.threads import TaskPool, ThreadContext, report_nothing
from jitvault.ledger.model import OpState
from jitvault.lifecycle.revocation.phases import confirm_task_still_live
from jitvault.model.kinds import OperationKind
from jitvault.operations import DONE, new_operation, record_answer

_LOOK_FIRST_S = 5.0


def revoke_roles(worker: WorkerContext) -> int:
    """Revoke every token of jitvault's roles, known or not.

    Return the number of roles.

    Vault queues the leases of these tokens. Once every role had its turn, raises the first error.
    """
    roles = worker.tokens.roles()
    ops = [new_operation(worker, OperationKind.REVOKE_ROLE, f"auth/token/create/{role}") for role in roles]
    failures: list[JitvaultError] = []
    try:
        worker.ledger.keep(operations=ops, at=worker.now())
    except LedgerUnavailable as error:
        # a full disk must not keep access alive; the audit stream has the lines of the revocations
        failures.append(error)
    for op in ops:
        try:
            worker.leases.revoke_prefix(op.subject, op=op.op_id)
            answered = record_answer(worker, op, OpState.ANSWERED, DONE)
        except JitvaultError as error:
            failures.append(error)
            answered = record_answer(worker, op, OpState.UNKNOWN, error)
        with suppress(LedgerUnavailable):
            worker.ledger.keep(operations=[answered], at=worker.now())
    if failures:
        raise failures[0]
    return len(roles)


def look_up_before_revoking_roles(hire: Callable[[], ThreadContext], tasks: Sequence[str]) -> None:
    """Look up the credentials that need it before their roles are revoked.

    `revoke_roles` then revokes everything. Where audit lines may be missing, the end of these credentials could not be
    proven otherwise. This takes a few seconds at most, whatever fails or hangs.
    """
    deadline: float | None = None

    def see(hand: ThreadContext, task_id: str, _note: str) -> bool:
        nonlocal deadline
        deadline = deadline or hand.worker.clock.monotonic() + _LOOK_FIRST_S
        confirm_task_still_live(hand.worker.until(deadline), task_id)
        return True

    TaskPool(hire, report_nothing).each("seen alive", see, tasks, "")
