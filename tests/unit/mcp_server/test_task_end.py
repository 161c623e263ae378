"""A tool that failed since its task is over says so in its own answer, and none is started after it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest

from jitvault.mcp import frames, task_end
from jitvault.mcp.runner import Runner

OVER = "task t is over: it is ending (revoked by operator)"


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, int]]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    yield ours, its.detach()
    ours.close()


def test_only_the_newest_question_is_answered(line: tuple[socket.socket, int]) -> None:
    ours, its = line
    asked: list[bool] = []

    def why() -> str:
        asked.append(True)
        return OVER

    with socket.socket(fileno=its) as tool:
        for number in (b"0001", b"0002", b"0003"):
            tool.send(number)
        Thread(target=task_end.serve, args=(ours, why), daemon=True).start()
        assert tool.recv(4096) == b"0003" + OVER.encode() and len(asked) == 1


@pytest.mark.parametrize("reason", [OVER, ""], ids=["over", "lasts"])
def test_a_tool_that_fails_is_told_of_the_end_of_its_task(line: tuple[socket.socket, int], reason: str) -> None:
    ours, its = line
    asked: list[bool] = []

    def why() -> str:
        asked.append(True)
        return reason

    Thread(target=task_end.serve, args=(ours, why), daemon=True).start()
    source, sink = os.pipe()
    setting = frames.Setting("t", (), (), (), None, None, its)
    runner = Runner(setting, dict(os.environ), sink)
    runs = 0

    def run(script: str) -> dict[str, Any]:
        nonlocal runs
        runs += 1
        runner.serve(frames.line(frames.Run(runs, f"run-{runs}", "sh", ("-c", script), "", 5.0)))
        return dict(json.loads(os.read(source, 65536)))

    assert run("exit 0")["exit_code"] == 0 and not asked, "what succeeds asks nobody"
    failed, next_ = run("echo lost >&2; exit 2"), run("exit 0")
    assert len(asked) == 1
    if reason:
        assert (failed["type"], failed["over"], failed["stderr"]) == ("output", OVER, "lost\n")
        assert (next_["type"], next_["message"]) == ("refused", OVER)
        assert "request_access" in next_["hint"]
    else:
        assert (failed["exit_code"], failed["stderr"], next_["exit_code"]) == (2, "lost\n", 0)
    for each in (source, sink):
        os.close(each)
