"""`jitvault …` in a process of its own that need not import first: that takes longer than most commands.

The server of the standard library's multiprocessing imports everything once and forks for each command. What a command
does from its first line to its exit code is the same; how a process starts is `acceptance/test_start.py`'s.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedReader
from multiprocessing.connection import wait
from multiprocessing.reduction import DupFd
from pathlib import Path
from pkgutil import walk_packages
from threading import Lock, Thread
from typing import Any

import jitvault

# what runs when it is imported
_RUNS = ("jitvault.__main__", "jitvault.ledger.storage.migrations.")


def modules() -> list[str]:
    """All of jitvault: a command imports what it needs when it gets there, and who forks for it has done so before."""
    return [name for _, name, _ in walk_packages(jitvault.__path__, "jitvault.") if not name.startswith(_RUNS)]


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(modules())
# multiprocessing looks at all its processes when it starts another, and takes each exit code once
_ONE_AT_A_TIME = Lock()


class Child:
    """A command that runs with the given standard streams, which are the caller's to close.

    A worker takes its turns in it where it is `beside` the command (`beside.py`). With `leads` it leads a session of
    its own, as what a service starts.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        environment: Mapping[str, str],
        streams: Sequence[int],
        *,
        beside: bool = False,
        leads: bool = False,
        cwd: Path | None = None,
    ) -> None:
        given = ([*map(str, arguments)], dict(environment), _Streams(streams))
        how = {"beside": beside, "leads": leads, "cwd": cwd}
        with _ONE_AT_A_TIME:
            self._process = _SERVER.Process(target=_become, args=given, kwargs=how, daemon=True)
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self.sentinel: int = self._process.sentinel

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the negative number of the signal that killed it; None while it runs."""
        with _ONE_AT_A_TIME:
            return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        wait([self.sentinel], timeout)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired("jitvault", timeout)
        return code

    def send_signal(self, number: int) -> None:
        # the number of one that has ended may be another's
        with suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Kill it, where it still runs."""
        self.kill()
        self.wait(20)


class Forked(Child):
    """A command that runs, with two pipes for what it prints. It is dead when the block is left."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        environment: Mapping[str, str],
        *,
        leads: bool = False,
        cwd: Path | None = None,
    ) -> None:
        (out, its_out), (err, its_err) = os.pipe(), os.pipe()
        streams = (os.open(os.devnull, os.O_RDONLY), its_out, its_err)
        try:
            super().__init__(arguments, environment, streams, leads=leads, cwd=cwd)
        finally:
            for each in streams:
                os.close(each)
        self.stdout: BufferedReader = os.fdopen(out, "rb")
        self.stderr: BufferedReader = os.fdopen(err, "rb")

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for stream in (self.stdout, self.stderr):
            stream.close()

    def communicate(self, timeout: float = 60) -> tuple[bytes, bytes]:
        """Give what it prints until nobody can print there any more."""
        printed: dict[BufferedReader, bytes] = {}
        readers = [
            Thread(target=lambda stream=stream: printed.update({stream: stream.read()}), daemon=True)
            for stream in (self.stdout, self.stderr)
        ]
        begun = time.monotonic()
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(max(0.0, begun + timeout - time.monotonic()))
        if len(printed) < len(readers):
            raise subprocess.TimeoutExpired("jitvault", timeout)
        self.wait(max(0.0, begun + timeout - time.monotonic()))
        return printed[self.stdout], printed[self.stderr]


def run_forked(
    arguments: Sequence[str | Path],
    environment: Mapping[str, str],
    given: str = "",
    timeout: float = 60,
    *,
    beside: bool = False,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with a worker `beside` it (`beside.py`). Raises TimeoutExpired, and then it is gone."""
    given_bytes = given.encode(errors="surrogateescape")
    done = run_in_bytes(arguments, environment, given_bytes, timeout, beside=beside, cwd=cwd)
    return subprocess.CompletedProcess(arguments, done.returncode, done.stdout.decode(), done.stderr.decode())


