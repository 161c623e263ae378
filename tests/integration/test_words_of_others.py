"""What somebody wrote into a spec is never taken for a line of jitvault's own, on a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import Rig

Spec = Callable[..., Path]
FORGED = "risk low (criticality low, template low)"
MARKED = " " * 16 + "| "


def screen(rig: Rig, width: int, who: str, *args: str) -> list[str]:
    """The rows that a terminal of this width shows of a command; its question is answered with no."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {name: value for name, value in rig.cli.environment(who).items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "jitvault", *args]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm", "NO_COLOR": "1"}
    ):
        os.close(theirs)
        os.write(ours, b"n\n")
        said = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            said += piece
    os.close(ours)
    lines = said.decode().replace("\r", "").split("\n")
    return [line[at : at + width] for line in lines for at in range(0, max(1, len(line)), width)]


def filling(width: int, with_: str = "of ") -> str:
    """An intent whose first words fill the rest of a row, so that those that look like ours begin the next."""
    room = width - len(MARKED)
    filler = (with_ * 60)[: room - 2].rstrip()
    return f'"{filler}{"s" * (room - len(filler))} {FORGED}"'


@pytest.mark.parametrize(
    ("command", "width", "words"),
    [("approvals", 80, "of "), ("approve", 120, "of "), ("approve", 80, "\u0915\u093e\u093e\u093e\u093e")],
    ids=["approvals", "approve", "with marks that take a column"],
)
def test_an_intent_does_not_look_like_the_risk(rig: Rig, spec: Spec, command: str, width: int, words: str) -> None:
    file = spec(criticality="medium", intent=filling(width, words))
    rig("operator", "submit", file)
    rows = screen(rig, width, "approver-1", command, *([file.stem] if command == "approve" else []))
    risks = {row for row in rows if row.lstrip().startswith("risk ")}
    # `approvals` lists the tasks of other tests, too
    assert "  risk          medium (criticality medium, template low)" in risks
    assert FORGED.strip() not in {row.strip() for row in risks}
    assert any(row == f"{MARKED}{FORGED}" for row in rows)
    rig("operator", "cancel", file.stem)


def test_an_intent_in_the_status_does_not_look_like_the_risk(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium", intent=filling(80))
    rig("operator", "submit", file)
    rows = screen(rig, 80, "auditor", "status", file.stem)
    assert [row for row in rows if row.lstrip().startswith("risk low") and not row.startswith(" " * 6)] == []
    rig("operator", "cancel", file.stem)
