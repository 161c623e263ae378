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

from jitvault.agent.command_events import Asked, Failed, event
from jitvault.agent.events_variable import VARIABLE

__all__ = ["rig"]
pytestmark = pytest.mark.usefixtures("lab")
# tries to write an event: to each of its descriptors, and to the one that exec has, below /proc
FORGES = """
import os, sys
own, forged = os.getpid(), b'{"type":"failed","exit_code":3,"message":"forged","hint":"forged"}\\n'
assert sys.argv[1] not in os.environ
def parent(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
for number in range(3, 64):
    try:
        os.write(number, forged)
    except OSError:
        pass
monitor = parent(own)
holds = []
for pid in (monitor, parent(monitor)):
    for number in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{number}"
        try:
            if os.readlink(path) == sys.argv[2]:
                holds.append(pid)
                os.write(os.open(path, os.O_WRONLY), forged)
        except OSError:
            pass
assert holds in ([parent(monitor)], []), holds
"""


def told(rig: Rig, *words: str | Path) -> tuple[int, list[Any], str]:
    """Run `exec`, whose last word is the descriptor's name, and return its exit code, its events and what it said."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            done = subprocess.run(
                [*command(*words), f"socket:[{os.fstat(theirs.fileno()).st_ino}]"],
                env={**environment(rig), VARIABLE: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                capture_output=True,
                timeout=60,
                check=False,
            )
        events = [event(each) for each in ours.makefile("rb").read().splitlines()]
        return done.returncode, events, done.stderr.decode()


def test_a_program_can_tell_the_caller_of_its_exec_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    code, events, said = told(rig, file, "--preset", "postgres", "--", sys.executable, "-c", FORGES, VARIABLE)
    assert (code, events) == (0, [Asked(file.stem)]), said


def test_a_caller_decides_by_the_code_and_not_by_words(rig: Rig, spec: Spec) -> None:
    file = spec(more="  tools: [psql]\n")
    code, events, _ = told(rig, file, "--", "sh", "-c", "true")
    assert code == 125 and [type(each) for each in events] == [Failed] and events[0].exit_code == 8
