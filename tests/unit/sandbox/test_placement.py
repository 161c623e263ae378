"""Where PostgreSQL's files are: what a killed process left is removed by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from jitvault.sandbox.placement import _new_home

MAKE_ONE = "from jitvault.sandbox.placement import _new_home; print(_new_home()[0], flush=True); input()"


def test_the_directory_of_a_killed_process_is_removed_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (linked := tmp_path / "jitvault-postgres-link").symlink_to(elsewhere)
    command = [sys.executable, "-c", MAKE_ONE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        (left / "pgdata").mkdir()
        first, opened = _new_home()
        assert left.exists() and first.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
    second, also_opened = _new_home()
    deadline = time.monotonic() + 10
    while left.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sorted(tmp_path.iterdir()) == sorted([first, second, elsewhere, linked])
    os.close(opened)
    os.close(also_opened)
