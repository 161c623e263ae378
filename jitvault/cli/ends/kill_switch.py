"""`jitvault revoke` for a scope of tasks: the kill switch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import typer

from jitvault.cli import session
from jitvault.cli.ends.end_unproven import why_unfinished
from jitvault.cli.ends.without_worker import end_lost
from jitvault.cli.lookups.end_rights import sign_end_of
from jitvault.cli.lookups.names_in_tasks import published_in
from jitvault.cli.quiet import note, waits
from jitvault.cli.views.kill_switch import print_kill_results
from jitvault.cli.views.task import not_proven
from jitvault.cli.waiting import Wait
from jitvault.context import WorkerContext
from jitvault.documents.paths import ANYONE, freeze_path
from jitvault.documents.published_task import PublishedTask
from jitvault.documents.signed import check_note
from jitvault.errors import (
    JitvaultError,
    LedgerUnavailable,
    NotConfirmed,
    NoWorkerActed,
    SecurityFinding,
    UsageError,
    error_like,
)
from jitvault.formats.plural import counted, listed
from jitvault.kill_switch.ended_before import ended_earlier
from jitvault.kill_switch.kill import (
    Result,
    check_known,
    check_operator,
    kill,
    published_but_unknown,
    tasks_in_scope,
    unreadable,
    was_ever_in_scope,
)
from jitvault.kill_switch.roles import look_up_before_revoking_roles, revoke_roles
from jitvault.kill_switch.threads import ThreadContext
from jitvault.lifecycle.requests.sign import sign_freeze
from jitvault.model.scope import Scope
from jitvault.model.states import EndReason, State
from jitvault.wiring import Wiring


def revoke_scope(scope: Scope, *, note: str, yes: bool, freeze: bool, wait: float) -> None:
    """End every task of a scope and print the result of each.

    Raises the first failure, after all were tried.
    """
    if not check_note(note):
        raise UsageError(
            "revoke needs --reason WHY here", hint="The reason is kept in the record of every task that is ended."
        )
    wiring = session.open_session()
    tasks = in_scope(wiring, scope)
    check_known(scope, scope.is_all or bool(tasks) or is_known(wiring, scope))
    if not yes:
        session.ask(_question(tasks, everything=scope.is_all and wiring.has_worker), done="nothing was revoked")
    if freeze:
        with session.signing(f"freeze {scope}", "operators", writes=freeze_path(ANYONE, scope.key)):
            sign_freeze(wiring.person, scope, freezes=True, reason=note)
    failure = _revoke_roles(wiring, tasks) if scope.is_all and wiring.has_worker else None
    end = _kill_here if wiring.has_worker else _kill_there
    results: list[Result] = []
    try:
        for some in _rounds(wiring, scope, tasks, wait):
            results += end(wiring, some, note, wait)
        if wiring.has_worker:
            results += _kill_lost(wiring, scope, note, wait)
            results += published_but_unknown(_worker_of(wiring), scope, results)
        else:
            results += [unreadable(name) for name, shown in published_in(wiring, scope).items() if shown is None]
    except JitvaultError as error:
        # the results of the other tasks are printed nevertheless
        failure = failure or error
    print_kill_results(results)
    _raise_for(results)
    if failure is not None:
        raise failure
    if scope.is_all and not wiring.has_worker:
        raise _roles_not_revoked()


def _rounds(wiring: Wiring, scope: Scope, tasks: Sequence[str], wait: float) -> Iterator[Sequence[str]]:
    """Yield first `tasks`, then those that were granted meanwhile.

    It ends when there are none, or after `wait` seconds.
    """
    deadline = time.monotonic() + wait
    known = set(tasks)
    yield tasks
    while more := sorted(set(in_scope(wiring, scope)) - known):
        known.update(more)
        yield more
        if time.monotonic() >= deadline:
            return


def _question(tasks: Sequence[str], *, everything: bool) -> str:
    what = (
        f"End {counted(len(tasks), 'task')} ({listed(tasks, 5)})"
        if tasks
        else "No task of this scope is known to hold access; go on"
    )
    return f"{what}, and revoke every token of jitvault's roles in Vault?" if everything else f"{what}?"


def in_scope(wiring: Wiring, scope: Scope) -> list[str]:
    if wiring.has_worker:
        check_operator(_worker_of(wiring), wiring.person)
        return tasks_in_scope(_worker_of(wiring), scope)
    return _published_open(wiring, scope)


def _published_open(wiring: Wiring, scope: Scope) -> list[str]:
    open_states = session.GRANTED | session.ENDING
    published = published_in(wiring, scope)
    return sorted(name for name, shown in published.items() if shown and shown.state in open_states)


def is_known(wiring: Wiring, scope: Scope) -> bool:
    """Return whether the scope ever covered a task.

    The ledger is asked, or without the worker's identity what is published in Vault.
    """
    if wiring.has_worker:
        return was_ever_in_scope(_worker_of(wiring), scope)
    return any(published_in(wiring, scope).values())


def _revoke_roles(wiring: Wiring, tasks: Sequence[str]) -> JitvaultError | None:
    """Revoke every token of jitvault's roles.

    Returns the error where one could not be revoked.
    """
    look_up_before_revoking_roles(_context_factory(wiring), tasks)
    try:
        roles = revoke_roles(_worker_of(wiring))
    except JitvaultError as error:
        typer.echo(f"not every role could be revoked as a whole: {error}", err=True)
        return error
    note(f"every token of jitvault's {roles} roles is revoked; Vault now revokes their leases")
    return None


def _roles_not_revoked() -> NotConfirmed:
    """Return the error for what `--all` cannot do as an operator.

    Policy gives the revocation of whole roles to the worker alone. So the exit code is never 0: a token that belongs to
    no task may still work.
    """
    return NotConfirmed(
        "every task that is published as held is ended and confirmed; tokens of jitvault's roles that belong to no "
        "task were NOT revoked: only the worker's identity may do that",
        hint="If only tasks had to end, nothing is left to do; where the worker's identity is set, `jitvault sweep` "
        "shows whether there is such a token, and with your own VAULT_TOKEN beside it `jitvault revoke --all --reason "
        "WHY` revokes them as well. Without a worker: docs/operations/break-glass.md.",
    )


def _kill_here(wiring: Wiring, tasks: Sequence[str], note: str, wait: float) -> list[Result]:
    """End the tasks with the worker's identity, a few at a time."""
    earlier = ended_earlier(_worker_of(wiring), tasks)
    return kill(_context_factory(wiring), tasks, note=note, wait=wait, tell=Progress(), earlier=earlier)


