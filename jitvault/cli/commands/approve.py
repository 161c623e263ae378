"""Approvers' commands: `approve`, `deny`, `withdraw` and `approvals`.

They show exactly what would be granted before anything is signed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jitvault.cli.options import DEFAULT_WAIT, Debug, Json, Reason, Task, Wait, Yes
from jitvault.documents.paths import decision_path

if TYPE_CHECKING:
    from jitvault.documents.published_parts import GrantedExtension, PublishedExtension, UncountedDecision
    from jitvault.documents.published_task import PublishedTask
    from jitvault.lifecycle.decision.pending_approvals import ApprovalSubject
    from jitvault.model.revision import Revision
    from jitvault.wiring import Wiring

Digest = Annotated[
    str | None,
    typer.Option("--digest", help="Decide only if the published digest is this one (sha256:…)."),
]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="GROUP", help="Decide only in the name of this group. May be repeated."),
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
    """Show what a task would be granted, and sign your approval.

    The signature is over the digest of exactly what is shown. If the task waits for more time, you approve that.

    Example: jitvault approve count-orders --reason "agreed with the data owner"
    """
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
    """Show what a task would be granted, and sign a denial.

    One denial outweighs any number of approvals.
    """
    _decide(task, "deny", digest=digest, groups=group, reason=reason, yes=yes, wait=wait, as_json=json_)


def withdraw(
    task: Task,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = DEFAULT_WAIT,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Withdraw your approval of a task.

    A task that has not been granted waits for another approval. A task that was granted by yours ends.
    """
    from jitvault.cli import session
    from jitvault.cli.views import task as render
    from jitvault.errors import WrongState
    from jitvault.lifecycle.requests.sign import sign_withdrawal

    wiring = session.open_session()
    document = session.known(wiring, task)
    if document.state not in session.BEFORE | session.GRANTED:
        raise WrongState(f"task {task} is {document.state}: there is no approval to withdraw")
    revision = document.full_revision
    with session.signing(f"withdraw from task {task}", _approvers()):
        is_decisive = _is_decisive(wiring, document, revision)
        if not yes:
            session.ask(f"Withdraw your approval of {task}?", done="nothing was signed")
        sign_withdrawal(wiring.person, revision, reason=reason)
    me = wiring.person.entity
    was_granted = document.state in session.GRANTED

    def counted(d: PublishedTask) -> bool:
        if was_granted:
            return d.state in session.DONE or not (is_decisive or _approved_extension(d, me))
        return {"entity": me, "decision": "approve", "digest": revision.digest} not in d.decisions

    document = session.settle(wiring, task, counted, wait)
    render.print_counted_decision(document, "withdraw", revision.digest, None, missing=document.missing, as_json=json_)


def approvals(json_: Json = False, debug: Debug = False) -> None:
    """Show every task that waits for your approval.

    For each, the command shows what it would be granted and what changed since it was approved last.
    """
    from jitvault.cli import session
    from jitvault.cli.views import tables as listings
    from jitvault.lifecycle.decision.pending_approvals import pending_approvals

    wiring = session.open_session()
    with session.allowed("see what waits for approval", _approvers()):
        found = pending_approvals(wiring.person)
    listings.print_pending(found, as_json=json_)


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
    from jitvault.cli import session
    from jitvault.cli.views import output
    from jitvault.cli.views import task as render
    from jitvault.errors import Denied, WrongState
    from jitvault.lifecycle.decision.pending_approvals import approval_subject, barring_part, changes
    from jitvault.lifecycle.requests.sign import sign_decision

    # a denial takes access away, so nothing keeps it from being signed
    wiring = session.open_to_ask() if decision == "approve" else session.open_session()
    document = session.known(wiring, task)
    matter = approval_subject(document)
    if matter is None:
        raise WrongState(f"task {task} is {document.state}: there is nothing to decide")
    if document.state == "denied" and any(one["decision"] == "deny" for one in document.decisions):
        raise WrongState(
            f"task {task} is denied: {document.why_denied}",
            hint="The denial of this revision is final. Its requester can change the spec and submit it with --revise.",
        )
    if digest is not None and digest != matter.digest:
        raise WrongState(
            f"task {task} has the digest {matter.digest}, not {digest}",
            hint="The task was revised since you read it. Read it again before you decide.",
        )
    part = barring_part(matter.revision, wiring.person.entity, matter.obligations)
    if part is not None and decision == "approve":
        raise Denied(f"you are the {part} of task {task} and cannot approve it", hint="Ask another approver.")
    if document.state == "denied":
        denied = f"policy denies task {task} as it is, whoever approves it: {document.why_denied}"
        typer.echo(output.for_terminal(denied, sys.stderr), err=True)
    with session.signing(f"decide about task {task}", _approvers()):
        names = _groups(wiring, task, matter.obligations.deciders, groups)
    differs = changes(document) if matter.extension is None else None
    render.print_proposal(matter.digest, matter.words, matter.decision, differs)
    if not yes:
        what = f"more time for {task}" if matter.extension else task
        session.ask(f"{decision.capitalize()} {what}?", done="nothing was signed")
    with session.signing(f"decide about task {task}", _approvers()):
        expires = sign_decision(
            wiring.person,
            matter.revision,
            decision=decision,
            groups=names,
            reason=reason,
            extension=matter.extension,
        )
    _await_counting(wiring, task, matter, decision, expires.isoformat(), wait=wait, as_json=as_json)


