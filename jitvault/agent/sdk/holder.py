"""The process that holds a task for a Python program.

It is a `jitvault hold` of this Python, in a session of its own. Two pipes lead to it: it gives the access back when
this process says a word in the first, or ends; and this process knows that the task is over when the second one says so
or ends. Both are closed in a copy of this process that `os.fork` makes, so that the copy can neither end the task nor
keep it open. A library may make a copy without Python, which has the pipes: so the holder also sees the end of this
process itself, where the system can show that.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import RLock, Thread
from typing import Any
from weakref import WeakSet

from jitvault.agent.process_end import opened_end
from jitvault.errors import JitvaultError, NotConfirmed, UsageError, error_of

LOOK = "look"
"""What the holder is asked when a login failed: whether the task is over."""
_LONGEST_ERROR = 64 * 1024


@dataclass(frozen=True, slots=True)
class Said:
    """A line for people, such as who has to approve."""

    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """A message: `held`, `looked`, `over` or `given_back`, with its content."""

    kind: str
    content: Any


@dataclass(frozen=True, slots=True)
class Ended:
    """The holder has ended. `error` is why it could not do its work."""

    error: JitvaultError | None


Event = Said | Told | Ended


class Holder:
    """The holder, as the program's process sees it.

    `receive` is called with each event by a thread of this object; the last one is Ended.
    """

    def __init__(self, arguments: Sequence[str], receive: Callable[[Event], None]) -> None:
        if not sys.executable:
            raise UsageError(
                "this Python does not know its own program, so no process can hold the task",
                hint="`jitvault exec SPEC -- PROGRAM` runs a program with the access.",
            )
        # the directory of the program is not searched for modules: one of them may have the name of one of ours
        argv = [sys.executable, "-P", "-m", "jitvault", "hold", "-o", "json"]
        self._receive = receive
        self._is_left = False
        # no process is copied before the pipes are known that are to be closed in the copy
        with _copying:
            self._process = _started(argv, arguments)
            _holders.add(self)
        self._failure: list[str] = []
        self._thread = Thread(target=self._read, name="jitvault task", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def look(self, number: int) -> None:
        """Ask whether the task is over; the answer has the number."""
        with _copying:
            if not self._is_left:
                self._say(f"{LOOK} {number}")

    def leave(self, word: str) -> None:
        """Say how this process left, and close the pipe. The holder then ends."""
        with _copying:
            is_first, self._is_left = not self._is_left, True
        if is_first:
            self._say(word)
            stream = self._process.stdin
            assert stream is not None  # noqa: S101 (for the type checker)
            with suppress(OSError):
                stream.close()

    def _say(self, word: str) -> None:
        stream = self._process.stdin
        assert stream is not None  # noqa: S101 (for the type checker)
        with suppress(OSError):
            stream.write(word.encode() + b"\n")

    def has_ended(self, seconds: float) -> bool:
        """Wait for the holder's end, and return whether it came in time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def forget(self) -> None:
        """Close the pipes in a copy of the process that started the holder."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _read(self) -> None:
        """Pass on what the holder says, until it has ended.

        Whoever waits for it is told of its end in any case: another version may say what is not understood.
        """
        error: JitvaultError | None = NotConfirmed("what the process that holds the task said is not understood")
        try:
            self._pass_on()
            error = _error(self._failure)
        finally:
            self._receive(Ended(error))

    def _pass_on(self) -> None:
        out, error = self._process.stdout, self._process.stderr
        assert out is not None and error is not None  # noqa: S101 (for the type checker)
        lines = {out.fileno(): _Lines(self._message), error.fileno(): _Lines(self._line)}
        # poll has no descriptor of its own that a copy of this process would share
        with selectors.PollSelector() as selector:
            for descriptor in lines:
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    received = os.read(key.fd, 65536)
                    if not received:
                        selector.unregister(key.fd)
                    lines[key.fd].add(received)
        self._process.wait()
        for stream in (out, error):
            stream.close()

    def _message(self, line: str) -> None:
        for kind, content in json.loads(line).items():
            self._receive(Told(kind, content))

    def _line(self, line: str) -> None:
        # the error is the last thing that a command prints, as JSON of several lines
        if self._failure or line == "{":
            self._failure.append(line)
        else:
            self._receive(Said(line))


def _started(argv: Sequence[str], arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the holder, with a descriptor that tells it of this process's end."""
    end = opened_end(os.getpid())
    ends = () if end is None else (end,)
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(  # noqa: S603 (this Python itself)
            [*argv, *(f"--caller-end={each}" for each in ends), *arguments],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
            pass_fds=ends,
            start_new_session=True,
        )
    finally:
        for each in ends:
            os.close(each)


class _Lines:
    """Bytes on their way to becoming lines."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._left = b""

    def add(self, received: bytes) -> None:
        """Take bytes, and pass on the lines that are whole. None means the end."""
        *whole, self._left = (self._left + received).split(b"\n")
        if not received and self._left:
            whole.append(self._left)
        for line in whole:
            self._take(line.decode(errors="replace"))


def _error(lines: Sequence[str]) -> JitvaultError | None:
    """Return the error that the holder printed; None where it printed none."""
    if not lines:
        return None
    try:
        told = json.loads("\n".join(lines)[:_LONGEST_ERROR])["error"]
        return error_of(told["exit_code"], str(told["message"]), str(told["hint"]))
    except (ValueError, KeyError, TypeError):
        return NotConfirmed(f"the process that holds the task failed: {lines[-1]:.200}")


_copying = RLock()
_holders: WeakSet[Holder] = WeakSet()


def _in_copy() -> None:
    for holder in _holders:
        holder.forget()
    _holders.clear()
    _copying.release()


os.register_at_fork(before=_copying.acquire, after_in_parent=_copying.release, after_in_child=_in_copy)
