"""The process that starts the program, and outlives `jitvault exec`.

    monitor = Monitor.fork(give_back)
    monitor.clean_up_later(kept)                 # what is to be cleaned up should this process die
    monitor.start(Program(argv, environment), [stdin, stdout, stderr])
    monitor.events()                             # readable when the program has ended, or the monitor has
    monitor.over()

It has a session of its own, so no signal of a terminal or of the caller's process group reaches it, and a socket to
`jitvault exec`. At the end of that socket, or of that process, it kills every process below it, removes the secret
files and calls `give_back`, which revokes the task's token with the token itself: no login and no worker is needed for
that. When the monitor is killed the kernel kills the program, and `jitvault exec`, which sees the end of the socket,
does the rest.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from jitvault.agent.execution.monitor_messages import Kept, Program, send, split
from jitvault.agent.execution.monitor_process import GiveBack, serve
from jitvault.agent.process_end import opened_end

_PAUSE_S = 0.005
# the monitor kills what is left within 10 s
_LAST_S = 12.0


@dataclass(frozen=True, slots=True)
class Started:
    """The program runs."""

    pid: int


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The program could not be started; `number` is the `errno`."""

    number: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The program has ended.

    `code` is its exit code, or the negative number of the signal that killed it.
    """

    code: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The monitor itself was killed."""


Event = Started | NotStarted | Exited | Gone


class Monitor:
    """The monitor as `jitvault exec` sees it."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self.line = line
        self._received = b""
        self._keeps = False

    @classmethod
    def fork(cls, give_back: GiveBack, ends: Sequence[int] = ()) -> Monitor:
        """Start the monitor as a copy of this process.

        This process must have one thread and no connection. `ends` are those of further processes without which there
        is nothing to watch over (`opened_end`).
        """
        ours, its = socket.socketpair()
        # before there is a copy, so that it is about this process and no later one of its number
        own = opened_end(os.getpid())
        pid = os.fork()
        if pid == 0:
            ours.close()
            serve(its, [*ends, *(() if own is None else (own,))], give_back)
        its.close()
        if own is not None:
            os.close(own)
        return cls(pid, ours)

    def clean_up_later(self, kept: Kept | None) -> None:
        """Say what is cleaned up should this process die.

        With None nothing is, any more.
        """
        self._keeps = kept is not None
        self._send({"kept": asdict(kept) if kept else None})

    def start(self, program: Program, streams: Sequence[int]) -> None:
        """Start the program with these descriptors as its standard streams."""
        self._send({"program": asdict(program)}, streams)

    def signal(self, number: int) -> None:
        """Send a signal to the program's process group."""
        self._send({"signal": int(number)})

    def kill_all(self) -> None:
        """Kill the program and every process below it."""
        self._send({"kill": True})

    def over(self) -> None:
        """Say that this process is done.

        Where it has given everything back the monitor kills what is left below it, and ends; a monitor that does not is
        killed. Where it has not, the monitor goes on trying in the background, as if this process had been killed.
        """
        if not self._keeps:
            self._send({"over": True})
        with suppress(OSError):
            self.line.close()
        if not self._keeps and not self._has_ended(_LAST_S):
            self.kill()

    @property
    def goes_on(self) -> bool:
        """Whether the monitor has to give back what this process has not."""
        return self._keeps

    @property
    def is_stopped(self) -> bool:
        """Whether somebody stopped the monitor, which then watches over nothing."""
        with suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        return False

    @property
    def is_alive(self) -> bool:
        """Whether the monitor is there to give something back."""
        with suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        return False

    def kill(self) -> None:
        """Kill the monitor, which does not answer.

        The kernel kills the program with it.
        """
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._has_ended(_LAST_S)

    def _has_ended(self, seconds: float) -> bool:
        """Wait for the monitor's end, and return whether it came in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(ChildProcessError):
                if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                    time.sleep(_PAUSE_S)
                    continue
            return True
        return False

    def events(self) -> list[Event]:
        """Return what happened, by what can be read now. Blocks where nothing can."""
        try:
            received = self.line.recv(65536)
        except OSError:
            received = b""
        if not received:
            return [Gone()]
        self._received += received
        found: list[Event] = []
        while (message := self._next()) is not None:
            found.append(_event(message))
        return found

    def _next(self) -> dict[str, Any] | None:
        message, self._received = split(self._received)
        return message

    def _send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        with suppress(OSError):
            send(self.line, message, descriptors)


def _event(message: Mapping[str, Any]) -> Event:
    if "started" in message:
        return Started(int(message["started"]))
    if "failed" in message:
        return NotStarted(int(message["failed"]))
    return Exited(int(message["exited"]))
