"""Ask for a grant, wait for what it still lacks, and say why there is none.

What a grant may lack is approvals, and the beginning of its window.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jitvault.agent.command_events import Approvals, Waiting
from jitvault.cli import caller, session
from jitvault.cli.options import DEFAULT_WAIT
from jitvault.cli.quiet import waits
from jitvault.cli.views.queue import window_start
from jitvault.cli.views.task import by_whom, how_to_go_on, in_words, missing_approvals, print_decision
from jitvault.cli.waiting import Wait
from jitvault.documents.paths import request_path
from jitvault.documents.published_task import PublishedTask
from jitvault.documents.signed import payload_of
from jitvault.errors import ApprovalMissing, AuditUntrusted, Denied, VaultUnavailable, WrongState
from jitvault.formats.canonical_json import digest_of
from jitvault.lifecycle.requests.sign import sign_grant_request
from jitvault.model.grant_refusal import QUEUE_LIFE
from jitvault.model.spec import TaskSpec
from jitvault.model.states import State
from jitvault.wiring import Wiring

_OPEN_FINDING_RULE = "no-access-with-an-open-finding"
"""The id of the shipped policy by which an agent with an open finding gets nothing."""


@dataclass(frozen=True, slots=True)
class GrantAsked:
    """A request for a grant that the caller has just signed.

    `nonce` names it, and `queued_until` says until when it waits, if it is queued.
    """

    nonce: str
    queued_until: datetime | None

    def is_refused(self, document: PublishedTask) -> bool:
        return document.refused_request == self.nonce

    def is_open(self, document: PublishedTask) -> bool:
        """Return whether the request was neither granted nor refused."""
        may_be_granted = document.state in (State.PENDING_APPROVAL, State.APPROVED)
        return may_be_granted and not self.is_refused(document)

    def check_not_refused(self, document: PublishedTask) -> None:
        """Raise the error by which a worker refused the request.

        A task that is denied says so itself.
        """
        refusal = document.refused_grant
        if refusal is not None and self.is_refused(document) and document.state is not State.DENIED:
            raise session.refused(refusal.error)


def queue_end(wiring: Wiring, spec: TaskSpec, *, queue: bool) -> datetime | None:
    """Return until when the request for the grant waits, or None.

    None is for a request that does not wait. One that waits already goes on waiting until its own time, so that asking
    again does not end it.
    """
    now = wiring.clock.agreed().replace(microsecond=0)
    if queue:
        return min(now + QUEUE_LIFE, spec.window.until or now + QUEUE_LIFE).astimezone(UTC)
    stored = wiring.person.documents.get(request_path(wiring.person.entity, spec.id, "grant"))
    former = payload_of(stored) if stored else {}
    if former.get("queued_until") is None or former.get("spec_digest") != digest_of(spec.canonical()):
        return None
    until = datetime.fromisoformat(former["queued_until"])
    return until if until > now else None


def request_grant(
    wiring: Wiring, spec: TaskSpec, *, queue: bool, wait: float | None
) -> tuple[GrantAsked, PublishedTask]:
    """Sign a request for a grant; return the request and what became of it.

    Without `wait` the result is what a worker did at once. With `wait`, in seconds, the command waits that long for
    approvals and for the window, and signs another request when nothing is missing: a request for the requester's
    inbox counts only after the last approval.
    """
    clock = wiring.clock
    deadline = clock.monotonic() + (wait or 0.0)
    asked, document = _ask(wiring, spec, queue=queue, wait=DEFAULT_WAIT if wait is None else wait)
    while clock.monotonic() < deadline and _waits(wiring, asked, document, spec):
        document = _when_nothing_is_missing(wiring, asked, document, spec, deadline)
        if document.state is State.APPROVED and not _lacks_something(wiring, asked, document, spec):
            # the approvals may have come at the last moment: a worker still has the usual time to issue
            left = max(DEFAULT_WAIT, deadline - clock.monotonic())
            asked, document = _ask(wiring, spec, queue=queue, wait=left)
    return asked, document


def is_about(document: PublishedTask, spec: TaskSpec, wiring: Wiring) -> bool:
    """Return whether a published task is the caller's, with this spec."""
    return document.requester == wiring.person.entity and spec_of(document) == spec.canonical()


def spec_of(document: PublishedTask) -> dict[str, Any]:
    """Return the canonical spec of a published task."""
    return document.full_revision.content.spec


def own_request(wiring: Wiring, task_id: str, kind: str) -> str:
    """Return the path of the caller's request of that kind."""
    return request_path(wiring.person.entity, task_id, kind)


def _ask(wiring: Wiring, spec: TaskSpec, *, queue: bool, wait: float) -> tuple[GrantAsked, PublishedTask]:
    """Sign a request for a grant, and wait for a worker's answer."""
    until = queue_end(wiring, spec, queue=queue)
    asked = GrantAsked(sign_grant_request(wiring.person, spec, queued_until=until), until)
    signed = session.Signed(
        at=session.written_at(wiring, own_request(wiring, spec.id, "grant")),
        submitted=session.written_at(wiring, own_request(wiring, spec.id, "submit")),
    )

    def is_answered(document: PublishedTask) -> bool:
        if asked.is_refused(document) or (until is not None and document.error is not None):
            return True
        # a task stays approved only before its window; where Vault's answer was lost, it stays issuing for a while
        goes_on = document.state is State.ISSUING or (document.state is State.APPROVED and _is_open(wiring, spec))
        if goes_on or not is_about(document, spec, wiring):
            session.check_not_final(document)
            return False
        return True

    return asked, session.wait_for_worker(wiring, spec.id, is_answered, wait, signed)


