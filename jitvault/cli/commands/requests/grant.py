"""Operators' commands: submit a task, have it granted, cancel it."""

from __future__ import annotations

from typing import Annotated

import typer

from jitvault.cli import inbox, session
from jitvault.cli import published as fallback
from jitvault.cli.lookups.end_rights import check_may_end, sign_end_of
from jitvault.cli.options import (
    DEFAULT_WAIT,
    Out,
    Reason,
    SpecFile,
    Task,
    TaskId,
    Wait,
    duration,
    ending,
)
from jitvault.cli.requests.grant_wait import is_about, own_request, raise_for, request_grant
from jitvault.cli.requests.submission import is_spec, naming_agents, own_spec, submit_spec
from jitvault.cli.views import output
from jitvault.cli.views import queue as queue_view
from jitvault.cli.views import task as render
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import NotFound, UsageError, WrongState
from jitvault.model.spec import TaskSpec
from jitvault.wiring import Wiring

Queue = Annotated[
    bool,
    typer.Option(
        "--queue", help="If it cannot be granted now, let the request wait: until its window is over, 24 h at most."
    ),
]
GrantWait = Annotated[
    float | None,
    duration(
        "--wait",
        "Wait that long for approvals and for the window to begin, and take the token then. Without it the "
        "command waits 30s for a worker, and for nothing else.",
        most=86_400,
    ),
]
Revise = Annotated[bool, typer.Option("--revise", help="Replace the task's spec with this one, as a new revision.")]


def submit(
    context: typer.Context,
    spec: SpecFile,
    task_id: TaskId = None,
    revise: Revise = False,
    wait: Wait = DEFAULT_WAIT,
) -> None:
    """Sign a task spec and request a decision about it.

    Nothing is granted yet. A task that waits for approvals is a success: the command says whose are missing. It exits
    with 3 when the task is denied. A spec with generateName in place of an id makes another task each time.

    Example: jitvault submit task.yaml
    """
    wiring = session.open_session()
    read = submit_spec(context, wiring, spec, task_id, revise=revise)
    submitted = session.written_at(wiring, own_request(wiring, read.id, "submit"))
    signed = session.Signed(at=submitted, submitted=submitted)
    with naming_agents(wiring, read):
        document = session.wait_for_worker(wiring, read.id, lambda d: is_about(d, read, wiring), wait, signed)
    is_refused = document.state not in ("approved", "pending_approval")
    render.print_decision(document, is_refused=is_refused)
    raise_for(document)


def grant(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="SPEC|TASK", help="A task spec (a file, or - for standard input), or the id of a submitted task."
        ),
    ],
    task_id: TaskId = None,
    revise: Revise = False,
    queue: Queue = False,
    out: Out = None,
    wait: GrantWait = None,
) -> None:
    """Issue a task's access, and print its wrapping token or who takes it.

    A spec is submitted first; one with generateName in place of an id makes another task each time. The agent exchanges
    the wrapping token for the task's token with `jitvault unwrap`; that works only once. A task that needs approvals is
    exit 4 at once; with --wait 10m the command waits for them and takes the token. A request that is refused is
    settled: nothing is issued by it later. With --queue the request waits instead, without the command, which says
    until when, and how to cancel it.

    Example: jitvault grant task.yaml --wait 10m --out wrapped.json
    """
    wiring = session.open_session()
    with output.new_file(out) as file:
        read = _requested_spec(context, wiring, what, task_id, revise=revise)
        ending(context).interrupt_hint = render.when_interrupted(read, queue=queue)
        with naming_agents(wiring, read):
            request, document = request_grant(wiring, read, queue=queue, wait=wait)
        if request.queued_until is not None and request.is_open(document):
            queue_view.print_queued(document, request.queued_until, out=file)
            return
        request.check_not_refused(document)
        raise_for(document, is_grant=True, waited=wait)
        # what is delivered to the agent is taken by `unwrap`, also where the agent itself asked; --out says otherwise
        message = None if document.is_for_agent and file is None else inbox.message_for(wiring, document)
        if message is not None:
            # this process may have been suspended meanwhile, and the task may have been ended by others
            document = session.known(wiring, read.id)
            raise_for(document, is_grant=True)
        if message is None and file is not None:
            raise WrongState(f"task {read.id}: there is no wrapping token to write", hint=render.why_no_token(document))
        render.print_grant(document, message, out=file)
        if message is not None:
            # only now: a token that could not be printed has to stay in the inbox
            inbox.empty(wiring, document.task_id)
    session.check_findings(read.id, document.findings, end_reason=document.end_reason)


def cancel(task: Task, reason: Reason = "", wait: Wait = DEFAULT_WAIT) -> None:
    """Cancel a task that has not been granted.

    Example: jitvault cancel count-orders --reason "not needed any more"
    """
    wiring = session.open_session()
    document: PublishedTask | None = None
    # a request that no worker has admitted yet would be granted by the first one that does
    if session.published(wiring, task) is not None or fallback.request_not_admitted(wiring, task) is None:
        document = session.known(wiring, task)
        _check_withdrawable(document)
    if document is None or document.state != "cancelled":
        if document is not None:
            check_may_end(wiring, document)
        sign_end_of(wiring, task, None, reason, act="cancel")
        document = session.wait_for_worker(wiring, task, lambda d: d.state not in session.BEFORE, wait)
    render.print_decision(document)


def _check_withdrawable(document: PublishedTask) -> None:
    """Raise WrongState for a task that is granted or over."""
    task = document.task_id
    state = document.state
    if state in ("denied", "lapsed"):
        is_final = state == "lapsed" or any(one.decision == "deny" for one in document.decisions)
        hint = "It can only be granted as a new revision: `jitvault submit SPEC --revise`." if is_final else None
        raise WrongState(f"task {task} is {state}: there is nothing to cancel", hint=hint)
    if state in session.DONE:
        raise WrongState(f"task {task} is {state}: its access is over already", hint="There is nothing to cancel.")
    if state not in {"cancelled", *session.BEFORE}:
        raise WrongState(f"task {task} is {state}", hint=f"Use `jitvault revoke {task}` to end it.")


def _requested_spec(
    context: typer.Context, wiring: Wiring, what: str, task_id: str | None, *, revise: bool
) -> TaskSpec:
    """Return the spec that `grant` is about.

    It is that of a file, which is submitted first, or that of a submitted task. Raises NotFound where `what` is
    neither.
    """
    if is_spec(what):
        return submit_spec(context, wiring, what, task_id, revise=revise)
    if task_id is not None:
        raise UsageError(
            f"--id names the task of a spec, and there is no file {what!a:.80}",
            hint="Name a spec, or leave out --id.",
        )
    mine = own_spec(wiring, what)
    if mine is None:
        raise NotFound(f"there is no file {what!r:.80}, and you have submitted no task of that name")
    ending(context).task = mine.id
    return mine
