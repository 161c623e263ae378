"""The steps of `jitvault hold`: ask, tell, wait for an end, give back.

The caller is the process that started this one. It holds the other ends of two pipes. On standard input it asks
`look NUMBER` when a login failed, and says how it leaves, each in one line. Standard input ends when the caller ends,
however that happens, unless something else has a copy of it: so a pidfd of the caller is looked at as well. Standard
output carries lines of JSON:

    {"held": {...}}            the task's credentials, once
    {"ends_at": "time"}        the deadline has moved
    {"changed": {...}}         the credentials of another token, as the first
    {"looked": [1, "reason"]}  why the task is over, "" where it is not: the answer to a question
    {"over": "reason"}         the task is over
    {"given_back": true}       the token is revoked; the last line
"""

from __future__ import annotations

import json
import os
import selectors
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from jitvault.agent.credential import names
from jitvault.agent.execution.mapping import fields_of
from jitvault.agent.execution.monitor import Gone, Monitor
from jitvault.agent.execution.task_watch import AccessEnd, Cause, TaskWatch
from jitvault.agent.sdk.holder import LOOK
from jitvault.cli import session
from jitvault.cli.access.access_watch import watch_of, why_over
from jitvault.cli.access.execute_steps import take_next
from jitvault.cli.access.held_access import Access, OtherToken
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import (
    ApprovalMissing,
    JitvaultError,
    NotFound,
    OutcomeUnknown,
    TaskEnded,
    VaultUnavailable,
    WaitTimedOut,
    WrongState,
)
from jitvault.formats.rfc3339 import rfc3339
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.model.states import LIVE_STATES, EndReason
from jitvault.wiring import SystemClock, Wiring

_LONGEST_WORD = 200
_NOTES = {
    "": "the process that used it ended without giving it back",
    "left": "the block of the Python program was left",
    "exit": "the Python program ended",
}
_FAILED = "failed "


class CallerLeft(Exception):
    """Raised where the caller ends, or gives up, while this process waits."""


class Caller:
    """The process that started this one, by standard input and its pidfd.

    It says in one line how it left; a process that is killed says nothing. `end` is the pidfd, None where the system
    has none.
    """

    def __init__(self, end: int | None = None) -> None:
        self._word = b""
        self._asked: list[int] = []
        self.lines = (0,) if end is None else (0, end)
        """What can be read when something is to be heard of the caller."""

    def left(self, ready: Collection[object]) -> bool:
        """Read what there is, and return whether the caller has left.

        `ready` are the descriptors that can be read.
        """
        received = b""
        if 0 in ready:
            with suppress(OSError):
                # the rest of a question may come with the next ones; a word that never ends is none of ours
                received = os.read(0, _LONGEST_WORD - len(self._word))
            self._word += received
        while b"\n" in self._word and (number := _question(self._word.partition(b"\n")[0])) is not None:
            self._asked.append(number)
            self._word = self._word.partition(b"\n")[2]
        is_at_end = 0 in ready and not received
        return is_at_end or b"\n" in self._word or not set(self.lines[1:]).isdisjoint(ready)

    def asked(self) -> list[int]:
        """Return the numbers of the questions that nobody answered yet."""
        found, self._asked = self._asked, []
        return found

    @property
    def note(self) -> str:
        """How the caller left, for the signed end of the task."""
        word = self._word.decode(errors="replace").strip()
        kind = word.removeprefix(_FAILED)
        if word.startswith(_FAILED) and kind.isidentifier():
            return f"the block of the Python program was left by {kind}"
        return _NOTES.get(word, _NOTES[""])


def _question(line: bytes) -> int | None:
    """Return the number of a question, None for another line."""
    word, _, number = line.decode(errors="replace").partition(" ")
    return int(number) if word == LOOK and number.isdecimal() else None


class CallersClock(SystemClock):
    """A clock whose sleep ends with the caller."""

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self._caller = caller

    def sleep(self, seconds: float) -> None:
        """Wait for some seconds. Raises CallerLeft."""
        with selectors.PollSelector() as selector:
            for each in self._caller.lines:
                selector.register(each, selectors.EVENT_READ)
            deadline = self.monotonic() + seconds
            while (left := deadline - self.monotonic()) > 0:
                if self._caller.left({key.fileobj for key, _ in selector.select(left)}):
                    raise CallerLeft


@contextmanager
def hints_for_a_program() -> Iterator[None]:
    """Have the errors of the block say what a Python program does next."""
    try:
        yield
    except JitvaultError as error:
        error.hint = hint_for_a_program(error)
        raise


