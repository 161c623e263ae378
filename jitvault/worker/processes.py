"""`jitvault worker --processes N`: several workers on one host, which one process keeps running.

The process that was started is their keeper. It has no login and no ledger, and one thread, so that it may fork. Each
process that it forks is a whole worker, and tells the keeper every second how it is. Where the keeper ends, however
that happens, its end of their connection is closed, and the process ends as on SIGTERM.

A process that ended is started again, after a pause. A process that ends before it worked, while no other works, ends
the command with its exit code: what keeps it from working keeps all of them. So the first one is started alone.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from threading import Event, Thread
from typing import IO

import msgspec

from jitvault.backoff import doubled, jittered
from jitvault.errors import UsageError
from jitvault.ledger.storage.location import file_of
from jitvault.settings import Settings
from jitvault.worker.health import Endpoint, State, served
from jitvault.worker.logs import Log
from jitvault.worker.signals import handled

GRACE_S = 9.0
"""How long the processes may take to end before they are killed, in seconds; each has a shorter grace of its own."""
SILENT_S = 10.0
"""A process that has not said for so long how it is hangs, in seconds."""
_REPORT_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 10.0
# who worked for so long is started again as if it were the first time
_STEADY_S = 60.0
_POLL_S = 0.1


class Link:
    """What one of the processes has of its keeper."""

    def __init__(self, number: int, connection: socket.socket, turn: IO[bytes]) -> None:
        """Keep the parts; all processes have the same file `turn`."""
        self.number = number
        self._connection = connection
        self._turn = turn
        self._unsent = b""
        self._reported = 0.0

    def watch(self, stopping: Event) -> None:
        """Set `stopping` once the keeper ends this process, or is gone itself."""

        def wait() -> None:
            # nothing is ever sent here: what comes is the end, or an error where the keeper had not read all
            with suppress(OSError):
                self._connection.recv(1)
            stopping.set()

        Thread(target=wait, name="keeper", daemon=True).start()

    def is_reader(self) -> bool:
        """Return whether this process is the one that reads the audit stream for all of them.

        It stays that until it ends. Then the next one that asks is.
        """
        try:
            # of the process, not of the open file that all have from their keeper
            fcntl.lockf(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def report(self, state: Callable[[], State]) -> None:
        """Tell the keeper how this process is; it waits for nobody."""
        now = time.monotonic()
        if now - self._reported < _REPORT_S:
            return
        self._reported = now
        self._unsent = self._unsent or msgspec.json.encode(state()) + b"\n"
        try:
            self._unsent = self._unsent[self._connection.send(self._unsent, socket.MSG_DONTWAIT) :]
        except OSError:
            # it does not listen now, or it is gone: `watch` sees that
            return


@dataclass
class _Process:
    """One of the processes, as its keeper knows it."""

    number: int
    pid: int = 0
    """0 while it does not run."""
    connection: socket.socket | None = None
    state: State | None = None
    """How it is, by its last report; None before it worked."""
    started_at: float = 0.0
    heard_at: float = 0.0
    due_at: float = 0.0
    failures: int = 0
    _rest: bytes = b""

    def hear(self) -> None:
        """Take in what the process reported."""
        assert self.connection is not None  # noqa: S101 (for the type checker)
        while True:
            try:
                said = self.connection.recv(65_536, socket.MSG_DONTWAIT)
            except OSError:
                return
            if not said:
                return
            *reports, self._rest = (self._rest + said).split(b"\n")
            if reports:
                self.state = msgspec.json.decode(reports[-1], type=State)
                self.heard_at = time.monotonic()

    def ended(self) -> int | None:
        """Return its exit code if it ended, None while it runs.

        Of a process that a signal killed it is what a shell says: 128 and the signal's number.
        """
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def shown(self) -> State:
        """Return how it is, also where it says nothing."""
        if self.state is None:
            why = ["it does not work yet" if self.pid else "it ended, and is started again soon"]
            return State(trouble=why, unready=why)
        if time.monotonic() - self.heard_at > SILENT_S:
            why = ["it says nothing"]
            return State(trouble=why, unready=why, frozen=self.state.frozen, samples=self.state.samples)
        return self.state


@dataclass
class _Keeper:
    processes: list[_Process]
    log: Log
    endpoint: Endpoint | None = None
    stopping: Event = field(default_factory=Event)
    code: int = 0
    _turn: IO[bytes] = field(default_factory=TemporaryFile)

    def watch(self, reload: Event) -> Link | None:
        """Keep the processes running until `stopping` is set; then end them.

        Returns the link in each process that was forked, and None in the keeper when all have ended.
        """
        while not self.stopping.is_set():
            for process in self.processes:
                self._look_after(process)
                if self._may_start(process) and (link := self._start(process)) is not None:
                    return link
            if reload.is_set():
                reload.clear()
                self._signal(signal.SIGHUP)
            self._pause()
        self._end()
        return None

    def kill(self, number: int) -> None:
        """End at once, with all processes: for a second signal."""
        self._signal(signal.SIGKILL)
        os._exit(128 + number)

    def _look_after(self, process: _Process) -> None:
        if not process.pid:
            return
        process.hear()
        code = process.ended()
        if code is None:
            return
        worked = process.state is not None
        lasted_s = time.monotonic() - process.started_at
        self._forget(process)
        if not worked and not self._any_works():
            self.code = code or 1
            self.stopping.set()
            return
        process.failures = 0 if worked and lasted_s > _STEADY_S else process.failures + 1
        pause_s = jittered(doubled(_FIRST_PAUSE_S, process.failures - 1, _LONGEST_PAUSE_S)) if process.failures else 0
        process.due_at = time.monotonic() + pause_s
        self.log.error(
            "a process ended, and is started again", process=process.number, exit_code=code, again_in_s=round(pause_s)
        )

    def _may_start(self, process: _Process) -> bool:
        if process.pid or self.stopping.is_set() or time.monotonic() < process.due_at:
            return False
        return self._any_works() or not any(other.pid for other in self.processes)

    def _start(self, process: _Process) -> Link | None:
        """Fork one process; return its link there, None in the keeper."""
        ours, its = socket.socketpair()
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            its.close()
            process.due_at = time.monotonic() + _LONGEST_PAUSE_S
            self.log.warning("a process cannot be started", process=process.number, why=error.strerror)
            return None
        if pid == 0:
            # an end that a process has as well would not close with the keeper
            ours.close()
            for other in self._running():
                self._forget(other)
            if self.endpoint is not None:
                self.endpoint.server_close()
            return Link(process.number, its, self._turn)
        its.close()
        process.pid, process.connection, process.started_at = pid, ours, time.monotonic()
        self.log.info("started a process", process=process.number, pid=pid)
        return None

    def _end(self) -> None:
        """End all processes; kill those that do not end."""
        for process in self._running():
            assert process.connection is not None  # noqa: S101 (for the type checker)
            process.connection.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + GRACE_S
        while running := self._running():
            for process in running:
                process.hear()
                # that of one that had not begun to work says nothing
                worked = process.state is not None
                if (code := process.ended()) is not None:
                    self.code = self.code or (code if worked else 0)
                    self._forget(process)
                elif time.monotonic() > deadline:
                    self.log.error("killed a process that did not end", process=process.number)
                    os.kill(process.pid, signal.SIGKILL)
                    os.waitpid(process.pid, 0)
                    self.code = self.code or 128 + signal.SIGKILL
                    self._forget(process)
            time.sleep(_POLL_S / 10)

    def _pause(self) -> None:
        if self.endpoint is None:
            self.stopping.wait(_POLL_S)
        else:
            self.endpoint.handle_request()

    def _any_works(self) -> bool:
        return any(process.state is not None for process in self.processes)

    def _running(self) -> list[_Process]:
        return [process for process in self.processes if process.pid]

    def _forget(self, process: _Process) -> None:
        assert process.connection is not None  # noqa: S101 (for the type checker)
        process.connection.close()
        process.pid, process.connection, process.state, process._rest = 0, None, None, b""

    def _signal(self, number: int) -> None:
        for process in self._running():
            os.kill(process.pid, number)


def keep(count: int, health: str | None, log: Log, run: Callable[[Link], None]) -> int:
    """Keep `count` processes running, each of which does `run`, until SIGTERM or SIGINT.

    Returns the exit code in the keeper, and what is left of `run` in each process: 0. `health` is the address of the
    one endpoint that answers for all. Raises UsageError where that cannot be had.
    """
    keeper = _Keeper([_Process(n + 1) for n in range(count)], log)
    if health is not None:
        keeper.endpoint = served(lambda: {str(p.number): p.shown() for p in keeper.processes}, health)
        keeper.endpoint.timeout = _POLL_S
    # what all of them have in memory stays shared
    gc.freeze()
    with handled(keeper.stopping, keeper.kill) as reload:
        link = keeper.watch(reload)
        if link is not None:
            run(link)
            return 0
    return keeper.code


def check(settings: Settings) -> None:
    """Raise UsageError where the settings allow one process alone."""
    if file_of(settings.ledger.get_secret_value()) is not None:
        raise UsageError(
            "--processes: several processes need a ledger on PostgreSQL",
            hint="SQLite has one writer at a time: one process does as much there. Leave out --processes, or move the "
            "ledger to PostgreSQL: docs/operations/ledger.md.",
        )
    if settings.worker_secret_id_wrapped_from is not None:
        raise UsageError(
            "--processes: a wrapped secret id opens once, and each process logs in by itself",
            hint="Give the worker a secret id that is not wrapped, or another login: "
            "docs/operations/worker-identity.md.",
        )