def run_in_bytes(
    arguments: Sequence[str | Path],
    environment: Mapping[str, str],
    given: bytes = b"",
    timeout: float = 60,
    *,
    beside: bool = False,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """The same with bytes."""
    with tempfile.TemporaryDirectory(prefix="jitvault-test-") as name:
        place, *printed = (Path(name) / stream for stream in ("in", "out", "err"))
        place.write_bytes(given)
        with _opened(place, *printed) as streams:
            child = Child(arguments, environment, streams, beside=beside, cwd=cwd)
        try:
            code = child.wait(timeout)
        finally:
            child.end()
        return subprocess.CompletedProcess(arguments, code, *(file.read_bytes() for file in printed))


@contextmanager
def forked_at(
    terminal: Path, arguments: Sequence[str | Path], environment: Mapping[str, str], *, beside: bool = False
) -> Iterator[Child]:
    """Run it with all of its streams at a terminal, which somebody holds open, and a worker `beside` it."""
    with _opened(terminal, terminal, terminal) as streams:
        child = Child(arguments, environment, streams, beside=beside)
    try:
        yield child
    finally:
        child.end()


def write_program(path: Path) -> None:
    """Write a program `jitvault` for a shell, which has this process fork for it (`forked_program.py`)."""
    client = shlex.join([sys.executable, "-I", "-S", str(Path(__file__).with_name("forked_program.py")), _door()])
    path.write_text(f'#!/bin/sh\nexec {client} "$@"\n')
    path.chmod(0o755)


@cache
def _door() -> str:
    """Where this process is asked to fork by programs of shells."""
    directory = tempfile.TemporaryDirectory(prefix="jitvault-test-")
    atexit.register(directory.cleanup)
    door = socket.socket(socket.AF_UNIX)
    door.bind(f"{directory.name}/door")
    door.listen()
    Thread(target=_answer, args=[door], daemon=True).start()
    return f"{directory.name}/door"


def _answer(door: socket.socket) -> None:
    while True:
        Thread(target=_fork_for, args=[door.accept()[0]], daemon=True).start()


def _fork_for(asking: socket.socket) -> None:
    """Run what is asked for, until it ends or whoever asks for it is gone."""
    with asking:
        _, streams, _, _ = socket.recv_fds(asking, 1, 3)
        with asking.makefile("rb") as words:
            asked = json.loads(words.readline())
        try:
            child = Child(asked["arguments"], asked["environment"], streams, cwd=Path(asked["cwd"]))
        finally:
            for each in streams:
                os.close(each)
        # a signal that the program got is passed on; once the program is gone, so is the command
        while asking in wait([child.sentinel, asking]) and (number := asking.recv(1)):
            child.send_signal(number[0])
        child.end()
        code = child.wait()
        with suppress(OSError):
            asking.sendall(bytes([128 - code if code < 0 else code]))


@contextmanager
def _opened(given: Path, out: Path, err: Path) -> Iterator[list[int]]:
    """Open standard streams."""
    streams = [os.open(given, os.O_RDONLY | os.O_NOCTTY)]
    streams += [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOCTTY, 0o600) for path in (out, err)]
    try:
        yield streams
    finally:
        for each in streams:
            os.close(each)


class _Streams:
    """Descriptors that a new process gets a copy of."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, tuple(map(DupFd, self._numbers))


def _received(*copies: Any) -> list[int]:
    return [copy.detach() for copy in copies]


def _become(
    arguments: list[str],
    environment: dict[str, str],
    streams: list[int],
    *,
    beside: bool,
    leads: bool,
    cwd: Path | None,
) -> None:
    """Be that command from here on."""
    if leads:
        os.setsid()
    if cwd is not None:
        os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    # a TMPDIR of its own counts, whatever the server has looked for before
    tempfile.tempdir = None
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.argv = os.fdopen(0, closefd=False), ["jitvault", *arguments]
    if os.isatty(1):
        # as Python does it for a process that begins at a terminal
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    from jitvault.cli import app

    if not beside:
        app.main()
    from beside import at_work

    with at_work():
        app.main()