def hint_for_a_program(error: JitvaultError) -> str:
    """Return an error's hint, in which the program stands for this command."""
    match error:
        case ApprovalMissing():
            return f"{error.hint} `task(…, wait=…)` waits longer, and the same program can wait again."
        case WaitTimedOut():
            return "Check that a worker is running. The request is stored: enter the block again."
        case OutcomeUnknown():
            return TaskEnded.default_hint
        case VaultUnavailable():
            return "Nothing is lost: enter the block again when Vault answers."
        case WrongState() if not isinstance(error, NotFound):
            return TaskEnded.default_hint
    return error.hint


def end_if_granted(wiring: Wiring, task: str | None) -> None:
    """Sign the end of a task that was granted while its caller left.

    A request that still waits stays: the same program can be started again, and waits on.
    """
    if task is None:
        return
    with suppress(JitvaultError):
        document = session.published(wiring, task)
        if isinstance(document, PublishedTask) and document.state in LIVE_STATES:
            sign_end(wiring.person, task, reason=EndReason.COMPLETED, note="the program left before it took the access")


def hold(access: Access, monitor: Monitor, caller: Caller) -> None:
    """Tell the caller what the task has, and wait until one of them ends.

    The note of the task's end says which. A token that replaces the access's own is taken meanwhile.
    """
    access.on_other = OtherToken.TAKE
    access.note = _NOTES[""]
    tell({"held": _held(access)})
    while (end := _until_over(access, monitor, caller)) is not None and end.cause is Cause.CHANGED:
        take_next(access)
        tell({"changed": _held(access)})
    access.note = caller.note if end is None else end.why


def _until_over(access: Access, monitor: Monitor, caller: Caller) -> AccessEnd | None:
    """Return why the access is over, and tell the caller; None where it left."""
    watch = watch_of(access, lambda ends_at: tell({"ends_at": rfc3339(ends_at)}))
    watch.start()
    try:
        end = _until_the_end(access, watch, monitor, caller)
        if end is not None and end.cause is not Cause.CHANGED:
            # before the watch has stopped: the caller may wait for the answer to a question
            tell({"over": end.why})
    finally:
        watch.stop()
    return end


def _until_the_end(access: Access, watch: TaskWatch, monitor: Monitor, caller: Caller) -> AccessEnd | None:
    """Return why the access is over, None where the caller left."""
    with selectors.PollSelector() as selector:
        for each in (*caller.lines, watch.line, monitor.line):
            selector.register(each, selectors.EVENT_READ)
        while True:
            if (numbers := caller.asked()) and (end := _looked(access, numbers)):
                return end
            ready = {key.fileobj for key, _ in selector.select()}
            if caller.left(ready):
                return None
            if watch.line in ready:
                return watch.end
            if monitor.line in ready and any(isinstance(event, Gone) for event in monitor.events()):
                return AccessEnd(Cause.OVER, "the process that gives it back in any case was killed")


def _looked(access: Access, numbers: Sequence[int]) -> AccessEnd | None:
    """Answer the caller's questions; return why the access is over, or None.

    That it is over answers them all. A token that Vault refuses may be the first sign of another one, for which the
    watch waits longer. What replaces the token is no end: the caller gets the next one's secrets.
    """
    end = None if access.is_replaced else why_over(access, access.wiring)
    if access.is_replaced:
        # it may have been replaced meanwhile
        end = None
    if end is not None and end.cause is not Cause.REFUSED:
        return end
    for number in numbers:
        tell({"looked": [number, end.why if end else ""]})
    return None


def _held(access: Access) -> dict[str, Any]:
    """Return what the caller gets to know."""
    credentials = access.credentials
    return {
        "task_id": access.document.task_id,
        "ends_at": rfc3339(access.ends_at) if access.ends_at else None,
        "credentials": [
            {
                "name": name,
                "template": each.use.template,
                "expires_at": rfc3339(each.expires_at),
                "connection": msgspec.to_builtins(each.connection),
                "fields": dict(fields_of(each)),
            }
            for name, each in zip(names([each.use for each in credentials]), credentials, strict=True)
        ],
    }


def tell(message: Mapping[str, Any]) -> None:
    """Write a line to the caller, if it is still there."""
    left = json.dumps(message).encode() + b"\n"
    with suppress(OSError):
        while left:
            left = left[os.write(1, left) :]
