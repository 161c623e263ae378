"""The clock of a process of its own, moved by libfaketime. Vault and PostgreSQL have the right time."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import beside
from commands import Result
from rig import Rig


def moved(wrong: str) -> dict[str, str]:
    """The environment of a process whose clock is off by `wrong`, such as `+1h`, from its start on."""
    found = find_spec("libfaketime")
    assert found is not None and found.origin is not None
    library = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    assert library.exists()
    return {"LD_PRELOAD": str(library), "FAKETIME": wrong, "DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}


def at(rig: Rig, wrong: str, *arguments: str | Path, who: str = "operator") -> Result:
    """A command on a host whose clock is off by so much, and that of the worker beside it as well."""
    argv = [sys.executable, beside.__file__, *map(str, arguments), "--json"]
    environment = {**rig.cli.environment(who), **moved(wrong)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return Result(done.returncode, done.stdout, done.stderr)
