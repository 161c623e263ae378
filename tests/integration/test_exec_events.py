"""`jitvault exec` tells its caller by events, and its program can neither read along nor tell anything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rig import Rig
from test_exec import Spec, command, environment, rig

from jitvault.agent.command_events import VARIABLE, Asked, Failed, event

__all__ = ["rig"]
pytestmark = pytest.mark.usefixtures("lab")
# writes an event to whatever it has or can open, of itself, of the monitor and of exec
FORGES = """
import os, sys
own, forged = os.getpid(), b'{"type":"failed","exit_code":3,"message":"forged","hint":"forged"}\\n'
assert sys.argv[1] not in os.environ
def parent(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
monitor = parent(own)
for pid in (own, monitor, parent(monitor)):
    for number in range(3, 64):
        try:
            descriptor = number if pid == own else os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY)
            os.write(descriptor, forged)
        except OSError:
            pass
"""


def told(rig: Rig, *words: str | Path) -> tuple[int, list[Any]]:
    """Run `exec` and return its exit code and events."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            done = subprocess.run(
                command(*words),
                env={**environment(rig), VARIABLE: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                capture_output=True,
                timeout=60,
                check=False,
            )
        return done.returncode, [event(each) for each in ours.makefile("rb").read().splitlines()]


def test_a_program_can_tell_the_caller_of_its_exec_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    code, events = told(rig, file, "--preset", "postgres", "--", sys.executable, "-c", FORGES, VARIABLE)
    assert code == 0 and events == [Asked(file.stem)]
    assert os.environ.get(VARIABLE) is None


def test_a_caller_decides_by_the_code_and_not_by_words(rig: Rig, spec: Spec) -> None:
    file = spec(more="  tools: [psql]\n")
    code, events = told(rig, file, "--", "sh", "-c", "true")
    assert code == 125 and [type(each) for each in events] == [Failed] and events[0].exit_code == 8
