"""Run a program with a task's access, and watch the task meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import NoReturn

from jitvault.agent.credential import secrets_of
from jitvault.agent.execution import mapping
from jitvault.agent.execution.context_file import VARIABLE, context_text
from jitvault.agent.execution.monitor import Program
from jitvault.agent.execution.run import Outcome, StopRule
from jitvault.agent.execution.run import run as run_program
from jitvault.agent.execution.secret_files import secret_files
from jitvault.agent.execution.streams import opened
from jitvault.agent.execution.task_watch import CHANGED, POLL_S, TaskWatch
from jitvault.agent.masking import Masker
from jitvault.cli import session
from jitvault.cli.commands.access.execute_steps import CONTINUE, take_next
from jitvault.cli.commands.access.held_access import Access, OtherToken, say, say_beside_program
from jitvault.cli.views.task import end_in_words
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError, NotConfirmed, UsageError, VaultRefused, WrongState, error_like
from jitvault.formats.shorten import quoted
from jitvault.formats.token_pattern import without_tokens
from jitvault.model.states import EndReason, State
from jitvault.wiring import Wiring

# how long after Vault refuses a token the next one is waited for: its leases are proven dead first
NEXT_TOKEN_S = 60.0
_OTHER = "more time for it came with another token, which this process does not have"
_TAKEN = "more time for it came with another token, which another process took"
_LONGEST_NOTE = 200
_OVER = "`jitvault status TASK` shows who or what ended it. Ask for a task with another id."


def run(
    access: Access, command: Sequence[str], inherited: Mapping[str, str], *, is_masked: bool, stop: StopRule
) -> int:
    """Run the program; `command` is its path and then its arguments.

    With an access that takes another token the program is started anew whenever that comes. Return the exit code of
    `jitvault exec`. Raises WrongState where the task was over before, NotConfirmed where the monitor was killed,
    UsageError for a program that cannot be run.
    """
    if access.wanted.is_empty:
        say("warning: without --env, --file and --preset the program gets no credential")
    while True:
        outcome, why = _run_once(access, command, inherited, is_masked=is_masked, stop=stop)
        if not _begins_anew(outcome, why):
            break
        say(f"task {access.document.task_id} has more time and another token: the program is started anew")
        take_next(access)
    if CHANGED in (outcome.over, why) and outcome.was_interrupted:
        outcome, why = replace(outcome, over=""), ""
    _check(outcome, access)
    if why:
        _raise_over(f"the program ended with exit code {outcome.code}, and ", access, why)
    access.check_given_back()
    if access.is_loss_told:
        say(_goes_on(access))
    return outcome.code


def _tell_loss(access: Access) -> None:
    """Say once that the program goes on without access."""
    if access.is_loss_told:
        return
    access.is_loss_told = True
    say_beside_program(
        f"task {access.document.task_id} has more time, with another token: the program goes on without access, since "
        "what it was given is revoked. --on-change restart starts a program anew with the next token"
    )


def _goes_on(access: Access) -> str:
    """Return that the task outlives the program, and who can take its token."""
    document = access.document
    task = document.task_id
    until = f" until {access.ends_at:%Y-%m-%d %H:%M:%S} UTC" if access.ends_at is not None else ""
    holder = document.full_revision.content["agent" if document.is_for_agent else "requester"]["name"]
    return (
        f"task {task} goes on{until}: {holder} takes its other token with `jitvault exec {task} -- CMD`; `jitvault "
        f"complete {task}` ends it"
    )


def _run_once(
    access: Access, command: Sequence[str], inherited: Mapping[str, str], *, is_masked: bool, stop: StopRule
) -> tuple[Outcome, str]:
    """Run the program to its end.

    Return how it ended, and why the task was over then, "" if it was not. Either is CHANGED where the program is to be
    started anew. Otherwise the access is given back.
    """
    try:
        environment = {**inherited, **_given(access)}
    except JitvaultError as error:
        access.give_back()
        raise error_like(error, str(error), hint=f"{error.hint} {_after_taking(access)}") from None
    masker = _masker(access).stream if is_masked else None
    watch = watch_of(access)
    with opened(masker) as streams:
        program = Program(command[0], command[1:], environment, has_terminal=streams.has_terminal)
        outcome = run_program(access.monitor, program, streams, watch, stop)
        watch.stop()
        access.note = f"the program ended with exit code {outcome.code}"
        why = _over_meanwhile(access) if _is_unexplained(outcome) else ""
        if not _begins_anew(outcome, why):
            # whoever reads the output may take their time: the access does not wait for them
            access.give_back()
        streams.finish()
    return outcome, why


def _after_taking(access: Access) -> str:
    """Return what became of an access that was taken and used by no program."""
    if access.is_given_back:
        return "The access was taken and is given back. Ask for a task with another id."
    return "The access was taken, and a process in the background goes on trying to give it back."


def _is_unexplained(outcome: Outcome) -> bool:
    """Return whether the end of the task may be why the program failed."""
    return bool(outcome.code) and not (outcome.over or outcome.not_started or outcome.monitor_died)


def _begins_anew(outcome: Outcome, why: str) -> bool:
    """Return whether the program is to be started with another token.

    Whoever asked this process to end meanwhile does not want it to go on.
    """
    return CHANGED in (outcome.over, why) and not (outcome.monitor_died or outcome.was_interrupted)


def _given(access: Access) -> dict[str, str]:
    """Return the variables of the program, after its files were written.

    Without a file system in memory, or where it is full, there is no file for a model, which is no reason not to start.
    """
    filled = mapping.filled(access.wanted, access.credentials)
    names = {*filled.variables, *filled.files}
    context = context_text(access.document.full_revision, access.ends_at, names)
    try:
        access.files = secret_files(os.environ)
        access.monitor.clean_up_later(access.kept)
        written = {name: str(access.files.write(name, data)) for name, data in filled.files.items()}
        written[VARIABLE] = str(access.files.write("context.md", context.encode()))
    except UsageError:
        if filled.files:
            raise
        return dict(filled.variables)
    return {**filled.variables, **written}


def _masker(access: Access) -> Masker:
    """Return what replaces the task's secrets.

    Those that are too short for that are named to the user.
    """
    masker = Masker([*secrets_of(access.credentials), ("task", "token", access.token.token.reveal())])
    if masker.unmasked:
        say(f"warning: too short to be masked: {', '.join(masker.unmasked)}")
    return masker


def _end_of(document: PublishedTask) -> str:
    """Return why a task is over by what is published, "" while it is not.

    The program and its model read it: who revoked the task is quoted, on one line.
    """
    if document.state not in session.DONE | session.ENDING:
        return ""
    reason, ended = document.end_reason, document.ended
    if not reason:
        return f"it is {document.state.value}"
    words = end_in_words(reason, ended)
    if reason == EndReason.OPERATOR and ended is not None and ended["note"]:
        words += f": {quoted(without_tokens(ended['note']), _LONGEST_NOTE)}"
    return f"it is {document.state.value} ({words})"


def _over_meanwhile(access: Access) -> str:
    """Return why the task was over when the program ended, "" if it was not.

    A program whose session the end of the task closed may be faster than whoever watches the task. So may one whose
    access ends because another token comes, which is waited for where it is to be taken.
    """
    refused = "Vault does not accept its token any more"
    waits_until = time.monotonic() + (NEXT_TOKEN_S if access.on_other is OtherToken.TAKE else 0)
    while True:
        with suppress(JitvaultError):
            document = session.published(access.wiring, access.document.task_id)
            if isinstance(document, PublishedTask):
                end = _end_of(document) or _by_other_token(access, access.wiring, document)
                if end:
                    return end
        if not access.is_replaced and _accepts(access):
            return ""
        if time.monotonic() >= waits_until:
            return _OTHER if access.is_replaced else refused
        time.sleep(POLL_S)


def _accepts(access: Access) -> bool:
    """Return whether Vault accepts the task's token, or does not answer."""
    try:
        access.wiring.vault(access.token.token).read("auth/token/lookup-self")
    except VaultRefused:
        return False
    except JitvaultError:
        pass
    return True


