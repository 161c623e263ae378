"""Ask for a task and take its access, for `exec` and `hold`.

`execute_run.py` runs a program with the access, and `held_access.py` gives it back.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta

import typer

from jitvault.agent.execution import mapping
from jitvault.agent.execution.allowed_program import check_program, check_spec_names
from jitvault.agent.execution.monitor import Kept, Monitor
from jitvault.agent.opened_wrappings import locked_record, state_directory
from jitvault.agent.unwrap import TaskToken, read_all
from jitvault.cli import session
from jitvault.cli.commands.grant import raise_for
from jitvault.cli.commands.grant_wait import request_grant
from jitvault.cli.commands.held_access import Access, say, signed_tools
from jitvault.cli.commands.spec_file import read_spec
from jitvault.cli.commands.submission import is_spec, submit_spec
from jitvault.cli.commands.wrapping_source import Given, given
from jitvault.cli.commands.wrapping_source import opened as opened_wrapping
from jitvault.cli.options import set_made_task
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError, OutcomeUnknown, UsageError, WrongState
from jitvault.formats.shorten import one_line
from jitvault.model.connection import CredentialUse
from jitvault.model.spec import TaskSpec
from jitvault.wiring import Wiring

# of a spec that names none: how long the access outlives both processes of `jitvault exec`, killed at once
HEARTBEAT = timedelta(seconds=15)
CONTINUE = "Nothing was started."


def requested(
    context: typer.Context,
    wiring: Wiring,
    what: str,
    program: Sequence[str] | None,
    wanted: mapping.Wanted,
    *,
    wait: float,
    task_id: str | None = None,
) -> str:
    """Return the task, once it is granted.

    It is `what` itself, or the task that the spec asks for, with `task_id` in place of the spec's id. `program` has the
    program's names; with None none is checked. Raises UsageError for a spec on standard input, which is the program's,
    and for the id of a task that has one, InvalidInput for a program and a mapping that the task will not have, and
    what a grant raises.
    """
    if not is_spec(what):
        if task_id is not None:
            raise UsageError("--id names the task of a SPEC, and TASK has its id", hint=CONTINUE)
        return what
    if what == "-":
        raise UsageError("standard input is the program's, so the spec cannot come from there", hint="Name a file.")
    # before anything is asked for
    asked = read_spec(wiring, what, task_id).spec
    if program is not None:
        check_spec_names(asked.spec.tools, program)
    mapping.check_names(wanted, _uses_in(asked))
    spec = submit_spec(context, wiring, what, task_id, revise=False, as_json=False, heartbeat=HEARTBEAT)
    request, document = request_grant(wiring, spec, queue=False, wait=wait, tell=say)
    request.check_not_refused(document)
    raise_for(document, waited=wait)
    # whatever happens from here on ends the task, and nobody can go on with it
    set_made_task(context, None)
    return spec.id


def _uses_in(spec: TaskSpec) -> list[CredentialUse]:
    """Return what the names of the task's credentials are made of."""
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
    with ExitStack() as stack:
        with locked_record(taken.token, state_directory(os.environ), say) as record:
            token = _unwrapped(wiring, taken, document.task_id, monitor)
            access = Access(wiring, document, token, (), wanted, monitor, ends_at=token.ends_at)
            # from here on it is given back: by this process whatever is raised, and by the monitor if this process dies
            stack.callback(access.give_back)
            monitor.clean_up_later(Kept(document.task_id, token.token.reveal()))
            record.keep(token.task_id, vault.connection.address)
        access.is_replaced_in(document)
        with suppress(JitvaultError):
            wiring.person.documents.destroy(taken.inbox)
        access.credentials = list(read_all(vault, token))
        yield access


def _unwrapped(wiring: Wiring, taken: Given, task: str, monitor: Monitor) -> TaskToken:
    """Unwrap the task's token.

    Vault may answer when this process is dead already, or its answer may be lost. Nobody has the token then, and the
    monitor signs the task's end. Raises what `wrapping_source.opened` raises.
    """
    monitor.clean_up_later(Kept(task))
    try:
        return opened_wrapping(wiring, taken)
    except OutcomeUnknown as error:
        hint = f"{CONTINUE} Task {task} is being ended. Ask for a task with another id."
        raise OutcomeUnknown(str(error), hint=hint) from None
    except JitvaultError:
        monitor.clean_up_later(None)
        raise


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
        say(f"warning: {directory} cannot be written ({error.strerror}): a second process is not noticed")
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                (directory / task).unlink()
            os.close(descriptor)
