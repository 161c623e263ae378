"""A command tells its caller by events on one descriptor, which nothing that it starts can write to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import UTC, datetime

import msgspec
import pytest

from jitvault.agent.command_events import Approvals, Asked, Event, Failed, Waiting, event, line
from jitvault.agent.events_variable import VARIABLE

EVENTS: tuple[Event, ...] = (
    Asked("t"),
    Waiting("t", (Approvals("data-owner", 2),), None, "2 approvals by data-owner"),
    Waiting("t", (), datetime(2030, 1, 31, 9, tzinfo=UTC), "its window"),
    Failed(3, "task t is denied", "Ask for less."),
)
# each way in which a program that is started could have the descriptor
TRIES = """
import os, subprocess, sys, time
from jitvault.agent.command_events import Asked
from jitvault.agent.events_variable import VARIABLE
from jitvault.cli import caller
number = os.environ[VARIABLE]
caller.heed_caller()
caller.tell(Asked("ours"))
write = "import os, sys\\ntry: os.write(int(sys.argv[1]), b'forged')\\nexcept OSError: sys.exit(7)"
assert VARIABLE not in os.environ
for closes in (True, False):
    assert subprocess.run([sys.executable, "-c", write, number], close_fds=closes).returncode == 7
if os.fork() == 0:
    caller.tell(Asked("forged"))
    try:
        os.write(int(number), b"forged")
    except OSError:
        os._exit(7)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
# a socket is no file that can be opened below /proc
opens = "import sys\\ntry: open(sys.argv[1], 'wb').write(b'forged')\\nexcept OSError: sys.exit(7)"
path = f"/proc/{os.getpid()}/fd/{number}"
assert subprocess.run([sys.executable, "-c", opens, path]).returncode == 7
caller.tell(Asked("ours, too"))
"""


@pytest.mark.parametrize("each", EVENTS, ids=lambda each: type(each).__name__)
def test_an_event_is_one_line_of_json_that_is_read_back(each: Event) -> None:
    data = line(each)
    assert data.count(b"\n") == 1 and data.endswith(b"\n") and event(data) == each


@pytest.mark.parametrize("each", EVENTS, ids=lambda each: type(each).__name__)
def test_an_event_with_another_field_or_without_one_is_none(each: Event) -> None:
    whole = msgspec.json.decode(line(each))
    for name in whole:
        with pytest.raises(msgspec.ValidationError):
            event(msgspec.json.encode({key: value for key, value in whole.items() if key != name}))
    with pytest.raises(msgspec.ValidationError):
        event(msgspec.json.encode(whole | {"more": 1}))


@pytest.mark.parametrize("code", [0, -1, 256, "3", 3.5, None])
def test_an_exit_code_that_no_process_has_is_refused(code: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        event(msgspec.json.encode({"type": "failed", "exit_code": code, "message": "m", "hint": "h"}))


def test_nothing_that_a_command_starts_can_write_to_its_callers_descriptor() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            environment = {**os.environ, VARIABLE: str(theirs.fileno())}
            done = subprocess.run(
                [sys.executable, "-c", TRIES],
                env=environment,
                pass_fds=(theirs.fileno(),),
                capture_output=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr.decode()
        received = ours.makefile("rb").read()
    assert [event(each) for each in received.splitlines()] == [Asked("ours"), Asked("ours, too")]


@pytest.mark.parametrize("number", ["", "x", "-1", "0", "1", "2", "999", "9" * 30, "³", "1e1"])
def test_a_descriptor_that_is_none_or_a_standard_stream_is_refused(number: str) -> None:
    environment = {**os.environ, VARIABLE: number}
    words = [sys.executable, "-m", "jitvault", "exec", "no-task", "--", "true"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (
        done.returncode != 0
        and f"{VARIABLE}: expected the number" in done.stderr
        and "Nothing was started" in done.stderr
    )


def test_a_descriptor_that_can_only_be_read_is_refused() -> None:
    reads, writes = os.pipe()
    environment = {**os.environ, VARIABLE: str(reads)}
    words = [sys.executable, "-m", "jitvault", "--version"]
    done = subprocess.run(words, env=environment, pass_fds=(reads,), capture_output=True, text=True, check=False)
    os.close(reads)
    os.close(writes)
    assert done.returncode == 2 and f"{VARIABLE}: expected" in done.stderr


def test_a_command_that_fails_tells_its_caller_by_which_code() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            environment = {**os.environ, VARIABLE: str(theirs.fileno())}
            words = [sys.executable, "-m", "jitvault", "exec", "no-task", "--", "no-such-program"]
            done = subprocess.run(words, env=environment, pass_fds=(theirs.fileno(),), capture_output=True, check=False)
        (failed,) = [event(each) for each in ours.makefile("rb").read().splitlines()]
    assert isinstance(failed, Failed) and failed.exit_code == 9 and "no-such-program" in failed.message
    # a shell's code, and not the error's own
    assert done.returncode == 127
