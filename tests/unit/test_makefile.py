"""`make` installs with a line for each step, and a failure of pip is a failure of make."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# stands for Python: it makes the environment's python, which is itself, and prints what pip prints
_PYTHON = """#!/bin/sh
case "$*" in
  *venv*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *--version*) echo "Python 3.11.0" ;;
  *--require-hashes*)
    for n in $(seq 45); do echo "Collecting package-$n"; done
    echo "Installing build dependencies: started"
    echo "Installing collected packages: package-1"
    test ! -e broken || { echo "ERROR: no such package" >&2; exit 1; } ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "dev.txt").write_text("".join(f"package-{n}==1.0\n" for n in range(1, 46)))
    python = tmp_path / "python"
    python.write_text(_PYTHON)
    python.chmod(0o755)
    return tmp_path


def install(clone: Path) -> subprocess.CompletedProcess[str]:
    argv = ["make", ".venv/.installed", f"PYTHON={clone / 'python'}"]
    # a make that runs this test tells its children how it was called
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(argv, cwd=clone, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_each_step_of_an_installation_is_a_line(clone: Path) -> None:
    done = install(clone)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == [
        "Installing into .venv, once: a minute or less",
        "  1 of 3  an environment of its own (Python 3.11.0)",
        "  2 of 3  45 packages, each by its hash",
        "          20 are here",
        "          40 are here",
        "          all 45 are here; unpacking them",
        "  3 of 3  jitvault itself",
    ]
    assert (clone / ".venv" / ".installed").exists()
    assert "up to date" in install(clone).stdout


def test_an_installation_that_failed_is_not_there(clone: Path) -> None:
    (clone / "broken").touch()
    done = install(clone)
    assert done.returncode != 0 and "ERROR: no such package" in done.stderr
    assert "3 of 3" not in done.stdout and not (clone / ".venv" / ".installed").exists()
    (clone / "broken").unlink()
    assert install(clone).returncode == 0
