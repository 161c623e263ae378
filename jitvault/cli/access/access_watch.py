"""Notice that a task is over, or that another token replaced its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from jitvault.agent.execution.task_watch import POLL_S, REFUSED, AccessEnd, Cause, TaskWatch
from jitvault.cli import session
from jitvault.cli.access.held_access import Access, OtherToken, say_beside_program
from jitvault.cli.inbox import message_for
from jitvault.cli.views.task import end_in_words, quoted_note
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError, SecurityFinding, VaultRefused, WrongState
from jitvault.model.states import EndReason, State
from jitvault.wiring import Wiring

# how long after Vault refuses a token the next one is waited for: its leases are proven dead first
NEXT_TOKEN_S = 60.0
ASK_S = 1.5
"""How long what is published is waited for once Vault refuses a token that nothing replaces.

Who asks why an access is over waits for 2 s, and so hears at least that.
"""
_CHANGED = AccessEnd(Cause.CHANGED, "its access has changed")
_REPLACED = AccessEnd(Cause.REPLACED, "more time for it came with another token, which this process does not have")
_TAKEN_BY_OTHERS = AccessEnd(Cause.REPLACED, "more time for it came with another token, which another process took")
_BY_SOMEBODY = (EndReason.OPERATOR, EndReason.FROZEN, EndReason.INTERCEPTED)
_OVER = "`jitvault status TASK` shows who or what ended it. Ask for a task with another id (`--id ID`)."


def watch_of(access: Access, moved: Callable[[datetime], None] | None = None) -> TaskWatch:
    """Return what notices that the task is over.

    `moved` is called with the new deadline where the task gets more time. `access.on_other` says what another token
    means; that Vault refuses this one may be the first sign of it.
    """
    other = wiring_of_thread(access)
    task = access.document.task_id
    own = other.vault(access.token.token)
    grant = access.token.grant_id

    def published_end() -> AccessEnd | None:
        document = session.published(other, task)
        # an answer that comes when the next token is held already says nothing of that one
        if not isinstance(document, PublishedTask) or access.token.grant_id != grant:
            return None
        if end := _end_of(document):
            return end
        if over := _by_other_token(access, other, document):
            return over
        if access.is_replaced or document.grant_id == access.token.grant_id:
            follow(document.ends_at)
        return None

    def beat() -> None:
        # a token that was replaced is dead, and asking with it would be a use after its end
        if not access.is_replaced:
            own.read("auth/token/lookup-self")

    def follow(ends_at: datetime | None) -> None:
        if ends_at is not None and ends_at != access.ends_at:
            access.ends_at = ends_at
            watch.move_end(ends_at)
            if moved is not None:
                moved(ends_at)

    window = access.document.full_revision.spec.spec.window
    watch = TaskWatch(
        published_end=published_end,
        beat=beat,
        heartbeat_s=window.heartbeat.total_seconds() if window.heartbeat else None,
        ends_at=access.ends_at,
        patience_s=ASK_S if access.on_other is OtherToken.STOP else NEXT_TOKEN_S,
    )
    return watch


def wiring_of_thread(access: Access) -> Wiring:
    """Return adapters for another thread than that which took the access.

    Clients of Vault are one thread's alone; the login is shared.
    """
    other = Wiring(access.wiring.settings)
    other.person_token = access.wiring.person_token
    return other


def over_meanwhile(access: Access) -> AccessEnd | None:
    """Return why the task was over when the program ended, None if it was not.

    A program whose session the end of the task closed may be faster than whoever watches the task. So may one whose
    access ends because another token comes, which is waited for where it is to be taken.
    """
    return why_over(access, access.wiring, NEXT_TOKEN_S if access.on_other is OtherToken.TAKE else ASK_S)


def why_over(access: Access, wiring: Wiring, patience_s: float = ASK_S) -> AccessEnd | None:
    """Return why the access is over now, None where it is not.

    A login can be gone before a worker has published why: where Vault refuses the token, that is waited for.
    """
    waits_until = time.monotonic() + patience_s
    while True:
        with suppress(JitvaultError):
            document = session.published(wiring, access.document.task_id)
            if isinstance(document, PublishedTask):
                end = _end_of(document) or _by_other_token(access, wiring, document)
                if end:
                    return end
        if access.is_replaced and access.on_other is not OtherToken.TAKE:
            return _REPLACED
        if not access.is_replaced and _accepts(access, wiring):
            return None
        if time.monotonic() >= waits_until:
            return _REPLACED if access.is_replaced else REFUSED
        time.sleep(min(POLL_S, patience_s / 20))


def over_error(access: Access, end: AccessEnd, what: str = "") -> WrongState:
    """Return the error that says why the access is over, or the task.

    `what` says what became of the program, in the words before that.
    """
    task = access.document.task_id
    if end.cause in (Cause.OVER, Cause.REFUSED):
        return WrongState(f"{what}task {task} is over: {end.why}", hint=_OVER)
    return WrongState(
        f"{what}its access is over: more time for task {task} came with another token"
        + (", which another process took" if end is _TAKEN_BY_OTHERS else ""),
        hint=f"The task goes on. `jitvault status {task}` says who has its token; one that waits in your inbox is "
        f"taken by `jitvault exec {task} -- CMD`. With --on-change restart that is done by itself.",
    )


def _end_of(document: PublishedTask) -> AccessEnd | None:
    """Return why a task is over by what is published, None while it is not.

    The program and its model read it: who revoked the task is quoted, on one line.
    """
    if document.state not in session.DONE | session.ENDING:
        return None
    reason, ended = document.end_reason, document.ended
    if not reason:
        return AccessEnd(Cause.OVER, f"it is {document.state.value}")
    words = end_in_words(reason, ended)
    if reason in _BY_SOMEBODY and ended is not None:
        words += quoted_note(ended)
    return AccessEnd(Cause.OVER, f"it is {document.state.value} ({words})")


def _accepts(access: Access, wiring: Wiring) -> bool:
    """Return whether Vault accepts the task's token, or does not answer."""
    try:
        wiring.vault(access.token.token).read("auth/token/lookup-self")
    except VaultRefused:
        return False
    except JitvaultError:
        pass
    return True


def _by_other_token(access: Access, wiring: Wiring, document: PublishedTask) -> AccessEnd | None:
    """Return why another token is the end of the access, None where it is not.

    `wiring` is the calling thread's.
    """
    if not access.is_replaced_in(document):
        return None
    if access.on_other is OtherToken.IGNORE:
        _tell_loss(access)
        return None
    if access.on_other is OtherToken.STOP:
        return _REPLACED
    is_next = document.grant_id != access.token.grant_id
    if not is_next or document.state is State.ISSUING:
        return None
    if _is_delivered(wiring, document):
        return _CHANGED
    if document.state is not State.ACTIVE:
        return None
    # whoever has it ends the task
    access.on_other = OtherToken.STOP
    return _TAKEN_BY_OTHERS


def _is_delivered(wiring: Wiring, document: PublishedTask) -> bool:
    """Return whether the inbox has something to take.

    Whoever takes it raises the alarm where it is nothing that a worker delivers.
    """
    try:
        message = message_for(wiring, document)
    except SecurityFinding:
        return True
    return message is not None and bool(message["wrapping"])


def _tell_loss(access: Access) -> None:
    """Say once that the program goes on without access."""
    if access.is_loss_told:
        return
    access.is_loss_told = True
    say_beside_program(
        f"task {access.document.task_id} has more time, with another token: the program goes on without access, since "
        "what it was given is revoked. --on-change restart starts a program anew with the next token"
    )
