"""A newcomer's shell: jitvault on the path, an empty home, and what was set for other servers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from forked import write_program

COMMAND = [sys.executable, "-m", "jitvault"]


# what an operator's shell may have set for the servers that they look after otherwise
ELSEWHERE = {
    "VAULT_ADDR": "https://vault.example.org:8200",
    "VAULT_TOKEN": "hvs.elsewhere",
    "BAO_NAMESPACE": "team",
    "VAULT_SKIP_VERIFY": "true",
    "JITVAULT_WORKER_LOGIN": "approle",
    "JITVAULT_WORKER_TOKEN_FILE": "/nowhere/token",
    "JITVAULT_POLICIES": "/nowhere/policies",
    "JITVAULT_TEMPLATES": "/nowhere/templates",
    "JITVAULT_NOTIFY_COMMAND": "/nowhere/notify",
    "PGSSLMODE": "verify-full",
    "PGOPTIONS": "-c nonsense=1",
}


def environment(directory: Path) -> dict[str, str]:
    """A newcomer's: an empty home, a temporary directory of its own, jitvault on the path, no variable set."""
    (directory / "home").mkdir(parents=True, exist_ok=True)
    (directory / "bin").mkdir(exist_ok=True)
    (directory / "tmp").mkdir(exist_ok=True)
    program = directory / "bin" / "jitvault"
    write_program(program)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(directory / "home"), "TMPDIR": str(directory / "tmp")}
