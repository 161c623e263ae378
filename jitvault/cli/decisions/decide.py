"""Sign a decision about a task or an extension, and wait for its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jitvault.cli import session
from jitvault.cli.lookups.seen_freezes import SeenFreezes
from jitvault.cli.published import ledger_here
from jitvault.cli.quiet import is_quiet
from jitvault.cli.views import extension, output, proposal
from jitvault.cli.views import task as render
from jitvault.documents.paths import ANYONE, APPROVAL_LIFE, decision_path
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import Denied, UsageError, WrongState
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.rfc3339 import rfc3339
from jitvault.lifecycle.decision.pending_approvals import (
    ApprovalSubject,
    approval_subject,
    barring_part,
    changes,
    registration,
)
from jitvault.lifecycle.requests.sign import sign_decision
from jitvault.model.event_bodies import Refusal
from jitvault.model.states import State
from jitvault.policy.decision import APPROVERS, SECURITY
from jitvault.wiring import Wiring


def decide(
    task: str,
    decision: str,
    *,
    digest: str | None,
    groups: Sequence[str] | None,
    reason: str,
    yes: bool,
    wait: float,
) -> None:
    """Show what is decided about, sign the decision, and print the result.

    Raises Denied where the decision cannot count, or does not.
    """
    wiring = session.open_session()
    document = session.known(wiring, task)
    matter = approval_subject(document)
    if matter is None:
        raise WrongState(f"task {task} is {document.state}: there is nothing to decide")
    _check_may_decide(wiring, matter, decision, digest)
    counts_until = _counts_until(wiring, matter)
    if decision == "approve" and counts_until is not None:
        render.print_counted_decision(document, decision, matter.digest, counts_until, missing=(), again=" already")
        return
    with session.signing(f"decide about task {task}", approvers(), writes=decision_path(ANYONE, task)):
        names = _groups(wiring, matter, decision, groups)
    differs = changes(document) if matter.extension is None else None
    if not (yes and is_quiet()):
        proposal.print_proposal(matter, differs, names, frozen=_freeze(wiring, document))
    if decision == "deny" and not reason:
        requester = matter.revision.content.requester.name
        output.warn(f"No reason is given: {requester} will not know why. --reason WHY gives one.")
    if not yes:
        session.ask(proposal.question(matter, decision), done="nothing was signed")
    with session.signing(f"decide about task {task}", approvers(), writes=decision_path(ANYONE, task)):
        expires = sign_decision(
            wiring.person,
            matter.revision,
            decision=decision,
            groups=names,
            reason=reason,
            extension=matter.extension,
        )
    _await_counting(wiring, task, matter, decision, rfc3339(expires), wait=wait)


def _counts_until(wiring: Wiring, matter: ApprovalSubject) -> str | None:
    """Return until when the caller's approval of an approved task can be used.

    None where there is none that can. Another one would add nothing, and a requester who waits for the token would have
    to ask for it again.
    """
    document = matter.document
    me = wiring.person.entity
    if document.state is not State.APPROVED or not matter.is_decided_by(me, "approve"):
        return None
    signed = session.written_at(wiring, decision_path(me, document.task_id))
    withdrawn = session.written_at(wiring, decision_path(me, document.task_id, "/withdraw"))
    # what no worker has read may take the approval back
    if signed is None or max(signed, withdrawn or signed) > document.written_at:
        return None
    if wiring.clock.agreed() >= signed + APPROVAL_LIFE:
        return None
    return rfc3339(signed + APPROVAL_LIFE)


def _freeze(wiring: Wiring, document: PublishedTask) -> Mapping[str, Any] | None:
    """Return the freeze that covers the task, as far as the caller can see it."""
    return SeenFreezes(wiring, ledger_here(wiring)).covering(document.full_revision.content)


def _check_may_decide(wiring: Wiring, matter: ApprovalSubject, decision: str, digest: str | None) -> None:
    """Raise WrongState or Denied for a decision that could not count.

    A denial of what policy denies already is possible, and said to be one.
    """
    document = matter.document
    task = document.task_id
    if document.state == "denied" and any(one.decision == "deny" for one in document.decisions):
        raise WrongState(
            f"task {task} is denied: {document.why_denied}",
            hint="The denial of this revision is final. Its requester can change the spec and run "
            "`jitvault submit SPEC --revise`.",
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
        if decision == "approve":
            raise _not_now(task, denied)
        output.warn(denied)


def _not_now(task: str, denied: str) -> Denied:
    """Return the refusal of an approval while policy denies the task.

    What policy will require is not known: an approval would be signed for groups that it does not name yet, and by
    somebody who cannot be shown the terms.
    """
    return Denied(
        f"{denied}; nothing was signed",
        hint=f"When that has changed, its requester runs `jitvault grant {task}` again. The task then waits for your "
        "approval, and you are shown by which terms it would be granted.",
    )


def _await_counting(
    wiring: Wiring, task: str, matter: ApprovalSubject, decision: str, expires: str, *, wait: float
) -> None:
    """Wait until a worker has counted the decision, and print the result.

    Raises Denied where it does not count.
    """
    me = wiring.person.entity
    name = wiring.person.me.display_name
    written_at = session.written_at(wiring, decision_path(me, task, matter.path_part))

    def counted(d: PublishedTask) -> bool:
        now = approval_subject(d)
        if now is None or now.digest != matter.digest:
            return True
        # what was published before is about an earlier decision of this approver
        is_newer = written_at is None or d.written_at >= written_at
        return is_newer and (now.is_decided_by(me, decision) or bool(_refusal(now.refused, me)))

    document = session.wait_for_worker(wiring, task, counted, wait)
    decided = document.extension if matter.extension else None
    refused = decided.refused if decided else document.refused
    if why := _refusal(refused, me):
        raise Denied(f"your decision about task {task} does not count: {name or me} {why}", hint="Ask an approver.")
    missing = decided.missing if decided else document.missing
    if matter.extension is not None:
        extension.print_decided(document, matter.extension, decision, expires, missing=missing)
        return
    render.print_counted_decision(
        document,
        decision,
        matter.digest,
        expires,
        missing=missing,
        again=" again" if matter.is_decided_by(me, decision) else "",
    )


def approvers() -> str:
    """Return who can decide, as the end of "Only … can"."""
    return f"members of {APPROVERS} or {SECURITY}"


def _groups(wiring: Wiring, matter: ApprovalSubject, decision: str, named: Sequence[str] | None) -> list[str]:
    """Return the groups in whose name the caller decides.

    An approval is given for the groups that the task needs and the caller is registered for. A denial is given for all
    groups that the caller is registered for: policy may need others of them when the denial is counted, and it has to
    count then as well. With `named` only those groups are signed for. Raises Denied where no group can decide, or where
    a named group is not among those that can.
    """
    mine = registration(wiring.person).registration.groups
    deciders = matter.obligations.deciders
    for group in named or ():
        if group not in (*deciders, *mine):
            raise UsageError(
                f"--group {group!a:.80}: nobody decides in that name{nearest(group, (*deciders, *mine))}",
                hint=f"Task {matter.document.task_id} is decided by {' and '.join(deciders)}; you are registered for "
                f"{' and '.join(mine)}.",
            )
    found = [group for group in deciders if group in mine and (not named or group in named)]
    if not found or (named and {*named} - {*found}):
        raise Denied(
            f"task {matter.document.task_id} is decided by {' and '.join(deciders)}; you are registered for "
            f"{' and '.join(mine)}",
            hint="Leave --group out, or ask a member of the other group.",
        )
    return list(mine) if decision == "deny" and not named else found


def _refusal(refused: Sequence[Refusal], entity: str) -> str | None:
    return next((one.why for one in refused if one.entity == entity), None)
