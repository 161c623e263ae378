"""Base class of the sandbox's servers.

It starts a server on a free port, and stops, kills and restarts it.
"""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from jitvault.errors import VaultUnavailable, WrongState
from jitvault.sandbox.processes import LOOPBACK, Command, ServerProcess, free_port

START_SECONDS = 30.0  # a loaded machine; an idle one needs under a second
MINIMAL_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C", "TZ": "UTC"}


class Server(ABC):
    """A server on 127.0.0.1 with its files in `directory`.

    It starts when it is entered as a context manager. The server keeps its port over `kill` and `restart`. Leaving the
    context stops it. `directory` belongs to the caller and is not removed. An instance must not be used by two threads
    at once.
    """

    host: ClassVar[str] = LOOPBACK
    stop_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM,)
    # Words in the log of a failed start that mean that the next try may succeed.
    passing_troubles: ClassVar[tuple[str, ...]] = ()

    def __init__(self, directory: Path, *, log_name: str) -> None:
        self.directory = directory.resolve()
        self.log_file = self.directory / log_name
        self._port: int | None = None
        self._process: ServerProcess | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """The server's name in messages."""

    @property
    def port(self) -> int:
        """The server's TCP port. Raises `WrongState` before the first start."""
        if self._port is None:
            raise WrongState(f"{self.name} has no port yet", hint="Call start() first.")
        return self._port

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.exit_code is None

    @property
    def pid(self) -> int:
        """The server's own process id, for sending signals.

        Raises `WrongState` when the server does not run.
        """
        if self._process is None or not self.running:
            raise WrongState(f"{self.name} is not running", hint="Call start() first.")
        return self._process.pid

    def start(self) -> None:
        """Start the server and return when it serves.

        Do nothing when it already runs.

        Raises:
            UsageError: the wheel with the server is not installed.
            WrongState: `directory` belongs to an earlier sandbox.
            VaultUnavailable: the server did not start, and the message ends with the last lines of its log; or its
                files cannot be written.
        """
        if self.running:
            return
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            deadline = time.monotonic() + START_SECONDS
            self._prepare(deadline)
            self._listen(deadline)
            self._settle(deadline)
        except OSError as error:
            self.kill()
            raise VaultUnavailable(
                f"the sandbox's {self.name} cannot use {error.filename or self.directory}: {error.strerror}",
                hint="Check the directory's permissions and the free space on its disk.",
            ) from error
        except BaseException:  # also for an interrupt: never leave a server behind that is only partly started
            self.kill()
            raise

    def stop(self) -> None:
        """Stop the server in good order, and kill it after some seconds.

        Do nothing when it does not run.
        """
        if self._process is not None and self.running:
            self._process.stop(*self.stop_signals)
        self.kill()

    def kill(self) -> None:
        """End the server by SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _listen(self, deadline: float) -> None:
        """Launch the server until it listens.

        The first start may move to another port, later ones wait for theirs.
        """
        fixed_port = self._port is not None
        while True:
            if not fixed_port:
                self._choose_ports()
            process = self._process = ServerProcess(self._command())
            if process.wait_ready(partial(self._listens, process), deadline=deadline):
                return
            output = process.said().lower()
            passing = ("address already in use", *self.passing_troubles)
            ended = process.exit_code is not None
            if not ended or time.monotonic() > deadline or not any(words in output for words in passing):
                raise self._not_started(process)
            time.sleep(0.05)

    def _choose_ports(self) -> None:
        self._port = free_port()

    def _not_started(self, process: ServerProcess) -> VaultUnavailable:
        code = process.exit_code
        state = "is not ready" if code is None else f"ended with code {code}"
        return VaultUnavailable(
            f"the sandbox's {self.name} {state}. The last lines of its log:\n{process.last_words()}",
            hint=f"Its whole log: {self.log_file}",
        )

    @abstractmethod
    def _prepare(self, deadline: float) -> None:
        """Write the files that the server needs before a start."""

    @abstractmethod
    def _command(self) -> Command:
        """Return how to run the server on the chosen ports."""

    @abstractmethod
    def _listens(self, process: ServerProcess) -> bool:
        """Return whether this process has bound its port.

        Another one on the same port does not count.
        """

    @abstractmethod
    def _settle(self, deadline: float) -> None:
        """Do, or wait for, what is missing between listening and serving."""
