"""`jitvault …` in a process of its own that need not import first: that takes longer than most commands.

The server of the standard library's multiprocessing imports everything once and forks for each command. What a command
does from its first line to its exit code is the same; how a process starts is `acceptance/test_start.py`'s.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from pkgutil import walk_packages
from tempfile import TemporaryDirectory

import jitvault

# what runs when it is imported
_RUNS = ("jitvault.__main__", "jitvault.ledger.storage.migrations.")


def modules() -> list[str]:
    """All of jitvault: a command imports what it needs when it gets there, and who forks for it has done so before."""
    return [name for _, name, _ in walk_packages(jitvault.__path__, "jitvault.") if not name.startswith(_RUNS)]


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(modules())
_STREAMS = {"in": os.O_RDONLY, "out": os.O_WRONLY | os.O_CREAT, "err": os.O_WRONLY | os.O_CREAT}


def run_forked(
    arguments: Sequence[str], environment: Mapping[str, str], given: str, timeout: float, *, beside: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with a worker `beside` it (`beside.py`). Raises TimeoutExpired, and then it is gone."""
    with TemporaryDirectory(prefix="jitvault-test-") as name:
        streams = {stream: Path(name) / stream for stream in _STREAMS}
        streams["in"].write_text(given, errors="surrogateescape")
        process = _started(arguments, environment, streams, beside=beside)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout)
        said = [streams[stream].read_text() for stream in ("out", "err")]
        return subprocess.CompletedProcess(arguments, process.exitcode, *said)


@contextmanager
def forked_at(
    terminal: Path, arguments: Sequence[str], environment: Mapping[str, str], *, beside: bool = False
) -> Iterator[BaseProcess]:
    """Run it with all of its streams at a terminal, which somebody holds open, and a worker `beside` it."""
    process = _started(arguments, environment, dict.fromkeys(_STREAMS, terminal), beside=beside)
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _started(
    arguments: Sequence[str], environment: Mapping[str, str], streams: Mapping[str, Path], *, beside: bool
) -> BaseProcess:
    how = {"beside": beside}
    process = _SERVER.Process(target=_become, args=(list(arguments), dict(environment), dict(streams)), kwargs=how)
    process.start()
    return process


def _become(arguments: list[str], environment: dict[str, str], streams: dict[str, Path], *, beside: bool) -> None:
    """Be that command from here on."""
    os.environ.clear()
    os.environ.update(environment)
    for number, (name, how) in enumerate(_STREAMS.items()):
        stream = os.open(streams[name], how | os.O_NOCTTY, 0o600)
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
