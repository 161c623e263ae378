"""Ask for a task and take its access, for `exec` and `hold`.

`execute_run.py` runs a program with the access, `access_watch.py` sees its end, and `held_access.py` gives it back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta

import typer

from jitvault.agent.execution import mapping
from jitvault.agent.execution.allowed_program import check_program, check_spec_agent, check_spec_names
from jitvault.agent.execution.monitor import Monitor
from jitvault.agent.execution.monitor_messages import Kept
from jitvault.agent.held_tasks import held_here
from jitvault.agent.opened_wrappings import locked_record, state_directory
from jitvault.agent.unwrap import TaskToken, read_all
from jitvault.cli import inbox, session
from jitvault.cli.access.held_access import Access, signed_tools
from jitvault.cli.access.withdrawal import withdrawn_if_interrupted
from jitvault.cli.access.wrapping_source import Given, from_inbox
from jitvault.cli.access.wrapping_source import opened as opened_wrapping
from jitvault.cli.lookups.own_identity import own_name
from jitvault.cli.options import ending, set_made_task
from jitvault.cli.requests.grant_wait import raise_for, request_grant
from jitvault.cli.requests.spec_file import read_spec
from jitvault.cli.requests.submission import is_spec, submit_spec
from jitvault.cli.views.output import warn
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError, NotConfirmed, NotFound, OutcomeUnknown, SecurityFinding, UsageError
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
    monitor: Monitor,
    *,
    wait: float,
    task_id: str | None = None,
) -> str:
    """Return the task, once it is granted.

    It is `what` itself, or the task that the spec asks for, with `task_id` in place of the spec's id. `program` has the
    program's names; with None none is checked. Ctrl-C meanwhile withdraws the request. Raises UsageError for a spec on
    standard input, which is the program's, and for the id of a task that has one, Denied for a spec of another agent,
    InvalidInput for a program and a mapping that the task will not have, and what a grant raises.
    """
    if not is_spec(what):
        if task_id is not None:
            raise UsageError("--id names the task of a SPEC, and TASK has its id", hint=CONTINUE)
        return what
    if what == "-":
        raise UsageError("standard input is the program's, so the spec cannot come from there", hint="Name a file.")
    # before anything is asked for
    asked = read_spec(wiring, what, task_id).spec
    check_spec_agent(asked, own_name(wiring))
    if program is not None:
        check_spec_names(asked.spec.tools, program)
    mapping.check_uses(wanted, _uses_in(wiring, asked))
    spec = submit_spec(context, wiring, what, task_id, revise=False, heartbeat=HEARTBEAT)
    with withdrawn_if_interrupted(context, wiring, monitor, spec.id):
        request, document = request_grant(wiring, spec, queue=False, wait=wait)
    request.check_not_refused(document)
    raise_for(document, waited=wait)
    # whatever happens from here on ends the task, and nobody can go on with it
    set_made_task(context, None)
    hint = f"What was taken is given back. `jitvault status {spec.id}` shows what became of it."
    ending(context).interrupt_hint = hint
    return spec.id


def _uses_in(wiring: Wiring, spec: TaskSpec) -> list[CredentialUse]:
    """Return where the task's credentials will be used, by the templates here.

    On an agent's host these are the worker's.
    """
    found = []
    for each in spec.spec.access:
        choices = dict(each.with_)
        facts = wiring.templates[each.template].spec.fill_connection(choices)
        found.append(CredentialUse(template=each.template, path="-", choices=choices, connection=facts))
    return found


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
    mapping.check_uses(wanted, document.full_revision.uses)
    with held_here(task, warn):
        yield from _taken(wiring, document, wanted, monitor)


def _taken(wiring: Wiring, document: PublishedTask, wanted: mapping.Wanted, monitor: Monitor) -> Iterator[Access]:
    taken = from_inbox(wiring, document.task_id)
    if not monitor.is_alive:
        raise NotConfirmed(
            "the process that gives the access back in any case was killed",
            hint=f"{CONTINUE} Nothing was taken: `jitvault exec {document.task_id} -- CMD` can go on.",
        )
    with ExitStack() as stack:
        with _opened(wiring, taken, document.task_id, monitor) as token:
            access = Access(wiring, document, token, (), wanted, monitor, ends_at=token.ends_at)
            # from here on it is given back: by this process whatever is raised, and by the monitor if this process dies
            stack.callback(access.give_back)
            monitor.clean_up_later(access.kept)
        access.is_replaced_in(document)
        _check_own(access)
        _read(access)
        yield access


def take_next(access: Access) -> None:
    """Take the token that replaced the access's own.

    That one is proven dead by then. The next comes by the inbox and is checked as the first one. From its unwrap on it
    is given back in place of the former. Raises SecurityFinding for a token that is not the one that was published, and
    what unwrapping raises.
    """
    task = access.document.task_id
    document = session.known(access.wiring, task)
    try:
        taken = from_inbox(access.wiring, task)
    except SecurityFinding:
        access.is_alarmed = access.is_alarm_signed = True
        raise
    if access.files is not None:
        access.files.remove()
        access.files = None
    try:
        with _opened(access.wiring, taken, task, access.monitor) as token:
            access.replace_token(token)
            access.monitor.clean_up_later(access.kept)
    except OutcomeUnknown:
        # the former token is dead, and nobody has the next: the monitor signs the end, and tries until it has
        access.is_given_back = True
        raise
    except (SecurityFinding, NotFound):
        # a refused unwrap is an alarm as well
        access.is_alarmed = True
        raise
    access.is_replaced_in(document)
    _check_own(access, grant=document.grant_id)
    _read(access)


def _check_own(access: Access, grant: str | None = None) -> None:
    """Raise SecurityFinding for a token of another task, or of another grant.

    Its wrapping was jitvault's, but nobody put it into this inbox as this task's. The alarm is signed, and the token
    is given back unused.
    """
    task = access.document.task_id
    token = access.token
    if token.task_id == task and grant in (None, token.grant_id):
        return
    what = f"the token in your inbox is not that of task {task}" + (" that was published" if grant else "")
    access.is_alarmed = True
    alarm = inbox.sign_alarm(access.wiring, task, f"{what}: nothing was read with it")
    access.is_alarm_signed = True
    raise alarm


@contextmanager
def _opened(wiring: Wiring, taken: Given, task: str, monitor: Monitor) -> Iterator[TaskToken]:
    """Yield the token in a wrapping, and remember that this user opened it."""
    with locked_record(taken.token, state_directory(os.environ), warn) as record:
        token = _unwrapped(wiring, taken, task, monitor)
        yield token
        record.keep(token.task_id, wiring.vault(None).connection.address)


def _unwrapped(wiring: Wiring, taken: Given, task: str, monitor: Monitor) -> TaskToken:
    """Unwrap the task's token.

    Vault may answer when this process is dead already, or its answer may be lost. Nobody has the token then, and the
    monitor signs the task's end. Raises what `wrapping_source.opened` raises.
    """
    monitor.clean_up_later(Kept(task))
    try:
        return opened_wrapping(wiring, taken)
    except OutcomeUnknown as error:
        hint = f"{CONTINUE} Task {task} is being ended. Ask for a task with another id (`--id ID`)."
        raise OutcomeUnknown(str(error), hint=hint) from None
    except JitvaultError:
        monitor.clean_up_later(None)
        raise


def _read(access: Access) -> None:
    """Empty the inbox, and read what the token gives."""
    with suppress(JitvaultError):
        inbox.empty(access.wiring, access.document.task_id)
    access.credentials = list(read_all(access.wiring.vault(None), access.token))