def _by_other_token(access: Access, wiring: Wiring, document: PublishedTask) -> str:
    """Return why another token is the end of the access, "" where it is not.

    CHANGED stands for a token that can be taken. `wiring` is the calling thread's.
    """
    if not access.is_replaced_in(document):
        return ""
    if access.on_other is OtherToken.IGNORE:
        _tell_loss(access)
        return ""
    if access.on_other is OtherToken.STOP:
        return _OTHER
    is_next = document.grant_id != access.token.grant_id
    if not is_next or document.state is State.ISSUING:
        return ""
    message = session.inbox(wiring, document)
    if message is not None and message["wrapping"]:
        return CHANGED
    if document.state is not State.ACTIVE:
        return ""
    # whoever has it ends the task
    access.on_other = OtherToken.STOP
    return _TAKEN


def watch_of(access: Access, moved: Callable[[datetime], None] | None = None) -> TaskWatch:
    """Return what notices that the task is over.

    `moved` is called with the new deadline where the task gets more time. `access.on_other` says what another token
    means; that Vault refuses this one may be the first sign of it.
    """
    # clients of Vault are one thread's alone; the login is shared
    other = Wiring(access.wiring.settings)
    other.person_token = access.wiring.person_token
    task = access.document.task_id
    own, grant = other.vault(access.token.token), access.token.grant_id

    def published_end() -> str | None:
        document = session.published(other, task)
        # an answer that comes when the next token is held already says nothing of that one
        if not isinstance(document, PublishedTask) or access.token.grant_id != grant:
            return None
        if end := _end_of(document):
            return end
        if over := _by_other_token(access, other, document):
            return over
        if access.is_replaced or document.grant_id == access.token.grant_id:
            follow(document.ends_at)
        return None

    def beat() -> None:
        # a token that was replaced is dead, and asking with it would be a use after its end
        if not access.is_replaced:
            own.read("auth/token/lookup-self")

    def follow(ends_at: datetime | None) -> None:
        if ends_at is not None and ends_at != access.ends_at:
            access.ends_at = ends_at
            watch.move_end(ends_at)
            if moved is not None:
                moved(ends_at)

    window = access.document.full_revision.spec.spec.window
    watch = TaskWatch(
        published_end=published_end,
        beat=beat,
        heartbeat_s=window.heartbeat.total_seconds() if window.heartbeat else None,
        ends_at=access.ends_at,
        patience_s=0 if access.on_other is OtherToken.STOP else NEXT_TOKEN_S,
    )
    return watch


