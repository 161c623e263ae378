"""Several processes with one ledger at the same moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ledgers import LedgerPlace, address

ROOT = Path(__file__).parents[3]


OPEN = "database = opened(sys.argv[1], create=True)\nledger = Ledger(database)\n"


def child(code: str, place: LedgerPlace, *args: object, begin: str = OPEN) -> subprocess.Popen[str]:
    """Another process with the ledger open as `ledger`; it says `ready`, and goes on when it is told to."""
    head = (
        "import sys, time\n"
        "from datetime import UTC, datetime\n"
        "from sqlalchemy import text\n"
        "from jitvault.model.states import State\n"
        "from jitvault.ledger.storage.database import opened\n"
        "from jitvault.ledger.ledger import Ledger\n"
        "from jitvault.ledger.model import Change\n"
        "from jitvault.model.event_bodies import EventBody\n"
        "NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + begin + code, address(place), *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_together(*children: subprocess.Popen[str]) -> list[str]:
    """Start all at the same moment; what each printed after `ready`."""
    for one in children:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n", one.stderr.read() if one.stderr else ""
    for one in children:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    said = []
    for one in children:
        out, err = one.communicate(timeout=60)
        assert one.returncode == 0, err
        said.append(out)
    return said
