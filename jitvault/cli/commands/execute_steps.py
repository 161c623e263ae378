"""The steps of `jitvault exec`: ask, take, run, give back."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import typer

from jitvault.agent.credential import Credential, secrets_of
from jitvault.agent.execution import mapping
from jitvault.agent.execution.allowed_program import check_program
from jitvault.agent.execution.context_file import VARIABLE, context_text
from jitvault.agent.execution.monitor import Kept, Monitor, Program
from jitvault.agent.execution.process_tree import hold_orphans, kill_below
from jitvault.agent.execution.run import Outcome, StopRule
from jitvault.agent.execution.run import run as run_program
from jitvault.agent.execution.secret_files import SecretFiles, secret_files
from jitvault.agent.execution.streams import opened
from jitvault.agent.execution.task_watch import TaskWatch
from jitvault.agent.masking import Masker
from jitvault.agent.opened_wrappings import locked_record, state_directory
from jitvault.agent.unwrap import TaskToken, read_all
from jitvault.cli import session
from jitvault.cli.commands.grant import raise_for
from jitvault.cli.commands.grant_wait import request_grant
from jitvault.cli.commands.spec_file import read_spec
from jitvault.cli.commands.submission import is_spec, submit_spec
from jitvault.cli.commands.wrapping_source import given
from jitvault.cli.commands.wrapping_source import opened as opened_wrapping
from jitvault.cli.folding import for_terminal
from jitvault.cli.options import set_made_task
from jitvault.cli.views.task import end_in_words
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError, NotConfirmed, UsageError, VaultRefused, WrongState
from jitvault.formats.secret import Secret
from jitvault.formats.shorten import one_line
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.memory_protection import keep_private
from jitvault.model.connection import CredentialUse
from jitvault.model.spec import TaskSpec
from jitvault.model.states import DELIVERED_STATES, LIVE_STATES, EndReason
from jitvault.wiring import Wiring

# how long the monitor tries to give the access back where Vault does not answer
_TRY_FOR_S, _TRY_AGAIN_S = 600.0, 1.0
CONTINUE = "Nothing was started."
_OVER = "`jitvault status TASK` shows who or what ended it. Ask for a task with another id."
# of a spec that names none: how long the access outlives both processes of `jitvault exec`, killed at once
HEARTBEAT = timedelta(seconds=15)


@dataclass
class Access:
    """A task's access while its program runs."""

    wiring: Wiring
    document: PublishedTask
    token: TaskToken
    credentials: Sequence[Credential]
    wanted: mapping.Wanted
    monitor: Monitor
    ends_at: datetime | None = None
    files: SecretFiles | None = None
    note: str = "the program did not start"
    is_given_back: bool = False
    is_published: bool = False
    is_replaced: bool = False

    def is_replaced_in(self, document: PublishedTask) -> bool:
        """Return whether the task has, or is getting, another token than this.

        What was published before this token was made says nothing.
        """
        if document.grant_id == self.token.grant_id and document.state in DELIVERED_STATES:
            self.is_published = True
        elif self.is_published and document.state in LIVE_STATES:
            self.is_replaced = True
        return self.is_replaced

    def give_back(self) -> None:
        """Remove the files, revoke the token and sign the task's end, once.

        Where Vault does not answer, the monitor goes on trying after this process.
        """
        if self.is_given_back:
            return
        if self.files is not None:
            self.files.remove()
        if self.is_replaced:
            # a signed end would be that of the task with its next token
            self.is_given_back = _is_revoked(self.wiring, self.token.token)
        else:
            self.is_given_back = give_back(self.wiring, self.document.task_id, self.token.token, self.note)
        if self.is_given_back:
            self.monitor.clean_up_later(None)


@contextmanager
def monitored(wiring: Wiring, command: str = "exec") -> Iterator[Monitor]:
    """Yield the monitor.

    Whatever ends the block, it is told that this process cleaned up. `command` is the command of this process.
    """
    hold_orphans()
    keep_private()

    def give_back_later(kept: Kept, code: int | None) -> None:
        how = "" if code is None else f" and the program ended with exit code {code}"
        tries = int(_TRY_FOR_S / _TRY_AGAIN_S)
        for _ in range(tries):
            token = Secret(kept.token) if kept.token else None
            if give_back(wiring, kept.task, token, f"`jitvault {command}` was killed{how}"):
                return
            time.sleep(_TRY_AGAIN_S)

    monitor = Monitor.fork(give_back_later)
    try:
        yield monitor
    finally:
        monitor.over()
        # orphans of a monitor that was killed
        kill_below(os.getpid(), besides=monitor.pid if monitor.goes_on else None)


def requested(
    context: typer.Context,
    wiring: Wiring,
    what: str,
    program: Sequence[str] | None,
    wanted: mapping.Wanted,
    *,
    wait: float,
) -> str:
    """Return the task, once it is granted.

    It is `what` itself, or the task that the spec asks for. `program` has the program's names; with None none is
    checked. Raises UsageError for a spec on standard input, which is the program's, InvalidInput for a program and a
    mapping that the task will not have, and what a grant raises.
    """
    if not is_spec(what):
        return what
    if what == "-":
        raise UsageError("standard input is the program's, so the spec cannot come from there", hint="Name a file.")
    # before anything is asked for
    asked = read_spec(wiring, what, None).spec
    if program is not None:
        check_program(asked.id, asked.spec.tools, program)
    mapping.check_names(wanted, _uses_in(asked))
    spec = submit_spec(context, wiring, what, None, revise=False, as_json=False, heartbeat=HEARTBEAT)
    request, document = request_grant(wiring, spec, queue=False, wait=wait, tell=_say)
    request.check_not_refused(document)
    raise_for(document, waited=wait)
    # whatever happens from here on ends the task, and nobody can go on with it
    set_made_task(context, None)
    return spec.id


