"""Approvers' commands: `approve`, `deny`, `withdraw` and `approvals`.

They show exactly what would be granted before anything is signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from jitvault.cli import session
from jitvault.cli.decisions.decide import approvers, decide
from jitvault.cli.lookups.seen_freezes import SeenFreezes
from jitvault.cli.options import DEFAULT_WAIT, Reason, Task, Wait, Yes
from jitvault.cli.published import ledger_here
from jitvault.cli.views import task as render
from jitvault.cli.views.proposal import print_pending
from jitvault.documents.paths import ANYONE, decision_path
from jitvault.documents.published_parts import CountedDecision, PublishedExtension
from jitvault.documents.published_task import PublishedTask
from jitvault.documents.signed import payload_of
from jitvault.errors import WrongState
from jitvault.lifecycle.decision.pending_approvals import pending_approvals
from jitvault.lifecycle.requests.sign import sign_withdrawal
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
) -> None:
    """Show what a task would be granted, and sign your approval.

    The signature is over the digest of exactly what is shown. If the task waits for more time, you approve that.

    Example: jitvault approve count-orders --reason "agreed with the data owner"
    """
    decide(task, "approve", digest=digest, groups=group, reason=reason, yes=yes, wait=wait)


def deny(
    task: Task,
    digest: Digest = None,
    group: Groups = None,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = DEFAULT_WAIT,
) -> None:
    """Show what a task would be granted, and sign a denial.

    One denial outweighs any number of approvals.

    Example: jitvault deny count-orders --reason "the orders have a report of their own"
    """
    decide(task, "deny", digest=digest, groups=group, reason=reason, yes=yes, wait=wait)


def withdraw(
    task: Task,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = DEFAULT_WAIT,
) -> None:
    """Withdraw your approval of a task.

    A task that has not been granted waits for another approval. A task that was granted by yours ends.

    Example: jitvault withdraw count-orders --reason "approved by mistake"
    """
    wiring = session.open_session()
    document = session.known(wiring, task)
    if document.state not in session.BEFORE | session.GRANTED:
        raise WrongState(f"task {task} is {document.state}: there is no approval to withdraw")
    revision = document.full_revision
    with session.signing(f"withdraw from task {task}", approvers(), writes=decision_path(ANYONE, task, "/withdraw")):
        is_decisive = _is_decisive(wiring, document, revision)
        if not yes:
            ends = document.state in session.GRANTED and is_decisive
            what = " Its access is revoked at once, and the task ends" if ends else ""
            session.ask(f"Withdraw your approval of {task}?{what}", done="nothing was signed")
        sign_withdrawal(wiring.person, revision, reason=reason)
    me = wiring.person.entity
    was_granted = document.state in session.GRANTED

    def counted(d: PublishedTask) -> bool:
        if was_granted:
            return d.state in session.DONE or not (is_decisive or _approved_extension(d, me))
        return CountedDecision(me, "approve", revision.digest) not in d.decisions

    document = session.wait_for_worker(wiring, task, counted, wait)
    render.print_counted_decision(document, "withdraw", revision.digest, None, missing=document.missing)


def approvals() -> None:
    """Show every task that waits for your approval.

    For each, the command shows what it would be granted and what changed since it was approved last, and whether you
    have signed that and no worker has read it yet.

    Example: jitvault approvals
    """
    wiring = session.open_session()
    with session.allowed("see what waits for approval", approvers()):
        found = pending_approvals(wiring.person)
    freezes = SeenFreezes(wiring, ledger_here(wiring))
    frozen = {each.task_id: freezes.covering(each.subject.revision.content) for each in found}
    print_pending(found, frozen)


def _is_decisive(wiring: Wiring, document: PublishedTask, revision: Revision) -> bool:
    """Return whether the task was decided by an approval of the caller's.

    False where they approved only an extension that still waits. Raises WrongState where they have approved neither
    this revision nor an extension of it.
    """
    me = wiring.person.entity
    task = document.task_id
    if any(one.entity == me and one.withdrawn for one in document.refused):
        raise WrongState(f"you have withdrawn your approval of task {task} already")
    own = wiring.person.documents.get(decision_path(me, task))
    signed: Mapping[str, Any] = payload_of(own) if own else {}
    if (signed.get("decision"), signed.get("digest")) == ("approve", revision.digest):
        return True
    if not _approved_extension(document, me):
        raise WrongState(f"you have not approved revision {revision.content.revision} of task {task}")
    return _extended_by(document, me)


def _approved_extension(document: PublishedTask, entity: str) -> bool:
    """Return whether an approval by the entity counts for an extension.

    The extension was made, or still waits.
    """
    return _extended_by(document, entity) or _is_approver(document.extension, entity)


def _extended_by(document: PublishedTask, entity: str) -> bool:
    """Return whether the entity approved an extension of the task."""
    return any(entity in {one.entity for one in extension.approved_by} for extension in document.extensions)


def _is_approver(extension: PublishedExtension | None, entity: str) -> bool:
    return extension is not None and entity in {one.entity for one in extension.approved_by}
