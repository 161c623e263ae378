"""What approvers do: read exactly what would be granted, sign yes or no, and take a yes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jitvault.cli.options import DEFAULT_WAIT, Debug, Json, Reason, Task, Wait, Yes

if TYPE_CHECKING:
    from jitvault.cli.session import Published
    from jitvault.domain.revision import Revision
    from jitvault.wiring import Wiring

Digest = Annotated[
    str | None,
    typer.Option("--digest", help="Decide only if this is the digest (sha256:…) that is published."),
]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="GROUP", help="Decide in the name of this group alone; may be given again."),
]


def approve(
    task: Task,
    digest: Digest = None,
    group: Groups = None,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = DEFAULT_WAIT,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Show in plain words what the task would be granted, and sign its digest."""
    _decide(task, "approve", digest=digest, groups=group, reason=reason, yes=yes, wait=wait, as_json=json_)


def deny(
    task: Task,
    digest: Digest = None,
    group: Groups = None,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = DEFAULT_WAIT,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Refuse a task: a denial wins over any number of approvals."""
    _decide(task, "deny", digest=digest, groups=group, reason=reason, yes=yes, wait=wait, as_json=json_)


def withdraw(
    task: Task,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = DEFAULT_WAIT,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Take your approval back: the task waits for another one, or ends where it was granted by it."""
    from jitvault.cli import render, session
    from jitvault.errors import WrongState
    from jitvault.services.sign import sign_withdrawal

    wiring = session.wired()
    document = session.known(wiring, task)
    if document["state"] not in session.BEFORE | session.HELD:
        raise WrongState(f"task {task} is {document['state']}: there is no approval to withdraw")
    revision, held = render.revision_of(document), document["state"] in session.HELD
    with session.signing(f"withdraw from task {task}", _approvers()):
        _check_approved(wiring, document, revision)
        if not yes:
            session.ask(f"Withdraw your approval of {task}?", done="nothing was signed")
        sign_withdrawal(wiring.person, revision, reason=reason)
    mine = {"entity": wiring.person.entity, "decision": "approve", "digest": revision.digest}

    def counted(d: session.Published) -> bool:
        return d["state"] in session.DONE if held else mine not in d["decisions"]

    document = session.settle(wiring, task, counted, wait)
    render.voted(document, "withdraw", revision.digest, None, as_json=json_)


def approvals(json_: Json = False, debug: Debug = False) -> None:
    """Show every task that waits for your approval: what it would be granted, and what changed."""
    from jitvault.cli import listings, session
    from jitvault.services.waiting import waiting

    wiring = session.wired()
    with session.allowed("see what waits for approval", _approvers()):
        found = waiting(wiring.person)
    listings.waiting(found, as_json=json_)


def _decide(
    task: str,
    decision: str,
    *,
    digest: str | None,
    groups: Sequence[str] | None,
    reason: str,
    yes: bool,
    wait: float,
    as_json: bool,
) -> None:
    from jitvault.cli import render, session
    from jitvault.domain.policy import Obligations
    from jitvault.domain.revision import in_plain_words
    from jitvault.errors import Denied, WrongState
    from jitvault.services.sign import sign_decision
    from jitvault.services.waiting import changes, may_decide

    wiring = session.wired()
    document = session.known(wiring, task)
    if document["state"] not in session.BEFORE:
        raise WrongState(f"task {task} is {document['state']}: there is nothing to decide")
    if document["state"] == "denied" and any(vote["decision"] == "deny" for vote in document["decisions"]):
        raise WrongState(
            f"task {task} is denied: {document['why_denied']}",
            hint="Of this revision that is final: whoever asked for it changes the spec and submits it with --revise.",
        )
    # the digest is taken here, over the bytes that are shown, never believed from the document
    revision = render.revision_of(document)
    if digest is not None and digest != revision.digest:
        raise WrongState(
            f"task {task} has the digest {revision.digest}, not {digest}",
            hint="It was revised since you looked. Read it again before you decide.",
        )
    obligations = Obligations.of(document["decision"]["obligations"])
    part = may_decide(revision, wiring.person.entity, obligations)
    if part is not None and decision == "approve":
        raise Denied(f"you are the {part} of task {task} and cannot approve it", hint="Ask somebody else.")
    with session.signing(f"decide about task {task}", _approvers()):
        names = _groups(wiring, task, obligations.deciders, groups)
    render.proposal(revision.digest, in_plain_words(revision), document["decision"], changes(document, revision))
    if not yes:
        session.ask(f"{decision.capitalize()} {task}?", done="nothing was signed")
    with session.signing(f"decide about task {task}", _approvers()):
        expires = sign_decision(wiring.person, revision, decision=decision, groups=names, reason=reason)
    me, name = wiring.person.entity, wiring.person.me.display_name

    def counted(d: session.Published) -> bool:
        mine = {"entity": me, "decision": decision, "digest": revision.digest}
        return mine in d["decisions"] or bool(_refusal(d, me)) or d["state"] not in session.BEFORE

    document = session.settle(wiring, task, counted, wait)
    if why := _refusal(document, me):
        raise Denied(f"your decision about task {task} does not count: {name or me} {why}", hint="Ask an approver.")
    render.voted(document, decision, revision.digest, expires.isoformat(), as_json=as_json)


def _approvers() -> str:
    from jitvault.domain.policy import APPROVERS, SECURITY

    return f"members of {APPROVERS} or {SECURITY}"


def _groups(wiring: Wiring, task: str, deciders: Sequence[str], named: Sequence[str] | None) -> list[str]:
    """In whose name the caller decides: the groups that the task needs and they are registered for. Raises Denied."""
    from jitvault.errors import Denied
    from jitvault.services.waiting import registration

    mine = registration(wiring.person).registration.groups
    found = [group for group in deciders if group in mine and (not named or group in named)]
    if not found or (named and {*named} - {*found}):
        raise Denied(
            f"task {task} is decided by {' and '.join(deciders)}; you are registered for {' and '.join(mine)}",
            hint="Leave --group out, or ask somebody of the other group.",
        )
    return found


def _check_approved(wiring: Wiring, published: Published, revision: Revision) -> None:
    """Raise WrongState when the caller has not approved this revision, or has taken that back."""
    from jitvault.domain.signing import payload_of
    from jitvault.errors import WrongState

    task, me = published["task_id"], wiring.person.entity
    if any(one["entity"] == me and one["withdrawn"] for one in published["refused"]):
        raise WrongState(f"you have withdrawn your approval of task {task} already")
    document = wiring.person.documents.get(f"decisions/{me}/{task}")
    said: Mapping[str, Any] = payload_of(document) if document else {}
    if (said.get("decision"), said.get("digest")) != ("approve", revision.digest):
        raise WrongState(f"you have not approved revision {revision.content['revision']} of task {task}")


def _refusal(document: Published, entity: str) -> str | None:
    return next((r["why"] for r in document["refused"] if r["entity"] == entity), None)
