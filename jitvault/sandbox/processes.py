"""Server processes that cannot outlive the process that started them.

On Linux the kernel kills a server when its parent dies, however that happens (`leash.py`). For the kernel the parent is
the *thread* that started the server, so all servers are started by one thread of this module, which lives as long as
this process: a caller may start a server in a thread pool and close the pool. On other systems a server is ended at the
interpreter's exit, which a SIGKILL of the parent skips.

Each server runs in a session of its own. Therefore Ctrl-C in a terminal reaches only the parent, which decides in which
order the servers stop.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from jitvault.errors import VaultUnavailable

LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.005
LOG_TAIL_LINES = 12

# Linux gives ports from 32768 on to outgoing connections. A port below that is still free when a killed server is
# restarted.
_PORTS = range(20_000, 32_000)

_LEASH = Path(__file__).with_name("leash.py")


@dataclass(frozen=True)
class Account:
    """A user of this machine that a server runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """How to run a server.

    The server gets `environment` alone, and nothing of this process's environment.
    """

    arguments: tuple[str, ...]
    directory: Path
    log_file: Path
    environment: Mapping[str, str]
    account: Account | None = None
    death_signal: signal.Signals = signal.SIGKILL


def free_port(*besides: int) -> int:
    """Return a TCP port that is free on 127.0.0.1 at this time.

    It is none of `besides`, on which nobody listens yet. Another process may take it before the caller does, who then
    has to try again.

    Raises:
        VaultUnavailable: none was found in 100 tries.
    """
    for _ in range(100):
        port = secrets.choice(_PORTS)
        if port in besides:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise VaultUnavailable(
        "none of 100 ports tried on 127.0.0.1 was free for a sandbox server",
        hint=f"Free a port between {_PORTS.start} and {_PORTS.stop - 1} and run it again.",
    )


class ServerProcess:
    """One running server, from its start to its end."""

    def __init__(self, command: Command) -> None:
        """Start the server, which is not ready yet: see `wait_ready`.

        Raises:
            OSError: the log file cannot be written, or no process can be started.
        """
        self._log_file = command.log_file
        self._popen, self._log_start = _start(command)
        # For an owner that does not stop the server, and for systems whose kernel does not kill it.
        self._finalizer = weakref.finalize(self, _end, self._popen, os.getpid())

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code: None while the server runs, -N after signal N."""
        return self._popen.poll()

    def said(self) -> str:
        """Return what the server wrote to its log since this start."""
        with self._log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def last_words(self) -> str:
        """Return the last lines of `said`, for an error message."""
        lines = [line for line in self.said().splitlines() if line.strip()]
        return "\n".join(lines[-LOG_TAIL_LINES:]) or "(its log is empty)"

    def wait_ready(self, ready: Callable[[], bool], *, deadline: float) -> bool:
        """Wait until `ready` is true, and return whether it was.

        It is not when the server ended, or at `deadline` (seconds, monotonic).
        """
        while self.exit_code is None:
            if ready():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return False

    def wait(self, seconds: float) -> bool:
        """Return whether the server ended by itself within `seconds`."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Do nothing when the server is gone."""
        self._popen.send_signal(number)

    def stop(self, *signals: signal.Signals, seconds: float = 5.0) -> None:
        """Send each of `signals` in turn, `seconds` apart, then SIGKILL.

        Returns when it is gone.
        """
        for number in signals:
            self._popen.send_signal(number)
            if self.wait(seconds):
                break
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL and wait until the server is gone.

        Do nothing when it is gone already.
        """
        self._finalizer()


class _Launcher:
    """The thread that starts servers.

    The thread never ends, because the servers would end with it.
    """

    def __init__(self) -> None:
        self._requests: SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._requests = SimpleQueue()
        Thread(target=self._serve, name="jitvault-sandbox-launcher", daemon=True).start()

    def _serve(self) -> None:
        while True:
            start, answer = self._requests.get()
            try:
                answer.set_result(start())
            except BaseException as error:  # noqa: BLE001 (handed to whoever asked)
                answer.set_exception(error)

    def launch(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Call `start` in the launcher's thread, and return its result.

        An interrupted caller leaves no process behind.
        """
        answer: Future[subprocess.Popen[bytes]] = Future()
        self._requests.put((start, answer))
        try:
            return answer.result()
        except BaseException:
            answer.add_done_callback(_end_unclaimed)
            raise


@cache
def _launcher(_pid: int) -> _Launcher:
    """Return the launcher of this process.

    It is cached by process id, since a fork inherits the object but not its thread.
    """
    return _Launcher()


def _start(command: Command) -> tuple[subprocess.Popen[bytes], int]:
    """Start the server; return its process and its log's size before."""
    account = command.account
    leash = (
        *(sys.executable, "-I", "-S", str(_LEASH)),
        *(str(os.getpid()), str(int(command.death_signal))),
        *((str(account.uid), str(account.gid)) if account else ("-1", "-1")),
    )
    # The account needs no permission for a file that is opened here, because the server inherits the descriptor.
    log = os.open(command.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(log).st_size

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [*leash, *command.arguments],
                cwd=command.directory,
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        return _launcher(os.getpid()).launch(start), size
    finally:
        os.close(log)


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a process by SIGKILL, and reap it.

    This is done only in the process that started it: a fork inherits the finalizer as well.
    """
    if os.getpid() != owner or process.poll() is not None:
        return
    process.kill()
    process.wait()


def _end_unclaimed(answer: Future[subprocess.Popen[bytes]]) -> None:
    if answer.exception() is None:
        _end(answer.result(), os.getpid())
