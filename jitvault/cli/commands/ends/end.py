"""Commands that end access: `complete` and `revoke`.

`complete` is for a finished task, `revoke` for one task or many.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import typer

from jitvault.cli import published as fallback
from jitvault.cli import quiet, session
from jitvault.cli.ends.end_unproven import not_confirmed, why_unfinished
from jitvault.cli.ends.kill_switch import revoke_scope
from jitvault.cli.ends.without_worker import end_without_worker
from jitvault.cli.lookups.end_rights import check_may_end, sign_end_of
from jitvault.cli.options import DEFAULT_WAIT, Reason, Task, Wait, Yes, task_id
from jitvault.cli.views import task as render
from jitvault.cli.views.output import warn
from jitvault.documents.illegible import illegible
from jitvault.documents.paths import request_path
from jitvault.documents.proof import Proof
from jitvault.documents.published_task import ILLEGIBLE, IllegibleDocument, PublishedTask
from jitvault.errors import (
    AuditUntrusted,
    JitvaultError,
    LedgerUnavailable,
    SecurityFinding,
    UsageError,
    VaultUnavailable,
    WaitTimedOut,
    WrongState,
)
from jitvault.lifecycle.revocation.without_ledger import RevocationCount, revoke_without_ledger
from jitvault.model.scope import Scope
from jitvault.model.states import EndReason
from jitvault.wiring import Wiring

_WORKER_BEGINS_S = 3.0
"""How long a worker may take to begin an end before the worker's identity acts here."""

_OPEN = frozenset({"pending_approval", "approved"})
"""The states of a task that holds no access and may be granted without another request."""

Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Close TASK without proof: Vault forgets leases that it cannot revoke. Needs --reason."
    ),
]


def complete(task: Task, wait: Wait = DEFAULT_WAIT) -> None:
    """Complete a task: revoke its access and confirm the revocation.

    Example: jitvault complete count-orders
    """
    _end(task, EndReason.COMPLETED, note="", wait=wait)


def revoke(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="The task's id.", callback=task_id)] = None,
    agent: Annotated[str, typer.Option(help="End every task of this agent (its name or entity id).")] = "",
    template: Annotated[str, typer.Option(help="End every task that uses this template.")] = "",
    owner: Annotated[str, typer.Option(help="End every task of this owner (its name or entity id).")] = "",
    all_: Annotated[
        bool, typer.Option("--all", help="End every task, and revoke every token of jitvault's roles.")
    ] = False,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="First freeze the same tasks, so that none is granted again.")
    ] = False,
    reason: Reason = "",
    force: Force = False,
    yes: Yes = False,
    wait: Wait = DEFAULT_WAIT,
) -> None:
    """Revoke the access of one task, or of many tasks, at once.

    Name one TASK, or choose all tasks of an agent, a template or an owner, or all tasks there are. Access is revoked
    first, then the revocation is confirmed. With --agent, --template, --owner or --all the tokens of all chosen tasks
    are revoked before anything else. If the command is interrupted, run it again: it continues.

    Example: jitvault revoke --agent research-agent --freeze --reason "stolen host"
    """
    if sum(map(bool, (task, agent, template, owner, all_))) != 1:
        raise UsageError("revoke takes one of TASK, --agent, --template, --owner and --all")
    if task is None:
        if force:
            raise UsageError(
                "--force is for one task",
                hint="Close each task that cannot be confirmed with `jitvault revoke TASK --force --reason WHY`.",
            )
        scope = Scope(agent, template, owner)
        revoke_scope(scope, note=reason, yes=yes, freeze=freeze, wait=wait)
        return
    if freeze:
        raise UsageError(
            "--freeze is for --agent, --template, --owner and --all",
            hint="Leave --freeze out: a task is granted only once.",
        )
    _end(task, EndReason.OPERATOR, note=reason, wait=wait, force=force, yes=yes)


def _end(task: str, reason: Any, *, note: str, wait: float, force: bool = False, yes: bool = False) -> None:
    wiring = session.open_session()
    withdrawn = _withdrawn(wiring, task, note, wait) if reason is EndReason.OPERATOR else None
    if withdrawn is not None and withdrawn.state == "cancelled":
        render.print_decision(withdrawn)
        quiet.note(f"task {task} was never granted: there was nothing to revoke, and now it never is")
        return
    document, state = session.current(wiring, task) if withdrawn is None else (withdrawn, withdrawn.state)
    if state in {"cancelled", *session.BEFORE}:
        hint = "There is nothing to revoke." + (f" `jitvault cancel {task}` withdraws it." if state in _OPEN else "")
        raise WrongState(f"task {task} is {state}: it was never granted", hint=hint)
    if force:
        _check_forceable(task, state, document.proof if isinstance(document, PublishedTask) else None, note)
        if not yes:
            question = f"Close task {task} for good even if nothing proves that its credentials are dead?"
            session.ask(question, done="nothing was closed")
    if note and withdrawn is None and state in session.DONE:
        warn(f"task {task} is {state} already: this reason is not recorded")
    unsealed = force and state == "confirmed"
    is_signed = withdrawn is not None
    if state in {*session.GRANTED, ILLEGIBLE} or unsealed or (state == "ending" and (force or note)):
        _sign(wiring, document, reason, note=note, force=force)
        is_signed = True
    done = session.DONE - {"confirmed"} if unsealed else session.DONE
    if state not in done:
        try:
            document = _ended(wiring, task, done, wait, before=document.written_at)
        except (AuditUntrusted, SecurityFinding, VaultUnavailable, WaitTimedOut) as error:
            document = session.known(wiring, task)
            if document.proof:
                render.print_end(document)
                raise why_unfinished(wiring, document, error) from None
            raise
        except LedgerUnavailable as error:
            raise _revoke_without_ledger(wiring, task, error) from None
    _note_without_reason(reason if is_signed else None, note)
    _print_result(wiring, document)


