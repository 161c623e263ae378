"""The kill switch at the command line: `revoke` for a scope of tasks instead of one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from jitvault.cli.session import Published
    from jitvault.context import WorkerContext
    from jitvault.errors import JitvaultError
    from jitvault.kill_switch.kill import Result
    from jitvault.kill_switch.pool import ThreadContext
    from jitvault.model.scope import Scope
    from jitvault.wiring import Wiring

_POLL_S = 0.5


def revoke_scope(scope: Scope, *, note: str, yes: bool, freeze: bool, wait: float, as_json: bool) -> None:
    """End every task of a scope and print how each came out. Raises the first failure, after all."""
    from jitvault.cli import session
    from jitvault.cli.views import tables as listings
    from jitvault.documents.signed import check_note
    from jitvault.errors import JitvaultError, UsageError
    from jitvault.kill_switch.kill import check_known, published_but_unknown, unreadable
    from jitvault.lifecycle.requests.sign import sign_freeze

    if not check_note(note):
        raise UsageError("revoke needs --reason WHY here", hint="It is kept in the record of every task that is ended.")
    wiring = session.open_session()
    tasks = _in_scope(wiring, scope)
    check_known(scope, scope.is_all or bool(tasks) or is_known(wiring, scope))
    if not yes:
        session.ask(_question(tasks, everything=scope.is_all and wiring.has_worker), done="nothing was revoked")
    if freeze:
        with session.signing(f"freeze {scope}", "operators"):
            sign_freeze(wiring.person, scope, freezes=True, reason=note)
    failure = _revoke_roles(wiring, tasks) if scope.is_all else None
    end = _kill_here if wiring.has_worker else _kill_there
    results: list[Result] = []
    try:
        for some in _rounds(wiring, scope, tasks, wait):
            results += end(wiring, some, note, wait)
        if wiring.has_worker:
            results += published_but_unknown(_worker_of(wiring), scope, results)
        else:
            results += [unreadable(name) for name, said in _published(wiring, scope).items() if said is None]
    except JitvaultError as error:
        # what came of the others is told all the same
        failure = failure or error
    listings.killed(results, as_json=as_json)
    _raise_for(results)
    if failure is not None:
        raise failure


def _rounds(wiring: Wiring, scope: Scope, tasks: Sequence[str], wait: float) -> Iterator[Sequence[str]]:
    """First `tasks`, then what was granted meanwhile, until that is nothing or the time is over."""
    deadline, known = time.monotonic() + wait, set(tasks)
    yield tasks
    while more := sorted(set(_in_scope(wiring, scope)) - known):
        known.update(more)
        yield more
        if time.monotonic() >= deadline:
            return


def _question(tasks: Sequence[str], *, everything: bool) -> str:
    named = ", ".join(tasks[:5]) + (f" and {len(tasks) - 5} more" if len(tasks) > 5 else "")
    what = f"End {len(tasks)} tasks ({named})" if tasks else "The ledger has no task of it that holds access; go on"
    return f"{what}, and every token of our roles in Vault?" if everything else f"{what}?"


def _in_scope(wiring: Wiring, scope: Scope) -> list[str]:
    from jitvault.cli import session
    from jitvault.kill_switch.kill import check_operator, in_scope

    if wiring.has_worker:
        check_operator(_worker_of(wiring), wiring.person)
        return in_scope(_worker_of(wiring), scope)
    living = session.GRANTED | session.ENDING
    return sorted(name for name, said in _published(wiring, scope).items() if said and said["state"] in living)


def is_known(wiring: Wiring, scope: Scope) -> bool:
    """Whether any task was ever covered by the scope, as far as one can see from here."""
    from jitvault.kill_switch.kill import was_known

    if wiring.has_worker:
        return was_known(_worker_of(wiring), scope)
    return any(_published(wiring, scope).values())


def _published(wiring: Wiring, scope: Scope) -> dict[str, Published | None]:
    """What is published of the tasks of a scope; None where nobody can read whether it is one."""
    from jitvault.cli import session
    from jitvault.cli.views.task import revision_of
    from jitvault.errors import CORRUPT_RECORD_ERRORS

    found: dict[str, Published | None] = {}
    for name in wiring.person.documents.names("tasks/"):
        try:
            said = session.published(wiring, name)
            if said and said["state"] != "refused" and scope.covers(revision_of(said).content):
                found[name] = said
        except CORRUPT_RECORD_ERRORS:
            found[name] = None
    return found


def _revoke_roles(wiring: Wiring, tasks: Sequence[str]) -> JitvaultError | None:
    """Have every token of our roles ended; gives what kept one from it."""
    from jitvault.errors import JitvaultError, NotConfirmed
    from jitvault.kill_switch.roles import look_first, revoke_roles

    if not wiring.has_worker:
        said = "the tokens of our roles that belong to no task were NOT revoked: that needs the worker's identity"
        typer.echo(said, err=True)
        return NotConfirmed(
            said,
            hint="Run it where the worker's identity is set (a token, its file, or JITVAULT_WORKER_LOGIN), or "
            "see docs/operations/break-glass.md.",
        )
    look_first(_hire(wiring), tasks)
    try:
        roles = revoke_roles(_worker_of(wiring))
    except JitvaultError as error:
        typer.echo(f"not every role could be revoked as a whole: {error}", err=True)
        return error
    typer.echo(f"every token of our {roles} roles is revoked; Vault goes on with their leases", err=True)
    return None


def _kill_here(wiring: Wiring, tasks: Sequence[str], note: str, wait: float) -> list[Result]:
    """With the worker's identity: at once, a few tasks at a time."""
    from jitvault.kill_switch.ended_before import ended_earlier
    from jitvault.kill_switch.kill import kill

    earlier = ended_earlier(_worker_of(wiring), tasks)
    return kill(_hire(wiring), tasks, note=note, wait=wait, tell=_Progress(), earlier=earlier)


