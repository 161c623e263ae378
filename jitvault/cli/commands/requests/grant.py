"""Operators' commands: submit a task, have it granted, cancel it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jitvault.cli.commands.requests.spec_file import SpecFile, TaskId
from jitvault.cli.options import (
    DEFAULT_WAIT,
    Debug,
    Json,
    Out,
    Reason,
    Task,
    Wait,
    seconds,
    set_hint_task,
    set_interrupt_hint,
)
from jitvault.documents.paths import ANYONE, request_path

if TYPE_CHECKING:
    from jitvault.documents.published_task import PublishedTask
    from jitvault.errors import WrongState
    from jitvault.model.spec import TaskSpec
    from jitvault.wiring import Wiring

_OPEN_FINDING_RULE = "no-access-with-an-open-finding"
"""The id of the shipped policy by which an agent with an open finding gets nothing."""

Queue = Annotated[
    bool,
    typer.Option(
        "--queue", help="If it cannot be granted now, let the request wait: until its window is over, 24 h at most."
    ),
]
GrantWait = Annotated[
    float | None,
    typer.Option(
        "--wait",
        metavar="DURATION",
        parser=seconds(most=86_400),
        help="Wait that long for approvals and for the window to begin, and take the token then. Without it the "
        "command waits 30s for a worker, and for nothing else.",
    ),
]
Revise = Annotated[bool, typer.Option("--revise", help="Replace the task's spec with this one, as a new revision.")]


def submit(
    context: typer.Context,
    spec: SpecFile,
    task_id: TaskId = None,
    revise: Revise = False,
    wait: Wait = DEFAULT_WAIT,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Sign a task spec and request a decision about it.

    Nothing is granted yet. A task that waits for approvals is a success: the command says whose are missing. It exits
    with 3 when the task is denied. A spec with generateName in place of an id makes another task each time.

    Example: jitvault submit task.yaml
    """
    from jitvault.cli import session
    from jitvault.cli.commands.requests.grant_wait import is_about, own_request
    from jitvault.cli.commands.requests.submission import naming_agents, submit_spec
    from jitvault.cli.views import task as render

    wiring = session.open_to_ask()
    read = submit_spec(context, wiring, spec, task_id, revise=revise, as_json=json_)
    submitted = session.written_at(wiring, own_request(wiring, read.id, "submit"))
    signed = session.Signed(at=submitted, submitted=submitted)
    with naming_agents(wiring, read):
        document = session.wait_for_worker(wiring, read.id, lambda d: is_about(d, read, wiring), wait, signed)
    is_refused = document.state not in ("approved", "pending_approval")
    render.print_decision(document, as_json=json_, is_refused=is_refused)
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
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Issue a task's access, and print its wrapping token or who takes it.

    A spec is submitted first; one with generateName in place of an id makes another task each time. The agent exchanges
    the wrapping token for the task's token with `jitvault unwrap`; that works only once. A task that needs approvals is
    exit 4 at once; with --wait 10m the command waits for them and takes the token. A request that is refused is
    settled: nothing is issued by it later. With --queue the request waits instead, without the command, which says
    until when, and how to cancel it.

    Example: jitvault grant task.yaml --wait 10m --out wrapped.json
    """
    from jitvault.cli import inbox, session
    from jitvault.cli.commands.requests.grant_wait import request_grant
    from jitvault.cli.commands.requests.submission import naming_agents
    from jitvault.cli.quiet import note
    from jitvault.cli.views import output
    from jitvault.cli.views import queue as queue_view
    from jitvault.cli.views import task as render
    from jitvault.errors import WrongState

    wiring = session.open_to_ask()
    with output.new_file(out) as file:
        read = _requested_spec(context, wiring, what, task_id, revise=revise, as_json=json_)
        set_interrupt_hint(context, render.when_interrupted(read, queue=queue))
        tell = _nothing if json_ else note
        with naming_agents(wiring, read):
            request, document = request_grant(wiring, read, queue=queue, wait=wait, tell=tell)
        if request.queued_until is not None and request.is_open(document):
            queue_view.print_queued(document, request.queued_until, out=file, as_json=json_)
            return
        request.check_not_refused(document)
        raise_for(document, as_json=json_, waited=wait)
        # what is delivered to the agent is taken by `unwrap`, also where the agent itself asked; --out says otherwise
        message = None if document.is_for_agent and file is None else inbox.message_for(wiring, document)
        if message is not None:
            # this process may have been suspended meanwhile, and the task may have been ended by others
            document = session.known(wiring, read.id)
            raise_for(document, as_json=json_)
        if message is None and file is not None:
            raise WrongState(f"task {read.id}: there is no wrapping token to write", hint=render.why_no_token(document))
        render.print_grant(document, message, out=file, as_json=json_)
        if message is not None:
            # only now: a token that could not be printed has to stay in the inbox
            inbox.empty(wiring, document.task_id)
    session.check_findings(read.id, document.findings, end_reason=document.end_reason)


def cancel(
    task: Task, reason: Reason = "", wait: Wait = DEFAULT_WAIT, json_: Json = False, debug: Debug = False
) -> None:
    """Cancel a task that has not been granted.

    Example: jitvault cancel count-orders --reason "not needed any more"
    """
    from jitvault.cli import published as fallback
    from jitvault.cli import session
    from jitvault.cli.commands.lookups.end_rights import check_may_end
    from jitvault.cli.views import task as render
    from jitvault.lifecycle.requests.sign import sign_end

    wiring = session.open_session()
    document: PublishedTask | None = None
    # a request that no worker has admitted yet would be granted by the first one that does
    if session.published(wiring, task) is not None or fallback.requested_at(wiring, task) is None:
        document = session.known(wiring, task)
        _check_withdrawable(document)
    if document is None or document.state != "cancelled":
        if document is not None:
            check_may_end(wiring, document)
        with session.signing(
            f"cancel task {task}", "operators and the task's agent", writes=request_path(ANYONE, task, "end")
        ):
            sign_end(wiring.person, task, reason=None, note=reason)
        document = session.wait_for_worker(wiring, task, lambda d: d.state not in session.BEFORE, wait)
    render.print_decision(document, as_json=json_)


def _check_withdrawable(document: PublishedTask) -> None:
    """Raise WrongState for a task that is granted or over."""
    from jitvault.cli import session
    from jitvault.errors import WrongState

    task = document.task_id
    state = document.state
    if state in ("denied", "lapsed"):
        is_final = state == "lapsed" or any(one["decision"] == "deny" for one in document.decisions)
        hint = "It can only be granted as a new revision: `jitvault submit SPEC --revise`." if is_final else None
        raise WrongState(f"task {task} is {state}: there is nothing to cancel", hint=hint)
    if state in session.DONE:
        raise WrongState(f"task {task} is {state}: its access is over already", hint="There is nothing to cancel.")
    if state not in {"cancelled", *session.BEFORE}:
        raise WrongState(f"task {task} is {state}", hint=f"Use `jitvault revoke {task}` to end it.")


def _requested_spec(
    context: typer.Context, wiring: Wiring, what: str, task_id: str | None, *, revise: bool, as_json: bool
) -> TaskSpec:
    """Return the spec that `grant` is about.

    It is that of a file, which is submitted first, or that of a submitted task. Raises NotFound where `what` is
    neither.
    """
    from jitvault.cli.commands.requests.submission import is_spec, own_spec, submit_spec
    from jitvault.errors import NotFound, UsageError

    if is_spec(what):
        return submit_spec(context, wiring, what, task_id, revise=revise, as_json=as_json)
    if task_id is not None:
        raise UsageError(
            f"--id names the task of a spec, and there is no file {what!a:.80}",
            hint="Name a spec, or leave out --id.",
        )
    mine = own_spec(wiring, what)
    if mine is None:
        raise NotFound(f"there is no file {what!r:.80}, and you have submitted no task of that name")
    set_hint_task(context, mine.id)
    return mine


def raise_for(document: PublishedTask, *, as_json: bool | None = None, waited: float | None = None) -> None:
    """Raise the error that gives a task that was not granted its exit code.

    With `as_json`, the task's state is printed first. `waited` is for how many seconds the command waited for
    approvals. `submit` gives neither: it has printed the state, and to it a task that waits is a success.
    """
    from jitvault.cli.views import task as render
    from jitvault.errors import ApprovalMissing, Denied, WrongState

    state = document.state
    task = document.task_id
    is_submit = as_json is None and waited is None
    if state in ("issued", "active") or (is_submit and state in ("issuing", "approved", "pending_approval")):
        return
    if as_json is not None and state in ("pending_approval", "approved", "denied", "lapsed"):
        render.print_decision(document, as_json=as_json, is_refused=True)
    if state == "pending_approval":
        missing = ", ".join(f"{m['count']} of {m['group']}" for m in document.missing)
        after = f" after {render.in_words(waited)}" if waited else ""
        raise ApprovalMissing(f"task {task} needs approval{after}: {missing}", hint=render.how_to_go_on(document))
    if state == "denied":
        by_a_person = any(one["decision"] == "deny" for one in document.decisions)
        final = "The denial of this revision is final. Change the spec and run `jitvault submit SPEC --revise`."
        hint = final if by_a_person else _ask_to_close_findings(document)
        raise Denied(f"task {task} is denied: {document.why_denied}", hint=hint)
    if state in ("approved", "issuing"):
        raise _not_issued(document)
    by = render.by_whom(document.ended) if state == "cancelled" and document.ended is not None else ""
    again = "`jitvault submit SPEC` asks again, as long as its window is not over. " if state == "lapsed" else ""
    raise WrongState(f"task {task} is {state}{by}", hint=f"{again}With `--id ID` the same spec asks for another task.")


def _ask_to_close_findings(document: PublishedTask) -> str | None:
    """Return whom to ask where an open finding of the agent is in the way."""
    if _OPEN_FINDING_RULE not in document.decision.get("rules", ()):
        return None
    agent = document.full_revision.content["agent"]["name"]
    return (
        f"Ask whoever runs the worker for `jitvault findings close --agent {agent} --reason WHY`, once the finding was "
        f"looked into. Then run `jitvault grant {document.task_id}` again."
    )


def _not_issued(document: PublishedTask) -> WrongState:
    """Return the error for an approved task whose token was not issued, or not surely.

    Its window has not begun, or another process has it in hand.
    """
    from jitvault.cli.views.queue import window_start
    from jitvault.errors import WrongState

    task = document.task_id
    if document.state == "issuing" or document.full_revision.spec.window.not_before is None:
        return WrongState(
            f"task {task} is {document.state}, and its token is not issued yet",
            hint=f"Another process has it in hand. Run `jitvault grant {task}` again.",
        )
    begins = window_start(document)
    again = (
        f"Run `jitvault grant {task}` again when it has begun, or with --wait for so long; with --queue the request "
        "waits for that."
    )
    later = f"The token then goes to the inbox of its agent. `jitvault cancel {task}` cancels that."
    return WrongState(
        f"task {task} is approved and its window has not begun: it begins at {begins}",
        hint=later if document.is_for_agent else again,
    )


def _nothing(_: str) -> None:
    """Tell nobody what the command waits for: its output is for a program."""