def _kill_lost(wiring: Wiring, scope: Scope, note: str, wait: float) -> list[Result]:
    """End the tasks of a scope that were lost with the ledger."""
    worker = _worker_of(wiring)
    lost = end_lost(wiring, worker, partial(_published_open, wiring, scope), note, wait)
    imported = [task for task in lost if worker.ledger.task(task) is not None]
    return _kill_here(wiring, imported, note, wait) if imported else []


def _context_factory(wiring: Wiring) -> Callable[[], ThreadContext]:
    """Return the factory of each thread's worker and person.

    Both have connections of their own.
    """

    def new_context() -> ThreadContext:
        own = wiring.for_thread()
        return ThreadContext(_worker_of(own), own.person)

    return new_context


def _worker_of(wiring: Wiring) -> WorkerContext:
    """Return the worker, also where the ledger cannot be written.

    Then it has no registered session: access has to be revoked anyway.
    """
    try:
        return wiring.worker
    except LedgerUnavailable:
        return wiring.worker_without_session


def _kill_there(wiring: Wiring, tasks: Sequence[str], note: str, wait: float) -> list[Result]:
    """Sign the end of each task, and wait until a worker has ended them."""
    unsigned: dict[str, JitvaultError] = {}
    for task in tasks:
        error = _sign_end(wiring, task, note)
        if error is not None:
            unsigned[task] = error
    if len(unsigned) < len(tasks):
        waits(f"The end of {counted(len(tasks) - len(unsigned), 'task')} is signed. A worker revokes the access.")
    waiting = Wait(wiring, wait, poll_s=0.5)
    progress = Progress()
    done: dict[str, State] = {}
    seen: dict[str, PublishedTask] = {}
    while True:
        for task in tasks:
            document = seen[task] = session.known(wiring, task)
            if document.state in session.DONE:
                done[task] = document.state
        final = len(done) == len(tasks) or waiting.is_over
        progress("confirmed", len(done), len(tasks), final=final)
        if final:
            break
        waiting.rest()
    late = session.nobody_acted(wiring, f"no worker has done this within {wait:g} s")
    missed = {task: unsigned.get(task) or _why_missed(wiring, seen[task], late) for task in tasks if task not in done}
    return [
        Result(task, done.get(task), missed.get(task), not_proven=not_proven(one), target_asked=_target_asked(one))
        for task, one in ((task, seen[task]) for task in tasks)
    ]


def _why_missed(wiring: Wiring, document: PublishedTask, late: JitvaultError) -> JitvaultError:
    """Return why a task is not done.

    No worker began, or one revoked what it could, and the proof is missing.
    """
    return why_unfinished(wiring, document, late) if document.proof else late


def _target_asked(document: PublishedTask) -> bool | None:
    return document.proof.target_asked if document.proof is not None else None


def _sign_end(wiring: Wiring, task: str, note: str) -> JitvaultError | None:
    """Sign the end of a task, and return the error where that failed.

    It is not raised, because the other tasks have to end anyway.
    """
    try:
        sign_end_of(wiring, task, EndReason.OPERATOR, note)
    except JitvaultError as error:
        return error
    return None


class Progress:
    """Prints progress to stderr.

    On a terminal it is one line that is overwritten, else one line at the end of each part.
    """

    def __call__(self, what: str, done: int, of: int, *, final: bool = False) -> None:
        if not of:
            return
        line = f"{done} of {of} tasks: {what}"
        if sys.stderr.isatty():
            # a whole line is printed with control characters escaped, and this one has some
            note(f"\r{line}\x1b[K", nl=False)
            if final:
                note("")
        elif final:
            note(line)


def _raise_for(results: Sequence[Result]) -> None:
    counted = [result for result in results if not result.ended_earlier]
    unproven = [result for result in counted if not result.confirmed]
    if not unproven:
        return
    task = unproven[0].task_id
    message = f"{len(unproven)} of {len(counted)} tasks are not proven to be revoked: {task}"
    if len(unproven) > 1:
        message += f" and {len(unproven) - 1} more"
    hint = (
        "Repair what is named at the target, not in Vault: after a write to the engine's role or connection the end "
        "cannot be proven. Then run the same command again: it continues with the rest. "
        f"`jitvault status {task}` shows the check that failed. If an end can never be proven, "
        f"`jitvault revoke {task} --force --reason WHY` closes the task without proof."
    )
    error = next((result.error for result in unproven if result.error is not None), None)
    if error is None:
        raise NotConfirmed(message, hint=hint)
    # what the ledger does not have, or no worker has ended, needs another remedy than what Vault could not end
    own = isinstance(error, SecurityFinding | NoWorkerActed) or (len(unproven) == 1 and error.has_own_hint)
    raise error_like(error, f"{message}: {error}", hint=error.hint if own else hint)
