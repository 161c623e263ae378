"""Requests for more time that were made before: applied or cancelled."""

from __future__ import annotations

from jitvault.cli import session
from jitvault.cli.quiet import note
from jitvault.cli.views import extension as views
from jitvault.cli.views.task import end_in_words, in_words
from jitvault.documents.paths import ANYONE, request_path
from jitvault.documents.published_parts import GrantedExtension, PublishedExtension
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import Denied, WaitTimedOut, WrongState
from jitvault.lifecycle.requests.sign import sign_extension
from jitvault.model.extension import extension_id
from jitvault.model.states import State
from jitvault.wiring import Wiring


def check_none_waits(wiring: Wiring, document: PublishedTask, seconds: int, reason: str) -> None:
    """Raise WrongState while another request for more time waits.

    In Vault an author has one request for a task, so a new one would replace the one that waits, and its approvals with
    it. The same request again replaces nothing. The requester's request comes before the agent's.
    """
    waiting, task = document.extension, document.task_id
    if document.state not in session.GRANTED or waiting is None or waiting.state != "pending":
        return
    content, name = waiting.content, extension_id(waiting.digest)
    author = content.by.name
    if content.by.entity == wiring.person.entity:
        if (content.seconds, content.reason) == (seconds, reason):
            return
        raise WrongState(
            f"task {task}: your request for {in_words(content.seconds)} more (extension {name}, "
            f"{content.reason!r}) still waits {views.waits_for(waiting)}, and another one would replace it",
            hint=f"`jitvault extend {task} --cancel` takes it back; then ask for the other one.",
        )
    if wiring.person.entity == document.requester:
        note(
            f"The request of {author} for more time (extension {name}) waits {views.waits_for(waiting)}. Yours is "
            "decided first, and if it moves the deadline, theirs counts no more."
        )
        return
    raise WrongState(
        f"task {task}: the earlier request of {author} for more time (extension {name}) still waits "
        f"{views.waits_for(waiting)}",
        hint=f"Ask again once it is decided. {author} can cancel it with `jitvault extend {task} --cancel`.",
    )


def made_before(
    wiring: Wiring, document: PublishedTask, seconds: int, reason: str, wait: float
) -> tuple[PublishedTask, GrantedExtension] | None:
    """Return the task and the extension that the same request made.

    None without one. A request is the same if its author, duration and reason are. Where its new token is not issued
    yet, that is waited for.
    """
    found = _made(document, wiring.person.entity, seconds, reason)
    if found is None:
        return None
    document = session.wait_for_worker(wiring, document.task_id, lambda d: d.state is not State.ISSUING, wait)
    if document.state not in session.GRANTED:
        raise Denied(
            f"task {document.task_id} was extended and is {document.state} "
            f"({end_in_words(document.end_reason, document.ended)})",
            hint=f"`jitvault status {document.task_id}` says why it ended. Submit another task.",
        )
    return document, found


def _made(document: PublishedTask, entity: str, seconds: int, reason: str) -> GrantedExtension | None:
    """Return the newest extension of the task by that request."""
    same = [
        each for each in document.extensions if (each.by.entity, each.seconds, each.reason) == (entity, seconds, reason)
    ]
    return same[-1] if same else None


def cancel_request(task: str, *, wait: float) -> None:
    """Cancel the caller's request for more time, while it waits.

    Raises WrongState where none of the caller's waits, or where it was answered first.
    """
    # what asks for less is signed also where no grant could be asked for
    wiring = session.open_session()
    document = session.known(wiring, task)
    waiting = _waiting(document, wiring.person.entity)
    content = waiting.content
    with session.signing(
        f"cancel more time for task {task}",
        "its requester, and its agent where policy lets it,",
        writes=request_path(ANYONE, task, "extend"),
    ):
        nonce = sign_extension(
            wiring.person,
            document.full_revision,
            ends_at=content.since,
            seconds=content.seconds,
            reason=content.reason,
            cancels=waiting.request,
        )
    digest = waiting.digest

    def is_answered(d: PublishedTask) -> bool:
        now = d.extension
        if now is None or d.state not in session.GRANTED:
            return d.state not in session.GRANTED
        return now.request == nonce or _is_over(now, digest)

    document = session.wait_for_worker(wiring, task, is_answered, wait)
    answer = document.extension
    if answer is not None and answer.request == nonce and answer.state == "cancelled":
        views.print_cancelled(document, digest)
        return
    if answer is not None and _is_over(answer, digest):
        raise WrongState(f"task {task}: the request was answered first: more time is {answer.state}")
    if document.state not in session.GRANTED:
        raise WrongState(f"task {task} is {document.state}: nothing waits any more")
    raise WaitTimedOut(f"task {task}: no worker has cancelled the request for more time")


def _waiting(document: PublishedTask, entity: str) -> PublishedExtension:
    """Return the caller's request that waits. Raises WrongState without one."""
    waiting = document.extension
    if document.state not in session.GRANTED or waiting is None or waiting.state != "pending":
        raise WrongState(f"task {document.task_id}: no request for more time waits")
    if waiting.content.by.entity != entity:
        author = waiting.content.by.name
        raise WrongState(
            f"task {document.task_id}: the request for more time is {author}'s, who alone can cancel it",
            hint=f"An approver can deny it with `jitvault deny {document.task_id}`.",
        )
    return waiting


def _is_over(extension: PublishedExtension, digest: str) -> bool:
    return extension.digest == digest and extension.state != "pending"
