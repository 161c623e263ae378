"""`jitvault extend`: move the deadline of a task that holds access."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

import typer

from jitvault.agent.held_tasks import is_held_here
from jitvault.cli import inbox, session
from jitvault.cli.options import DEFAULT_WAIT, Out, Task, Wait
from jitvault.cli.requests.extension_made import cancel_request, check_none_waits, made_before
from jitvault.cli.views import extension as views
from jitvault.cli.views import output
from jitvault.cli.views.output import NewFile
from jitvault.cli.views.task import ask_approvers, end_in_words, missing_approvals
from jitvault.documents.illegible import illegible
from jitvault.documents.paths import ANYONE, request_path
from jitvault.documents.published_parts import GrantedExtension, PublishedExtension
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import ApprovalMissing, Denied, InvalidInput, UsageError, WaitTimedOut, WrongState
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.time_window import MAX_DURATION, format_duration, parse_seconds
from jitvault.lifecycle.requests.sign import sign_extension
from jitvault.wiring import Wiring

For = Annotated[
    str, typer.Option("--for", metavar="DURATION", help="By how much to move the deadline, for example 30m.")
]
Why = Annotated[str, typer.Option("--reason", help="The reason. Approvers read it.")]
Again = Annotated[bool, typer.Option("--again", help="Ask for as much once more, though this was granted before.")]
Cancel = Annotated[bool, typer.Option("--cancel", help="Cancel your request for more time, while it waits.")]


def extend(
    task: Task,
    for_: For = "",
    reason: Why = "",
    again: Again = False,
    cancel: Cancel = False,
    out: Out = None,
    wait: Wait = DEFAULT_WAIT,
) -> None:
    """Move the deadline of a task that holds access.

    Policy decides how far, and whether approvers have to agree first. The task keeps its token if that can live long
    enough. Otherwise the token is revoked, its revocation is confirmed, and a new wrapping token is printed; after an
    approval, run the same command again to receive it. The same command extends once: run again, it shows the extension
    that was made, by its id. --again asks for as much once more. --cancel takes back a request that still waits.

    Example: jitvault extend count-orders --for 30m --reason "the import takes longer"
    """
    if cancel:
        if for_ or reason or again:
            raise UsageError("--cancel goes without --for, --reason and --again")
        cancel_request(task, wait=wait)
        return
    if not for_ or not reason:
        raise UsageError("extend needs --for DURATION and --reason WHY, or --cancel")
    seconds = _seconds(for_)
    wiring = session.open_session()
    document = session.known(wiring, task)
    deadline = _deadline_of(document)
    _check_may_extend(wiring, document)
    check_none_waits(wiring, document, seconds, reason)
    with output.new_file(out) as file:
        made = None if again else made_before(wiring, document, seconds, reason, wait)
        if made is None:
            _extend(wiring, document, _Asked(deadline, seconds, reason), out=file, wait=wait)
        else:
            _show_made(wiring, *made, out=file)


@dataclass(frozen=True, slots=True)
class _Asked:
    """How far the deadline is to move, and why."""

    deadline: datetime
    seconds: int
    reason: str


def _extend(wiring: Wiring, document: PublishedTask, asked: _Asked, *, out: NewFile | None, wait: float) -> None:
    """Sign the request, wait for its answer, and print it."""
    task = document.task_id
    with session.signing(
        f"extend task {task}",
        "its requester, and its agent where policy lets it,",
        writes=request_path(ANYONE, task, "extend"),
    ):
        nonce = sign_extension(
            wiring.person,
            document.full_revision,
            ends_at=asked.deadline,
            seconds=asked.seconds,
            reason=asked.reason,
        )
    before = document.grant_id
    document = session.wait_for_worker(wiring, task, lambda d: _is_answered(d, nonce), wait)
    _raise_for(document, nonce)
    is_held = _is_held(wiring, document, out)
    is_left = is_held or (document.is_for_agent and out is None)
    message = inbox.message_for(wiring, document) if document.grant_id != before and not is_left else None
    if message is not None:
        # this process may have been suspended meanwhile, and the task may have been ended by others
        document = session.known(wiring, task)
        _raise_for(document, nonce)
    extension = _extension_of(document)
    shown = views.Shown(
        extension.state, extension.digest, extension.content, bool(extension.replaces), extension.missing
    )
    views.print_extension(document, shown, message, out=out, is_held=is_held)
    if message is not None:
        inbox.empty(wiring, document.task_id)
    _raise_waiting(document)
    session.check_findings(task, document.findings, end_reason=document.end_reason)


def _show_made(wiring: Wiring, document: PublishedTask, made: GrantedExtension, *, out: NewFile | None) -> None:
    """Print an extension that was made before.

    A new wrapping token that was not fetched yet is printed once.
    """
    is_held = _is_held(wiring, document, out)
    is_left = is_held or (document.is_for_agent and out is None)
    message = inbox.message_for(wiring, document) if made.replaces and not is_left else None
    shown = views.Shown("extended", made.digest, made, bool(made.replaces), [])
    views.print_extension(document, shown, message, out=out, made_at=rfc3339(made.at), is_held=is_held)
    if message is not None:
        inbox.empty(wiring, document.task_id)
    session.check_findings(document.task_id, document.findings)


def _is_held(wiring: Wiring, document: PublishedTask, out: NewFile | None) -> bool:
    """Return whether a new token is left to the process that holds the task.

    That is `jitvault exec` or a Python program of this user, who is the agent. --out says that this command takes the
    token.
    """
    return out is None and wiring.person.entity == document.agent and is_held_here(document.task_id)


def _check_may_extend(wiring: Wiring, document: PublishedTask) -> None:
    """Raise Denied unless the caller is the task's requester or agent."""
    task = document.task_id
    if wiring.person.entity not in (document.requester, document.agent):
        hint = f"Ask one of them to run `jitvault extend {task}`."
        raise Denied(f"only the requester and the agent of task {task} can ask for more time", hint=hint)


