"""Run a program with a task's access, anew with each other token."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from jitvault.agent.credential import secrets_of
from jitvault.agent.execution import mapping
from jitvault.agent.execution.context_file import VARIABLE, context_text
from jitvault.agent.execution.monitor_messages import Program
from jitvault.agent.execution.run import Outcome, StopRule
from jitvault.agent.execution.run import run as run_program
from jitvault.agent.execution.secret_files import secret_files
from jitvault.agent.execution.streams import opened
from jitvault.agent.execution.task_watch import AccessEnd, Cause
from jitvault.agent.masking import Masker
from jitvault.cli.access.access_watch import over_error, over_meanwhile, watch_of
from jitvault.cli.access.execute_steps import CONTINUE, take_next
from jitvault.cli.access.held_access import Access
from jitvault.cli.views.output import warn
from jitvault.errors import JitvaultError, NotConfirmed, UsageError, error_like


def run(
    access: Access, command: Sequence[str], inherited: Mapping[str, str], *, is_masked: bool, stop: StopRule
) -> int:
    """Run the program; `command` is its path and then its arguments.

    With an access that takes another token the program is started anew whenever that comes. Return the exit code of
    `jitvault exec`. Raises WrongState where the task was over before, NotConfirmed where the monitor was killed,
    UsageError for a program that cannot be run.
    """
    if access.wanted.is_empty:
        warn("warning: without --env, --file and --preset the program gets no credential")
    while True:
        outcome, end = _run_once(access, command, inherited, is_masked=is_masked, stop=stop)
        if not _begins_anew(outcome, end):
            break
        warn(f"task {access.document.task_id} has more time and another token: the program is started anew")
        take_next(access)
    if _has_changed(outcome, end) and outcome.was_interrupted:
        outcome = replace(outcome, over=None)
        end = None
    _check(outcome, access)
    if end:
        raise over_error(access, end, _of_program(access, f"the program ended with exit code {outcome.code}, and "))
    access.check_given_back()
    if access.is_loss_told:
        warn(_goes_on(access))
    return outcome.code


def _goes_on(access: Access) -> str:
    """Return that the task outlives the program, and who can take its token."""
    document = access.document
    task = document.task_id
    until = f" until {access.ends_at:%Y-%m-%d %H:%M:%S} UTC" if access.ends_at is not None else ""
    holder = document.full_revision.recipient.name
    return (
        f"task {task} goes on{until}: {holder} takes its other token with `jitvault exec {task} -- CMD`; `jitvault "
        f"complete {task}` ends it"
    )


def _run_once(
    access: Access, command: Sequence[str], inherited: Mapping[str, str], *, is_masked: bool, stop: StopRule
) -> tuple[Outcome, AccessEnd | None]:
    """Run the program to its end.

    Return how it ended, and why the task was over then, None if it was not. Unless the program is to be started anew
    the access is given back.
    """
    try:
        environment = _environment(access, inherited)
    except JitvaultError as error:
        access.give_back()
        raise error_like(error, str(error), hint=f"{error.hint} {_after_taking(access)}") from None
    masker = _masker(access).stream if is_masked else None
    watch = watch_of(access)
    with opened(masker) as streams:
        program = Program(
            command[0], command[1:], environment, has_terminal=streams.has_terminal, descriptors=access.passed
        )
        outcome = run_program(access.monitor, program, streams, watch, stop)
        watch.stop()
        stopped = "was stopped, because its access was over, and " if outcome.over else ""
        access.note = f"the program {stopped}ended with exit code {outcome.code}"
        end = over_meanwhile(access) if _is_unexplained(outcome) else None
        if not _begins_anew(outcome, end):
            # whoever reads the output may take their time: the access does not wait for them
            access.give_back()
        streams.finish()
    return outcome, end


def _after_taking(access: Access) -> str:
    """Return what became of an access that was taken and used by no program."""
    if access.is_given_back:
        return "The access was taken and is given back. Ask for a task with another id (`--id ID`)."
    going_on = "a process in the background goes on trying to give it back"
    if not access.monitor.is_alive:
        going_on = f"is not given back: `jitvault complete {access.document.task_id}` does it"
    return f"The access was taken, and {going_on}."


def _is_unexplained(outcome: Outcome) -> bool:
    """Return whether the end of the task may be why the program failed."""
    return bool(outcome.code) and not (outcome.over or outcome.not_started or outcome.monitor_died)


def _begins_anew(outcome: Outcome, end: AccessEnd | None) -> bool:
    """Return whether the program is to be started with another token.

    Whoever asked this process to end meanwhile does not want it to go on.
    """
    return _has_changed(outcome, end) and not (outcome.monitor_died or outcome.was_interrupted)


def _has_changed(outcome: Outcome, end: AccessEnd | None) -> bool:
    """Return whether the task goes on with another token that this process can take."""
    return any(each is not None and each.cause is Cause.CHANGED for each in (outcome.over, end))


def _environment(access: Access, inherited: Mapping[str, str]) -> dict[str, str]:
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
        written = {}
    return {**filled.inherits(inherited), **filled.variables, **written}


def _masker(access: Access) -> Masker:
    """Return what replaces the task's secrets.

    Those that are too short for that are named to the user.
    """
    masker = Masker([*secrets_of(access.credentials), ("task", "token", access.token.token.reveal())])
    if masker.unmasked:
        warn(f"warning: too short to be masked: {', '.join(masker.unmasked)}")
    return masker


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
            hint=_after_taking(access),
        )
    if outcome.over:
        raise over_error(access, outcome.over, _of_program(access, "the program was stopped, because "))


def _of_program(access: Access, what: str) -> str:
    """Return what became of the program.

    That of `jitvault mcp` is its own, and nobody there knows of it.
    """
    return "" if access.wanted.has_all else what
