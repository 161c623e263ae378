"""The process that starts the program, and outlives `jitvault exec`.

    monitor = Monitor.fork(give_back)
    monitor.clean_up_later(kept)                 # what is to be cleaned up should this process die
    monitor.start(Program(argv, environment), [stdin, stdout, stderr])
    monitor.events()                             # readable when the program has ended, or the monitor has
    monitor.over()

It has a session of its own, so no signal of a terminal or of the caller's process group reaches it, and a socket to
`jitvault exec`. At the end of that socket it kills every process below it, removes the secret files and calls
`give_back`, which revokes the task's token with the token itself: no login and no worker is needed for that. When the
monitor is killed the kernel kills the program, and `jitvault exec`, which sees the end of the socket, does the rest.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from jitvault.agent.execution.process_tree import die_with_parent, hold_orphans, kill_below
from jitvault.agent.execution.removal import AT_ONCE_S, WHOLE_S, remove_tree
from jitvault.memory_protection import keep_private

_LENGTH = 8
_PAUSE_S = 0.005
# the monitor kills what is left within 10 s
_LAST_S = 12.0
_LONGEST = 64 * 1024 * 1024
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGPIPE)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is to be given back.

    That is the task's token, "" before it is unwrapped, and the directory of its files.
    """

    task: str
    token: str = field(default="", repr=False)
    directory: str | None = None


GiveBack = Callable[[Kept, int | None], None]
"""Revoke the task's token, and sign the task's end with the program's exit code where a login works."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is started.

    `argv` has the name first; `environment` is the whole one. With `has_terminal` the program's standard output is its
    controlling terminal.
    """

    executable: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    has_terminal: bool = False


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
    def fork(cls, give_back: GiveBack) -> Monitor:
        """Start the monitor as a copy of this process.

        This process must have one thread and no connection.
        """
        ours, its = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _serve(its, give_back)
        its.close()
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
        message, self._received = _split(self._received)
        return message

    def _send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        with suppress(OSError):
            _send(self.line, message, descriptors)


def _event(message: Mapping[str, Any]) -> Event:
    if "started" in message:
        return Started(int(message["started"]))
    if "failed" in message:
        return NotStarted(int(message["failed"]))
    return Exited(int(message["exited"]))


class _Server:
    """The monitor's own side.

    `ignored` are the signals that the caller ignored, as after `nohup`: the program ignores them, too.
    """

    def __init__(self, line: socket.socket, give_back: GiveBack, ignored: Collection[int]) -> None:
        self._ignored = ignored
        self._line = line
        self._give_back = give_back
        self._kept: Kept | None = None
        self._program: subprocess.Popen[bytes] | None = None
        self._code: int | None = None
        self._is_over = False
        self._received = b""
        self._descriptors: list[int] = []
        self._wake, self._woken = os.pipe()

    def run(self) -> None:
        """Serve until `jitvault exec` is over or gone.

        Whatever is still there then is killed, and what it did not clean up is cleaned up.
        """
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._line, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while not self._is_over:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._wake in ready:
                    with suppress(OSError):
                        os.read(self._wake, 4096)
                    self._reap()
                if self._line in ready and not self._receive():
                    break
        self._kill_all()
        if not self._is_over:
            self._clean_up()

    def _kill_all(self) -> None:
        kill_below(os.getpid(), self._program.pid if self._program and self._code is None else None)

    def _clean_up(self) -> None:
        if self._kept is None:
            return
        self._remove_files(AT_ONCE_S)
        try:
            self._give_back(self._kept, self._code)
        finally:
            self._remove_files(WHOLE_S)

    def _remove_files(self, within_s: float) -> None:
        if self._kept is not None and self._kept.directory is not None:
            remove_tree(Path(self._kept.directory), within_s)

    def _receive(self) -> bool:
        """Act on what was received; return whether `jitvault exec` is still there."""
        try:
            received, descriptors, _, _ = socket.recv_fds(self._line, 65536, 3)
        except OSError:
            return False
        self._descriptors += descriptors
        if not received:
            return False
        self._received += received
        while True:
            message, self._received = _split(self._received)
            if message is None:
                return True
            self._act(message)

    def _act(self, message: Mapping[str, Any]) -> None:
        if "kept" in message:
            self._kept = Kept(**message["kept"]) if message["kept"] else None
        elif "program" in message:
            self._start(Program(**message["program"]))
        elif "signal" in message:
            if self._program is not None and self._code is None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._program.pid, message["signal"])
        elif "kill" in message:
            self._kill_all()
        elif "over" in message:
            self._is_over = True

    def _start(self, program: Program) -> None:
        streams, self._descriptors = self._descriptors[:3], []
        # a program before this one has ended, and what it left behind was killed
        self._program = self._code = None
        try:
            self._program = subprocess.Popen(  # noqa: S603 (the program that the caller named)
                list(program.argv),
                executable=program.executable,
                env=dict(program.environment),
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                start_new_session=True,
                # this process has one thread, so nothing can hold a lock in the copy
                preexec_fn=lambda: _prepare(program, self._ignored),  # noqa: PLW1509
            )
        except OSError as error:
            self._answer({"failed": error.errno or 0})
        else:
            self._answer({"started": self._program.pid})
        finally:
            for descriptor in streams:
                os.close(descriptor)
        self._reap()

    def _reap(self) -> None:
        """Report the end of the program, and take the exit codes of orphans."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if self._program is not None and pid == self._program.pid:
                    self._code = os.waitstatus_to_exitcode(status)
                    self._answer({"exited": self._code})

    def _answer(self, message: Mapping[str, Any]) -> None:
        with suppress(OSError):
            _send(self._line, message)


def _serve(line: socket.socket, give_back: GiveBack) -> NoReturn:
    """Be the monitor, in the copy of the process."""
    code = 1
    try:
        os.setsid()
        # Python itself ignores SIGPIPE
        inherited = [n for n in _IGNORED if n != signal.SIGPIPE and signal.getsignal(n) == signal.SIG_IGN]
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        hold_orphans()
        keep_private()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        _Server(line, give_back, inherited).run()
        code = 0
    finally:
        # not as an exception leaves a process: what the copied process registered for its exit is not ours
        os._exit(code)


def _prepare(program: Program, ignored: Collection[int]) -> None:
    """Set up the new process, right before it becomes the program."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    if program.has_terminal:
        fcntl.ioctl(1, termios.TIOCSCTTY, 0)
    parent = os.getppid()
    die_with_parent()
    if os.getppid() != parent:
        # the monitor was killed before the kernel knew
        os._exit(1)


def _send(line: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    body = json.dumps(message).encode()
    whole = len(body).to_bytes(_LENGTH, "big") + body
    if not descriptors:
        line.sendall(whole)
        return
    sent = line.sendmsg([whole], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])
    line.sendall(whole[sent:])


def _split(received: bytes) -> tuple[dict[str, Any] | None, bytes]:
    """Return the first whole message, or None, and what follows it."""
    if len(received) < _LENGTH:
        return None, received
    end = _LENGTH + int.from_bytes(received[:_LENGTH], "big")
    if end > _LONGEST:
        sys.exit(1)
    if len(received) < end:
        return None, received
    message: dict[str, Any] = json.loads(received[_LENGTH:end])
    return message, received[end:]