def _ended(wiring: Wiring, task: str, done: Collection[str], wait: float, *, before: datetime) -> PublishedTask:
    """Wait until a worker has ended the task; end it here where none begins.

    Only the worker's identity can do that here. `before` is when the task was last published. A worker publishes it
    again when it has begun, and when it has ended it; a thief may have published before that it is over.
    """
    until = wiring.clock.monotonic() + wait

    def has_come_to(states: Collection[str]) -> Callable[[PublishedTask], bool]:
        return lambda document: document.state in states and document.written_at > before

    if wiring.has_worker:
        try:
            session.wait_for_worker(wiring, task, has_come_to({*done, "ending"}), min(wait / 2, _WORKER_BEGINS_S))
        except JitvaultError:
            return end_without_worker(wiring, task, until - wiring.clock.monotonic())
    left_s = max(0.0, until - wiring.clock.monotonic())
    return session.wait_for_worker(wiring, task, has_come_to(done), left_s, begun=wiring.has_worker)


def _sign(wiring: Wiring, document: PublishedTask | IllegibleDocument, reason: Any, *, note: str, force: bool) -> None:
    """Sign the end of a task. Raises Denied for who may not end it."""
    check_may_end(wiring, document, force=force)
    sign_end_of(wiring, document.task_id, reason, note, force=force)


def _note_without_reason(reason: Any, note: str) -> None:
    """Say that a task was revoked without a reason.

    `reason` is the end that this command signed, None where it signed none.
    """
    if reason is EndReason.OPERATOR and not note:
        quiet.note("No reason is given, and every report says so. --reason WHY gives one.")


def _print_result(wiring: Wiring, document: PublishedTask | IllegibleDocument) -> None:
    """Print the proof of a task's end. Raises NotConfirmed, SecurityFinding."""
    if isinstance(document, IllegibleDocument):
        raise illegible(document.task_id, document.place)
    render.print_end(document)
    if not render.proof_in(document).confirmed:
        raise not_confirmed(wiring, document)
    session.check_findings(document.task_id, document.findings, end_reason=document.end_reason)


def _revoke_without_ledger(wiring: Wiring, task: str, error: LedgerUnavailable) -> LedgerUnavailable:
    """Revoke in Vault what can be revoked although the ledger failed.

    Returns the error to raise, which says how much was revoked.
    """
    revoked = RevocationCount()
    with suppress(JitvaultError):
        # where the ledger cannot even be read, the task's credentials are not known
        asked_by = wiring.person.entity if wiring.person_token else None
        revoked = revoke_without_ledger(replace(wiring.worker_without_session, asked_by=asked_by), task)
    if not revoked.known:
        return error
    message = f"task {task}: {revoked.ended} of {revoked.known} credentials were revoked in Vault; nothing is confirmed"
    return LedgerUnavailable(f"{message}: {error}", hint=error.hint)


def _withdrawn(wiring: Wiring, task: str, note: str, wait: float) -> PublishedTask | None:
    """Sign the end of a task that may still be granted.

    Returns what a worker published of the task then. Nothing else is done for the task before. None for a task that is
    published as granted or over. The task may be granted meanwhile: the signed end holds for the grant as well.
    """
    document = session.published(wiring, task)
    # a request that no worker has admitted yet would be granted by the first one that does
    is_open = (
        document.state in _OPEN if document is not None else fallback.request_not_admitted(wiring, task) is not None
    )
    if not is_open:
        return None
    if isinstance(document, PublishedTask):
        check_may_end(wiring, document)
    sign_end_of(wiring, task, EndReason.OPERATOR, note)
    signed = session.Signed(at=session.written_at(wiring, request_path(wiring.person.entity, task, "end")))
    still = {*_OPEN, *session.GRANTED, "ending"}
    return session.wait_for_worker(wiring, task, lambda d: d.state not in still, wait, signed)


def _check_forceable(task: str, state: str, proof: Proof | None, note: str) -> None:
    """Refuse to close a task by force without a reason.

    A task whose revocation is confirmed is refused as well. Raises UsageError, WrongState.
    """
    if not note:
        raise UsageError("--force needs --reason WHY", hint="The reason is the only record of this decision.")
    if state == "sealed":
        raise WrongState(f"task {task} is sealed: nothing has to be forced")
    if state == "confirmed" and not (proof and proof.unproven_because):
        times = _times(proof.reopened if proof else 0)
        before = f", as it was {times} before" if times else ""
        raise WrongState(
            f"task {task} is confirmed{before}: nothing has to be forced",
            hint="Its proof is checked again when its settle window is over. If it does not hold then, or the task is "
            f"not sealed, `jitvault status {task}` says why, and --force closes it.",
        )


def _times(count: int) -> str:
    if count == 0:
        return ""
    return "once" if count == 1 else f"{count} times"
