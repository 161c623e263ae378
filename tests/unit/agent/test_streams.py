"""The streams of a program: what goes to a terminal, and what goes beside it."""

from __future__ import annotations

import os
import pty
import secrets
import sys
from contextlib import suppress
from pathlib import Path

PROGRAM = """
import subprocess, sys
from jitvault.agent.execution.streams import opened
from jitvault.agent.masking import Masker
masker = Masker([("db", "password", sys.argv[1])])
with opened(masker.stream) as streams:
    stdin, stdout, stderr = streams.of_program
    shell = ["sh", "-c", 'echo "out $0"; echo "err $0" >&2', sys.argv[1]]
    program = subprocess.Popen(shell, stdin=stdin, stdout=stdout, stderr=stderr)
    streams.begin()
    program.wait()
    streams.finish()
"""


def test_what_goes_beside_the_terminal_is_masked_too(tmp_path: Path) -> None:
    beside = tmp_path / "stderr"
    pid, terminal = pty.fork()
    if pid == 0:
        os.dup2(os.open(beside, os.O_WRONLY | os.O_CREAT, 0o600), 2)
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, secrets.token_hex(8)])
    shown = b""
    with suppress(OSError):
        while data := os.read(terminal, 1024):
            shown += data
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert (shown.strip(), beside.read_text()) == (b"out [jitvault:db.password]", "err [jitvault:db.password]\n")
