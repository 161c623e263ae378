"""How a task that holds access gets more time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jitvault.cli.options import DEFAULT_WAIT, Debug, Json, Out, Task, Wait

if TYPE_CHECKING:
    from jitvault.cli.session import Published
    from jitvault.cli.views.output import NewFile
    from jitvault.wiring import Wiring

For = Annotated[str, typer.Option("--for", metavar="DURATION", help="By how much the deadline moves, such as 30m.")]
Why = Annotated[str, typer.Option("--reason", help="Why; approvers read it.")]


def extend(
    task: Task,
    for_: For,
    reason: Why,
    out: Out = None,
    wait: Wait = DEFAULT_WAIT,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Have the deadline of a task that holds access moved, as far as policy and approvers agree.

    The token that there is lives on. Where it cannot live so long it is ended and proven dead, and a new wrapping token
    is printed. After an approval that takes one, run the same command again.
    """
    from jitvault.cli import session
    from jitvault.cli.views import output
    from jitvault.cli.views import task as render
    from jitvault.lifecycle.requests.sign import sign_extension

    wiring = session.open_session()
    document = session.known(wiring, task)
    _check_extensible(wiring, document)
    with output.new_file(out) as file:
        with session.signing(f"extend task {task}", "its requester, and its agent where policy lets it,"):
            nonce = sign_extension(
                wiring.person,
                render.revision_of(document),
                ends_at=_instant(document["ends_at"]),
                seconds=_seconds(for_),
                reason=reason,
            )
        before = document["grant_id"]
        document = session.settle(wiring, task, lambda d: _is_answered(d, nonce), wait)
        _raise_for(document, nonce)
        message = session.inbox(wiring, document) if document["grant_id"] != before else None
        if message is not None:
            # whoever was stopped since may hold what others have ended
            document = session.known(wiring, task)
            _raise_for(document, nonce)
        _print(document, message, out=file, as_json=json_)
        if message is not None:
            wiring.person.documents.destroy(session.inbox_path(wiring, document))
    _raise_waiting(document)
    session.check_findings(document)


def _check_extensible(wiring: Wiring, document: Published) -> None:
    """Raise WrongState for a task that holds nothing, and Denied for who has no part in it."""
    from jitvault.cli import session
    from jitvault.errors import Denied, WrongState

    task = document["task_id"]
    if document["state"] not in session.GRANTED or not document["ends_at"]:
        hint = "Only what holds access can be extended. Have another task granted."
        raise WrongState(f"task {task} is {document['state']}: there is no deadline to move", hint=hint)
    if wiring.person.entity not in (document["requester"], document["agent"]):
        hint = "Ask one of them to run `jitvault extend`."
        raise Denied(f"only the requester and the agent of task {task} can ask for more time", hint=hint)


def _seconds(text: str) -> int:
    from datetime import timedelta

    from jitvault.errors import InvalidInput
    from jitvault.formats.time_window import parse_duration

    try:
        return parse_duration(text) // timedelta(seconds=1)
    except InvalidInput as error:
        raise InvalidInput(f"--for: {error}", hint="Say it as 30m or 1h30m.") from None


def _instant(text: str) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(text)


def _is_answered(document: Published, nonce: str) -> bool:
    """Whether the request was looked at, and the task is not between two tokens."""
    from jitvault.cli import session

    if document["state"] not in session.GRANTED:
        return True
    said = document["extension"] or {}
    return said.get("request") == nonce and document["state"] != "issuing"


def _raise_for(document: Published, nonce: str) -> None:
    """Raise what the worker refused it with, and Denied where the task ended instead."""
    from jitvault.cli import session
    from jitvault.errors import Denied, WaitTimedOut, WrongState

    task, said = document["task_id"], document["extension"] or {}
    if said.get("request") == nonce and said["error"] is not None:
        raise session.refused(said["error"])
    if document["state"] not in session.GRANTED:
        raise Denied(
            f"task {task} was not extended: it is {document['state']} ({document['end_reason']})",
            hint=f"`jitvault status {task}` says why it ended. Have another task granted.",
        )
    if said.get("request") != nonce:
        if said.get("state") == "pending":
            first = said["content"]["by"]["name"]
            raise WrongState(
                f"task {task}: the request of {first} for more time comes first, and waits for approval",
                hint=f"Ask again once it is decided: `jitvault status {task}` shows who is missing.",
            )
        raise WaitTimedOut(f"task {task}: the request for more time was not looked at")


def _print(document: Published, message: Published | None, *, out: NewFile | None, as_json: bool) -> None:
    """What came of it; the wrapping token of a task that has a new one is in it once."""
    from jitvault.cli.views import output
    from jitvault.cli.views import task as render

    said = document["extension"]
    wrappings = list(message["wrapping"]) if message else []
    shown = {
        "task_id": document["task_id"],
        "grant_id": document["grant_id"],
        "state": document["state"],
        "ends_at": document["ends_at"],
        "extension": {"state": said["state"], "digest": said["digest"], **_told(said["content"])},
        "replaces": said["replaces"],
        "missing": said["missing"],
        "wrapping": wrappings,
    }
    if out is not None:
        out.write(output.to_json(shown) + "\n")
        shown["wrapping"] = [{k: v for k, v in wrapping.items() if k != "token"} for wrapping in wrappings]
    if as_json:
        output.text(output.to_json(shown) + "\n", out=None)
        return
    console, waits = output.console(), said["state"] == "pending"
    now = "is to be extended" if waits else "is extended"
    console.print(f"Task {shown['task_id']} {now}")
    console.print(f"  expires  {output.readable(shown['ends_at'])}")
    if waits:
        until = output.readable(said["content"]["until"])
        console.print(f"  then     {until}")
        console.print(f"  digest   {said['digest']}", soft_wrap=True)
    for missing in said["missing"]:
        console.print(f"  missing  {missing['count']} approval(s) by {missing['group']}")
    render.print_wrappings(console, shown["wrapping"], out)
    if said["replaces"] and not waits and message is None:
        typer.echo(render.why_no_token(document), err=True)


def _told(content: Published) -> dict[str, Any]:
    return {key: content[key] for key in ("by", "reason", "since", "seconds", "until", "window_s")}


def _raise_waiting(document: Published) -> None:
    """Raise ApprovalMissing while somebody has to approve it first."""
    from jitvault.errors import ApprovalMissing

    said, task = document["extension"], document["task_id"]
    if said["state"] != "pending":
        return
    if not said["missing"]:
        raise ApprovalMissing(
            f"more time for task {task} takes a new token, which goes to its requester",
            hint="Have the requester run the same command: they take the token.",
        )
    missing = ", ".join(f"{m['count']} of {m['group']}" for m in said["missing"])
    again = ", then run the same command again" if said["replaces"] else ""
    raise ApprovalMissing(
        f"more time for task {task} needs approval: {missing}",
        hint=f"Ask an approver to run `jitvault approve {task}`{again}. It goes on until its deadline.",
    )