def _seconds(text: str) -> int:
    try:
        found = parse_seconds(text)
    except InvalidInput as error:
        raise InvalidInput(f"--for: {error}", hint="Write it as 30m or 1h30m.") from None
    if not 1 <= found <= MAX_DURATION / timedelta(seconds=1) or found % 1:
        raise InvalidInput(
            f"--for: expected whole seconds, at most {format_duration(MAX_DURATION)}, got {text}",
            hint="Write it as 30m or 1h30m.",
        )
    return int(found)


def _deadline_of(document: PublishedTask) -> datetime:
    """Return the task's deadline.

    Raises WrongState for a task that holds no access.
    """
    if document.state not in session.GRANTED or document.ends_at is None:
        hint = "Only a task that holds access can be extended. Submit another task."
        message = f"task {document.task_id} is {document.state}: there is no deadline to move"
        raise WrongState(message, hint=hint)
    return document.ends_at


def _is_answered(document: PublishedTask, nonce: str) -> bool:
    """Return whether a worker has answered the request.

    A task between two tokens is not answered yet.
    """
    if document.state not in session.GRANTED:
        return True
    extension = document.extension
    return extension is not None and extension.request == nonce and document.state != "issuing"


def _raise_for(document: PublishedTask, nonce: str) -> None:
    """Raise the error by which a worker refused the request.

    Raises Denied where the task is over. Raises WrongState while another request for more time waits,
    WaitTimedOut where no worker has answered.
    """
    task = document.task_id
    extension = document.extension
    is_own = extension is not None and extension.request == nonce
    if is_own and extension is not None and extension.error is not None:
        raise session.refused(extension.error)
    if document.state not in session.GRANTED:
        # its agent may have taken the next token and ended the task before this command looked again
        is_made = is_own and extension is not None and extension.state == "extended"
        what = "ended after its deadline was moved" if is_made else "was not extended"
        raise Denied(
            f"task {task} {what}: it is {document.state} ({end_in_words(document.end_reason, document.ended)})",
            hint=f"`jitvault status {task}` says why it ended. Submit another task.",
        )
    if not is_own:
        if extension is not None and extension.state == "pending":
            first = extension.content.by.name
            raise WrongState(
                f"task {task}: the earlier request of {first} for more time still waits for approval",
                hint=f"Ask again once it is decided: `jitvault status {task}` shows who is missing. {first} can cancel "
                f"it with `jitvault extend {task} --cancel`.",
            )
        raise WaitTimedOut(f"task {task}: no worker has answered the request for more time")


def _extension_of(document: PublishedTask) -> PublishedExtension:
    """Return the extension that a worker answered.

    Raises SecurityFinding where none is published any more.
    """
    if document.extension is None:
        raise illegible(document.task_id)
    return document.extension


def _raise_waiting(document: PublishedTask) -> None:
    """Raise ApprovalMissing while the extension waits for someone.

    That is an approver, or its requester.
    """
    extension = _extension_of(document)
    task = document.task_id
    if extension.state != "pending":
        return
    if not extension.missing:
        raise ApprovalMissing(
            f"more time for task {task} takes a new token, which goes to its requester",
            hint="Ask the requester to run the same command: they receive the token.",
        )
    again = ", then run the same command again" if extension.replaces and not document.is_for_agent else ""
    raise ApprovalMissing(
        f"more time for task {task} needs {missing_approvals(extension.missing)}",
        hint=f"Ask {ask_approvers(task, extension.missing)}{again}. The task continues until its deadline. "
        f"`jitvault extend {task} --cancel` cancels the request.",
    )