def _hire(wiring: Wiring) -> Callable[[], ThreadContext]:
    from jitvault.kill_switch.pool import ThreadContext

    def hire() -> ThreadContext:
        own = wiring.for_thread()
        return ThreadContext(_worker_of(own), own.person)

    return hire


def _worker_of(wiring: Wiring) -> WorkerContext:
    """The worker, also where the ledger takes no word of it: access is taken away all the same."""
    from jitvault.errors import LedgerUnavailable

    try:
        return wiring.worker
    except LedgerUnavailable:
        return wiring.nameless_worker


def _kill_there(wiring: Wiring, tasks: Sequence[str], note: str, wait: float) -> list[Result]:
    """Ask for the end of each, and wait for a worker."""
    from jitvault.cli import session
    from jitvault.cli.views.task import not_proven
    from jitvault.errors import WaitTimedOut
    from jitvault.kill_switch.kill import Result
    from jitvault.model.states import State

    unsigned = {task: error for task in tasks if (error := _unsigned(wiring, task, note))}
    deadline = time.monotonic() + wait
    tell, done, left = _Progress(), dict[str, State](), dict[str, Sequence[str]]()
    while True:
        for task in tasks:
            document = session.known(wiring, task)
            left[task] = not_proven(document)
            if (state := State(document["state"])) in session.DONE:
                done[task] = state
        final = len(done) == len(tasks) or time.monotonic() >= deadline
        tell("proven", len(done), len(tasks), final=final)
        if final:
            break
        time.sleep(_POLL_S)
    late = WaitTimedOut(f"no worker has done this within {wait:g} s")
    missed = {task: unsigned.get(task, late) for task in tasks if task not in done}
    return [Result(task, done.get(task), missed.get(task), not_proven=left[task]) for task in tasks]


def _unsigned(wiring: Wiring, task: str, note: str) -> JitvaultError | None:
    """Ask for the end of a task; gives what kept us from it, which must not keep the others alive."""
    from jitvault.cli import session
    from jitvault.errors import JitvaultError
    from jitvault.lifecycle.requests.sign import sign_end
    from jitvault.model.states import EndReason

    try:
        with session.signing(f"end task {task}", "operators and the task's agent"):
            sign_end(wiring.person, task, reason=EndReason.OPERATOR, note=note)
    except JitvaultError as error:
        return error
    return None


class _Progress:
    """How far it is, on stderr: one line that is written over on a terminal, else one at the end of each part."""

    def __call__(self, what: str, done: int, of: int, *, final: bool = False) -> None:
        if not of:
            return
        line = f"{done} of {of} tasks: {what}"
        if sys.stderr.isatty():
            typer.echo(f"\r{line}\x1b[K", nl=final, err=True)
        elif final:
            typer.echo(line, err=True)


def _raise_for(results: Sequence[Result]) -> None:
    from jitvault.errors import NotConfirmed, SecurityFinding, error_like

    counted = [result for result in results if not result.ended_earlier]
    left = [result for result in counted if not result.proven]
    if not left:
        return
    said = f"{len(left)} of {len(counted)} tasks are not proven dead: {left[0].task_id}" + (
        f" and {len(left) - 1} more" if len(left) > 1 else ""
    )
    task = left[0].task_id
    hint = (
        "Mend what is named at the target (a write to its engine's role or connection in Vault would cost the proof), "
        f"then run the same command again: it goes on with the rest. `jitvault status {task}` shows the check that "
        f"failed; what can never be proven `jitvault revoke {task} --force --reason WHY` closes without proof."
    )
    error = next((result.error for result in left if result.error is not None), None)
    if error is None:
        raise NotConfirmed(said, hint=hint)
    # what the ledger does not have this command cannot go on with
    raise error_like(error, f"{said}: {error}", hint=error.hint if isinstance(error, SecurityFinding) else hint)