def _await_counting(
    wiring: Wiring, task: str, matter: ApprovalSubject, decision: str, expires: str, *, wait: float, as_json: bool
) -> None:
    """Wait until a worker has counted the decision, and print the result.

    Raises Denied where it does not count.
    """
    from jitvault.cli import session
    from jitvault.cli.views import task as render
    from jitvault.errors import Denied
    from jitvault.lifecycle.decision.pending_approvals import approval_subject
    from jitvault.model.extension import extension_part

    me = wiring.person.entity
    name = wiring.person.me.display_name
    below = extension_part(matter.digest) if matter.extension else ""
    written_at = session.written_at(wiring, decision_path(me, task, below))

    def counted(d: PublishedTask) -> bool:
        now = approval_subject(d)
        if now is None or now.digest != matter.digest or now.is_decided_by(me, decision):
            return True
        # a refusal that was published before is about an earlier decision of this approver
        return bool(_refusal(now.refused, me)) and (written_at is None or d.written_at >= written_at)

    document = session.settle(wiring, task, counted, wait)
    decided = document.extension if matter.extension else None
    refused = decided["refused"] if decided else document.refused
    if why := _refusal(refused, me):
        raise Denied(f"your decision about task {task} does not count: {name or me} {why}", hint="Ask an approver.")
    missing = decided["missing"] if decided else document.missing
    render.print_counted_decision(document, decision, matter.digest, expires, missing=missing, as_json=as_json)


def _approvers() -> str:
    from jitvault.policy.decision import APPROVERS, SECURITY

    return f"members of {APPROVERS} or {SECURITY}"


def _groups(wiring: Wiring, task: str, deciders: Sequence[str], named: Sequence[str] | None) -> list[str]:
    """Return the groups in whose name the caller decides.

    These are the groups that the task needs and the caller is registered for, of the `named` ones where there are any.
    Raises Denied where none is left, or where a named group is not among them.
    """
    from jitvault.errors import Denied
    from jitvault.lifecycle.decision.pending_approvals import registration

    mine = registration(wiring.person).registration.groups
    found = [group for group in deciders if group in mine and (not named or group in named)]
    if not found or (named and {*named} - {*found}):
        raise Denied(
            f"task {task} is decided by {' and '.join(deciders)}; you are registered for {' and '.join(mine)}",
            hint="Leave --group out, or ask a member of the other group.",
        )
    return found


def _is_decisive(wiring: Wiring, document: PublishedTask, revision: Revision) -> bool:
    """Return whether the task was decided by an approval of the caller's.

    False where they approved only an extension that still waits. Raises WrongState where they have approved neither
    this revision nor an extension of it.
    """
    from jitvault.documents.signed import payload_of
    from jitvault.errors import WrongState

    me = wiring.person.entity
    task = document.task_id
    if any(one["entity"] == me and one["withdrawn"] for one in document.refused):
        raise WrongState(f"you have withdrawn your approval of task {task} already")
    own = wiring.person.documents.get(decision_path(me, task))
    signed: Mapping[str, Any] = payload_of(own) if own else {}
    if (signed.get("decision"), signed.get("digest")) == ("approve", revision.digest):
        return True
    if not _approved_extension(document, me):
        raise WrongState(f"you have not approved revision {revision.content['revision']} of task {task}")
    return _extended_by(document, me)


def _approved_extension(document: PublishedTask, entity: str) -> bool:
    """Return whether an approval by the entity counts for an extension.

    The extension was made, or still waits.
    """
    return _extended_by(document, entity) or _is_approver(document.extension, entity)


def _extended_by(document: PublishedTask, entity: str) -> bool:
    """Return whether the entity approved an extension of the task."""
    return any(_is_approver(extension, entity) for extension in document.extensions)


def _is_approver(extension: PublishedExtension | GrantedExtension | None, entity: str) -> bool:
    return extension is not None and entity in {one["entity"] for one in extension["approved_by"]}


def _refusal(refused: Sequence[UncountedDecision], entity: str) -> str | None:
    return next((one["why"] for one in refused if one["entity"] == entity), None)