def _check(outcome: Outcome, access: Access) -> None:
    """Raise for a program that did not start, and for one that was ended."""
    task = access.document.task_id
    if outcome.not_started:
        raise UsageError(
            f"the program cannot be run: {os.strerror(outcome.not_started)}", hint=f"{CONTINUE} {_after_taking(access)}"
        )
    if outcome.monitor_died:
        raise NotConfirmed(
            f"the process that watches over the program of task {task} was killed, and the program with it",
            hint="The access is given back. Ask for a task with another id.",
        )
    if outcome.over:
        _raise_over("the program was stopped, because ", access, outcome.over)


def _raise_over(what: str, access: Access, why: str) -> NoReturn:
    """Raise WrongState that says why the access is over, or the task.

    `what` says what became of the program; that of `jitvault mcp` is its own, and nobody there knows of it.
    """
    task = access.document.task_id
    what = "" if access.wanted.has_all else what
    if why not in (CHANGED, _OTHER, _TAKEN):
        raise WrongState(f"{what}task {task} is over: {why}", hint=_OVER)
    raise WrongState(
        f"{what}its access is over: more time for task {task} came with another token"
        + (", which another process took" if why == _TAKEN else ""),
        hint=f"The task goes on. `jitvault status {task}` says who has its token; one that waits in your inbox is "
        f"taken by `jitvault exec {task} -- CMD`. With --on-change restart that is done by itself.",
    )