def _uses_in(spec: TaskSpec) -> list[CredentialUse]:
    """Return the credentials that a task with this spec has, as far as their names are made of it."""
    return [CredentialUse(template=each.template, path="-", choices=dict(each.with_)) for each in spec.spec.access]


@contextmanager
def held(
    wiring: Wiring, task: str, program: Sequence[str] | None, wanted: mapping.Wanted, monitor: Monitor
) -> Iterator[Access]:
    """Take the task's token and yield its access.

    `program` has the names of the program that gets it; with None none is checked. The access is given back whatever
    ends the block. Raises InvalidInput for a program that the task may not run and for a mapping that cannot be filled,
    and what unwrapping raises.
    """
    document = session.known(wiring, task)
    if program is not None:
        check_program(task, signed_tools(document), program)
    mapping.check_names(wanted, _uses_in(document.full_revision.spec))
    with _claimed(task):
        yield from _taken(wiring, document, wanted, monitor)


def _taken(wiring: Wiring, document: PublishedTask, wanted: mapping.Wanted, monitor: Monitor) -> Iterator[Access]:
    taken = given(wiring, document.task_id)
    vault = wiring.vault(None)
    # Vault may answer the unwrap when this process is dead already: nobody has the token then, and its end is signed
    monitor.clean_up_later(Kept(document.task_id))
    with locked_record(taken.token, state_directory(os.environ), _say) as record:
        token = opened_wrapping(wiring, taken)
        # from here on the monitor gives it back if this process dies
        kept = Kept(document.task_id, token.token.reveal())
        monitor.clean_up_later(kept)
        record.keep(token.task_id, vault.connection.address)
    access = Access(wiring, document, token, (), wanted, monitor, ends_at=token.ends_at)
    access.is_replaced_in(document)
    try:
        with suppress(JitvaultError):
            wiring.person.documents.destroy(taken.inbox)
        access.credentials = list(read_all(vault, token))
        yield access
    finally:
        access.give_back()


@contextmanager
def _claimed(task: str) -> Iterator[None]:
    """Let no other process of this user take the task meanwhile.

    Raises WrongState that names the process which holds it.
    """
    directory = state_directory(os.environ).parent / "exec"
    descriptor = None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / task, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    except BlockingIOError:
        assert descriptor is not None  # noqa: S101 (for the type checker)
        holder = os.pread(descriptor, 20, 0).decode(errors="replace")
        os.close(descriptor)
        raise WrongState(
            f"task {task} is held by another process, {one_line(holder)}",
            hint=f"{CONTINUE} That process gives the task back when its program ends.",
        ) from None
    except OSError as error:
        _say(f"warning: {directory} cannot be written ({error.strerror}): a second process is not noticed")
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                (directory / task).unlink()
            os.close(descriptor)


def run(
    access: Access, command: Sequence[str], inherited: Mapping[str, str], *, is_masked: bool, stop: StopRule
) -> int:
    """Run the program; `command` is its path and then its arguments.

    Return the exit code of `jitvault exec`. Raises WrongState where the task was over before, NotConfirmed where the
    monitor was killed, UsageError for a program that cannot be run.
    """
    environment = {**inherited, **_given(access)}
    if access.wanted.is_empty:
        _say("warning: without --env, --file and --preset the program gets no credential")
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
    if not access.is_given_back:
        raise NotConfirmed(
            f"the access of task {access.document.task_id} is not given back: Vault does not answer",
            hint="A process in the background goes on trying for ten minutes. `jitvault complete TASK` does it, too.",
        )
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


def give_back(wiring: Wiring, task: str, token: Secret | None, note: str) -> bool:
    """Revoke the task's token with the token itself, and sign the task's end.

    A worker that sees the audit line of the first ends the task; the second also says why. Without a token only the
    second is done. Return whether the token is revoked, or was, since Vault refuses one that it does not know; without
    a token, whether the end is signed.
    """
    is_dead = token is None or _is_revoked(wiring, token)
    is_signed = False
    with suppress(JitvaultError):
        sign_end(wiring.person, task, reason=EndReason.COMPLETED, note=note)
        is_signed = True
    return is_dead if token is not None else is_signed


def _is_revoked(wiring: Wiring, token: Secret) -> bool:
    """Revoke the token with itself; return whether it is revoked, or was."""
    try:
        wiring.vault(token).write("auth/token/revoke-self")
    except VaultRefused:
        pass
    except JitvaultError:
        return False
    return True


def signed_tools(document: PublishedTask) -> list[str]:
    """Return the tools that the task's approvers signed; none for any."""
    return list(document.full_revision.content["spec"]["spec"]["tools"])


def _masker(access: Access) -> Masker:
    """Return what replaces the task's secrets.

    Those that are too short for that are named to the user.
    """
    masker = Masker([*secrets_of(access.credentials), ("task", "token", access.token.token.reveal())])
    if masker.unmasked:
        _say(f"warning: too short to be masked: {', '.join(masker.unmasked)}")
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


def _say(message: str) -> None:
    typer.echo(for_terminal(message, sys.stderr), err=True)
