"""`jitvault …` in a process of its own that need not import first: that takes longer than most commands.

The server of the standard library's multiprocessing imports everything once and forks for each command. What a command
does from its first line to its exit code is the same; how a process starts is `acceptance/test_start.py`'s.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
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
        directory = Path(name)
        (directory / "in").write_text(given)
        process = _SERVER.Process(target=_become, args=(list(arguments), dict(environment), name, beside))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout)
        said = [(directory / stream).read_text() for stream in ("out", "err")]
        return subprocess.CompletedProcess(arguments, process.exitcode, *said)


def _become(arguments: list[str], environment: dict[str, str], directory: str, beside: bool) -> None:
    """Be that command from here on."""
    os.environ.clear()
    os.environ.update(environment)
    for number, (name, how) in enumerate(_STREAMS.items()):
        stream = os.open(Path(directory) / name, how, 0o600)
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.argv = os.fdopen(0, closefd=False), ["jitvault", *arguments]
    from jitvault.cli import app

    if not beside:
        app.main()
    from beside import at_work

    with at_work():
        app.main()
