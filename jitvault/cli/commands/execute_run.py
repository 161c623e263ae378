"""Run a program with a task's access, and watch the task meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from jitvault.agent.credential import secrets_of
from jitvault.agent.execution import mapping
from jitvault.agent.execution.context_file import VARIABLE, context_text
from jitvault.agent.execution.monitor import Kept, Program
from jitvault.agent.execution.run import Outcome, StopRule
from jitvault.agent.execution.run import run as run_program
from jitvault.agent.execution.secret_files import secret_files
from jitvault.agent.execution.streams import opened
from jitvault.agent.execution.task_watch import TaskWatch
from jitvault.agent.masking import Masker
from jitvault.cli import session
from jitvault.cli.commands.execute_steps import CONTINUE
from jitvault.cli.commands.held_access import Access, say
from jitvault.cli.views.task import end_in_words
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError, NotConfirmed, UsageError, VaultRefused, WrongState
from jitvault.wiring import Wiring

_OVER = "`jitvault status TASK` shows who or what ended it. Ask for a task with another id."


def run(
    access: Access, command: Sequence[str], inherited: Mapping[str, str], *, is_masked: bool, stop: StopRule
) -> int:
    """Run the program; `command` is its path and then its arguments.

    Return the exit code of `jitvault exec`. Raises WrongState where the task was over before, NotConfirmed where the
    monitor was killed, UsageError for a program that cannot be run.
    """
    environment = {**inherited, **_given(access)}
    if access.wanted.is_empty:
        say("warning: without --env, --file and --preset the program gets no credential")
    masker = _masker(access).stream if is_masked else None
    watch = watch_of(access)
    with opened(masker) as streams:
        program = Program(command[0], command[1:], environment, has_terminal=streams.has_terminal)
        outcome = run_program(access.monitor, program, streams, watch, stop)
        watch.stop()
        access.note = f"the program ended with exit code {outcome.code}"
        why = _over_meanwhile(access) if outcome.code and not outcome.over and not outcome.not_started else ""
        # whoever reads the output may take their time: the access does not wait for them
        access.give_back()
        streams.finish()
    _check(outcome, access)
    if why:
        raise WrongState(
            f"the program ended with exit code {outcome.code}, and task {access.document.task_id} is over: {why}",
            hint=_OVER,
        )
    access.check_given_back()
    return outcome.code


def _given(access: Access) -> dict[str, str]:
    """Return the variables of the program, after its files were written.

    Without a file system in memory there is no file for a model either, which is no reason not to start.
    """
    filled = mapping.filled(access.wanted, access.credentials)
    names = {*filled.variables, *filled.files}
    context = context_text(access.document.full_revision, access.ends_at, names)
    try:
        access.files = secret_files(os.environ)
    except UsageError:
        if filled.files:
            raise
        return dict(filled.variables)
    kept = Kept(access.document.task_id, access.token.token.reveal(), str(access.files.directory))
    access.monitor.clean_up_later(kept)
    written = {name: str(access.files.write(name, data)) for name, data in filled.files.items()}
    written[VARIABLE] = str(access.files.write("context.md", context.encode()))
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
    """Return why a task is over by what is published, "" while it is not."""
    if document.state not in session.DONE | session.ENDING:
        return ""
    why = f" ({end_in_words(document.end_reason, document.ended)})" if document.end_reason else ""
    return f"it is {document.state.value}{why}"


def _over_meanwhile(access: Access) -> str:
    """Return why the task was over when the program ended, "" if it was not.

    A program whose session the end of the task closed may be faster than whoever watches the task.
    """
    with suppress(JitvaultError):
        document = session.published(access.wiring, access.document.task_id)
        if isinstance(document, PublishedTask) and (end := _end_of(document)):
            return end
    try:
        access.wiring.vault(access.token.token).read("auth/token/lookup-self")
    except VaultRefused:
        return "Vault does not accept its token any more"
    except JitvaultError:
        pass
    return ""


def watch_of(access: Access, moved: Callable[[datetime], None] | None = None) -> TaskWatch:
    """Return what notices that the task is over.

    `moved` is called with the new deadline where the task gets more time with the same token. Another token is the end
    of this access, and not of the task.
    """
    # clients of Vault are one thread's alone; the login is shared
    other = Wiring(access.wiring.settings)
    other.person_token = access.wiring.person_token
    task = access.document.task_id
    own = other.vault(access.token.token)

    def published_end() -> str | None:
        document = session.published(other, task)
        if not isinstance(document, PublishedTask):
            return None
        if end := _end_of(document):
            return end
        if access.is_replaced_in(document):
            return "more time for it came with another token, which this process does not have"
        if document.grant_id == access.token.grant_id:
            follow(document.ends_at)
        return None

    def follow(ends_at: datetime | None) -> None:
        if ends_at is not None and ends_at != access.ends_at:
            access.ends_at = ends_at
            watch.move_end(ends_at)
            if moved is not None:
                moved(ends_at)

    window = access.document.full_revision.spec.spec.window
    watch = TaskWatch(
        published_end=published_end,
        beat=lambda: own.read("auth/token/lookup-self"),
        heartbeat_s=window.heartbeat.total_seconds() if window.heartbeat else None,
        ends_at=access.ends_at,
    )
    return watch


def _check(outcome: Outcome, access: Access) -> None:
    """Raise for a program that did not start, and for one that was ended."""
    task = access.document.task_id
    if outcome.not_started:
        raise UsageError(f"the program cannot be run: {os.strerror(outcome.not_started)}", hint=CONTINUE)
    if outcome.monitor_died:
        raise NotConfirmed(
            f"the process that watches over the program of task {task} was killed, and the program with it",
            hint="The access is given back. Ask for a task with another id.",
        )
    if outcome.over:
        raise WrongState(
            f"the program was stopped, because task {task} is over: {outcome.over}",
            hint=_OVER,
        )
