"""Start pytest in a process that has imported the libraries already, which takes longer than most of its tests.

The server of the standard library's multiprocessing imports them once and forks for each run. jitvault and its tests
are imported in the fork, from the copy with the mutation.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from threading import Lock

_LIBRARIES = (
    "alembic.command",
    "cryptography.x509",
    "hvac",
    "hypothesis.strategies",
    "mcp",
    "msgspec",
    "psycopg",
    "pydantic_settings",
    "pytest",
    "rich.table",
    "securesystemslib.signer",
    "sqlalchemy.orm",
    "typer",
    "yaml",
)
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(list(_LIBRARIES))
# multiprocessing looks at all its processes when it starts another, and takes each exit code once
_ONE_AT_A_TIME = Lock()


def run_pytest(
    arguments: Sequence[str], where: Path, environment: Mapping[str, str], longest_s: float | None
) -> tuple[int | None, str]:
    """Run pytest in a group of its own, so that a test that hangs leaves no server behind.

    Returns its exit code, None where it did not end in time, and what it printed.
    """
    output = where / "output.txt"
    with _ONE_AT_A_TIME:
        process = _SERVER.Process(target=_pytest, args=(list(arguments), where, dict(environment), output))
        process.start()
    assert process.pid is not None
    wait([process.sentinel], longest_s)
    with _ONE_AT_A_TIME:
        code = process.exitcode
    if code is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return code, output.read_text(errors="replace")


def _pytest(arguments: Sequence[str], where: Path, environment: Mapping[str, str], output: Path) -> None:
    os.setsid()
    os.chdir(where)
    os.environ.clear()
    os.environ.update(environment)
    printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(printed, stream)
    # as PYTHONPATH and PYTHONDONTWRITEBYTECODE say it to the children of the tests
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    sys.dont_write_bytecode = True

    import pytest

    code = int(pytest.main(list(arguments)))
    sys.stdout.flush()
    os._exit(code)
