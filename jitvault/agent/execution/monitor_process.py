"""The monitor's own side, in the process that outlives `jitvault exec`.

`monitor.py` says what it is for.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import socket
import subprocess
import termios
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from jitvault.agent.execution.monitor_messages import Kept, Program, send, split
from jitvault.agent.execution.process_tree import die_with_parent, hold_orphans, kill_below
from jitvault.agent.execution.removal import AT_ONCE_S, WHOLE_S, remove_tree
from jitvault.memory_protection import keep_private

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGPIPE)

GiveBack = Callable[[Kept, int | None], None]
"""Revoke the task's token, and sign the task's end with the program's exit code where a login works."""


class _Server:
    """The monitor's own side.

    `ends` can be read once a process has ended without which nothing goes on. `ignored` are the signals that the caller
    ignored, as after `nohup`: the program ignores them, too.
    """

    def __init__(self, line: socket.socket, ends: Sequence[int], give_back: GiveBack, ignored: Collection[int]) -> None:
        self._ends = ends
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
            for each in (self._wake, *self._ends):
                selector.register(each, selectors.EVENT_READ)
            while not self._is_over:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._wake in ready:
                    with suppress(OSError):
                        os.read(self._wake, 4096)
                    self._reap()
                if self._line in ready and not self._receive():
                    break
                # what that process said before is read first
                if self._line not in ready and not {*ready}.isdisjoint(self._ends):
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
            message, self._received = split(self._received)
            if message is None:
                return True
            self._act(message)

    def _act(self, message: Mapping[str, Any]) -> None:
        if "kept" in message:
            self._kept = Kept.of(message["kept"]) if message["kept"] else None
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
                pass_fds=program.descriptors,
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
            send(self._line, message)


def serve(line: socket.socket, ends: Sequence[int], give_back: GiveBack) -> NoReturn:
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
        _Server(line, ends, give_back, inherited).run()
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
