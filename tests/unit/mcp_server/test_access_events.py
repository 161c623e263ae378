"""What a process of jitvault says by events is what its task is, and a line that is no event says nothing."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from jitvault.agent.command_events import Approvals, Asked, Failed, Waiting, line
from jitvault.agent.events_variable import VARIABLE
from jitvault.mcp import access_process
from jitvault.mcp.access_process import State, command
from jitvault.mcp.answers import Failure

DENIED = Failed(3, "task t is denied", "Ask for less.")
SENDS = f"""
import os, sys
left = int(os.environ["{VARIABLE}"])
os.write(left, bytes.fromhex(sys.argv[1]))
print("Task t waits for nothing", file=sys.stderr)
sys.exit(int(sys.argv[2]))
"""


def says(monkeypatch: pytest.MonkeyPatch, data: bytes, code: int) -> None:
    monkeypatch.setattr(access_process, "JITVAULT", (sys.executable, "-c", SENDS, data.hex(), str(code)))


@pytest.mark.parametrize(
    ("data", "code", "failure"),
    [
        (b"", 0, None),
        (line(Asked("t")), 0, None),
        (line(Asked("t")) + line(DENIED), 3, Failure("task t is denied", "Tell your user: Ask for less.", 3)),
        # what cannot be understood is no reason, and what comes after it is not read
        (b'{"error": "secret"}\n' + line(DENIED), 3, "ended with 3"),
        (line(DENIED)[:-1].replace(b"}", b',"more":1}') + b"\n", 3, "ended with 3"),
        (b"\xff\n", 3, "ended with 3"),
        (b"", 3, "ended with 3"),
    ],
)
def test_a_command_failed_for_the_reason_in_its_events(
    monkeypatch: pytest.MonkeyPatch, data: bytes, code: int, failure: Failure | str | None
) -> None:
    says(monkeypatch, data, code)
    found = asyncio.run(command("extend", "t"))
    if isinstance(failure, str):
        assert found is not None and failure in found.message and found.exit_code == 0
    else:
        assert found == failure


def test_what_a_task_waits_for_and_why_it_ended_come_by_events(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waiting = Waiting("t", (Approvals("data-owner", 2),), None, "2 approvals by data-owner")
    says(monkeypatch, line(Asked("t")) + line(waiting), 0)
    spec = tmp_path / "spec.json"
    spec.touch()

    async def talk() -> None:
        access = access_process.AccessProcess("t", "pg", ("psql",), access_process.timedelta(minutes=15))
        async with access_process._event_line() as (descriptor, events):
            access_process.os.write(descriptor, line(Asked("t")) + line(waiting) + line(DENIED))
        await access._heed(events, spec)
        assert access.waits_for == waiting.text and not spec.exists() and access._failed == DENIED
        access.state = State.ENDED
        assert access.waits_for == ""

    asyncio.run(talk())