def _waits(wiring: Wiring, asked: GrantAsked, document: PublishedTask, spec: TaskSpec) -> bool:
    """Return whether the command goes on waiting.

    A task lacks nothing and is not granted where it was approved while another process had it in hand: nobody has read
    the request yet. One that is queued waits for that without the command.
    """
    may_wait = asked.queued_until is None or _lacks_something(wiring, asked, document, spec)
    return asked.is_open(document) and may_wait


def _lacks_something(wiring: Wiring, asked: GrantAsked, document: PublishedTask, spec: TaskSpec) -> bool:
    """Return whether approvals are missing, or the window has not begun."""
    if not asked.is_open(document):
        return False
    return document.state is State.PENDING_APPROVAL or not _is_open(wiring, spec)


def _is_open(wiring: Wiring, spec: TaskSpec) -> bool:
    return spec.window.opens(wiring.clock.agreed())


def _when_nothing_is_missing(
    wiring: Wiring, asked: GrantAsked, document: PublishedTask, spec: TaskSpec, deadline: float
) -> PublishedTask:
    """Return the task when it lacks nothing, or as it is at the deadline.

    Vault may be away for a while, and the audit stream late: they are asked again until the deadline.
    """
    waiting = Wait(wiring, deadline - wiring.clock.monotonic(), poll_s=1.0)
    told = ""
    while not waiting.is_over:
        lacks = _what_it_lacks(document) if _lacks_something(wiring, asked, document, spec) else ""
        if lacks and lacks != told:
            told = lacks
            missing = tuple(Approvals(each.group, each.count) for each in document.missing)
            caller.tell(Waiting(spec.id, missing, spec.window.not_before, lacks))
            how = f". To approve: `jitvault approve {spec.id}`" if document.missing else ""
            waits(f"Task {spec.id} waits for {lacks}; this command waits {in_words(max(1, waiting.left_s))} more{how}")
        waiting.rest()
        try:
            document = session.wait_for_worker(wiring, spec.id, lambda _: True, DEFAULT_WAIT)
        except (VaultUnavailable, AuditUntrusted):
            if waiting.is_over:
                raise
        if not _lacks_something(wiring, asked, document, spec):
            break
    return document


def _what_it_lacks(document: PublishedTask) -> str:
    if document.missing:
        return missing_approvals(document.missing)
    return f"its window, which begins at {window_start(document)}"


def raise_for(document: PublishedTask, *, is_grant: bool = False, waited: float | None = None) -> None:
    """Raise the error that gives a task that was not granted its exit code.

    `grant` prints the task's state first. `waited` is for how many seconds the command waited for approvals. `submit`
    gives neither: it has printed the state, and to it a task that waits is a success.
    """
    state = document.state
    task = document.task_id
    is_submit = not is_grant and waited is None
    if state in ("issued", "active") or (is_submit and state in ("issuing", "approved", "pending_approval")):
        return
    if is_grant and state in ("pending_approval", "approved", "denied", "lapsed"):
        print_decision(document, is_refused=True)
    if state == "pending_approval":
        missing = ", ".join(f"{m.count} of {m.group}" for m in document.missing)
        after = f" after {in_words(waited)}" if waited else ""
        raise ApprovalMissing(f"task {task} needs approval{after}: {missing}", hint=how_to_go_on(document))
    if state == "denied":
        by_a_person = any(one.decision == "deny" for one in document.decisions)
        final = "The denial of this revision is final. Change the spec and run `jitvault submit SPEC --revise`."
        hint = final if by_a_person else _ask_to_close_findings(document)
        raise Denied(f"task {task} is denied: {document.why_denied}", hint=hint)
    if state in ("approved", "issuing"):
        raise _not_issued(document)
    by = by_whom(document.ended) if state == "cancelled" and document.ended is not None else ""
    again = "`jitvault submit SPEC` asks again, as long as its window is not over. " if state == "lapsed" else ""
    raise WrongState(f"task {task} is {state}{by}", hint=f"{again}With `--id ID` the same spec asks for another task.")


def _ask_to_close_findings(document: PublishedTask) -> str | None:
    """Return whom to ask where an open finding of the agent is in the way."""
    if _OPEN_FINDING_RULE not in document.decision.rules:
        return None
    agent = document.full_revision.content.agent.name
    return (
        f"Ask whoever runs the worker for `jitvault findings close --agent {agent} --reason WHY`, once the finding was "
        f"looked into. Then run `jitvault grant {document.task_id}` again."
    )


def _not_issued(document: PublishedTask) -> WrongState:
    """Return the error for an approved task whose token was not issued, or not surely.

    Its window has not begun, or another process has it in hand.
    """
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
