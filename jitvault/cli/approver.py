"""What approvers do: read exactly what would be granted, and sign yes or no."""

from __future__ import annotations

from typing import Annotated

import typer

from jitvault.cli.options import DEFAULT_WAIT, Debug, Json, Reason, Task, Wait, Yes

Digest = Annotated[
    str | None,
    typer.Option("--digest", help="Decide only if this is the digest (sha256:…) that is published."),
]


def approve(
    task: Task,
    digest: Digest = None,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = DEFAULT_WAIT,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Show in plain words what the task would be granted, and sign its digest."""
    _decide(task, "approve", digest=digest, reason=reason, yes=yes, wait=wait, as_json=json_)


def deny(
    task: Task,
    digest: Digest = None,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = DEFAULT_WAIT,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Refuse a task: a denial wins over any number of approvals."""
    _decide(task, "deny", digest=digest, reason=reason, yes=yes, wait=wait, as_json=json_)


def _decide(
    task: str, decision: str, *, digest: str | None, reason: str, yes: bool, wait: float, as_json: bool
) -> None:
    from jitvault.cli import render, session
    from jitvault.domain.policy import APPROVERS, SECURITY
    from jitvault.domain.revision import in_plain_words
    from jitvault.errors import Denied, WrongState
    from jitvault.services.sign import sign_decision

    wiring = session.wired()
    document = session.known(wiring, task)
    if document["state"] not in session.BEFORE:
        raise WrongState(f"task {task} is {document['state']}: there is nothing to decide")
    # the digest is taken here, over the bytes that are shown, never believed from the document
    revision = render.revision_of(document)
    if digest is not None and digest != revision.digest:
        raise WrongState(
            f"task {task} has the digest {revision.digest}, not {digest}",
            hint="It was revised since you looked. Read it again before you decide.",
        )
    part = revision.involved().get(wiring.person.entity)
    if part is not None and decision == "approve":
        raise Denied(f"you are the {part} of task {task} and cannot approve it", hint="Ask somebody else.")
    render.proposal(revision.digest, in_plain_words(revision), document["decision"])
    if not yes:
        session.ask(f"{decision.capitalize()} {task}?", done="nothing was signed")
    with session.signing(f"decide about task {task}", f"members of {APPROVERS} or {SECURITY}"):
        expires = sign_decision(wiring.person, task, digest=revision.digest, decision=decision, reason=reason)
    me, name = wiring.person.entity, wiring.person.me.display_name

    def counted(d: session.Published) -> bool:
        mine = {"entity": me, "decision": decision, "digest": revision.digest}
        return mine in d["decisions"] or bool(_refusal(d, me)) or d["state"] not in session.BEFORE

    document = session.settle(wiring, task, counted, wait)
    if why := _refusal(document, me):
        raise Denied(f"your decision about task {task} does not count: {name or me} {why}", hint="Ask an approver.")
    render.voted(document, decision, revision.digest, expires.isoformat(), as_json=as_json)


def _refusal(document: object, entity: str) -> str | None:
    assert isinstance(document, dict)  # noqa: S101 - what Vault gave us is a JSON object
    return next((r["why"] for r in document["refused"] if r["entity"] == entity), None)
