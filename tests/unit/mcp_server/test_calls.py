"""A call that takes long says `running`, and what a server knows takes a process of nobody."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jitvault.errors import InvalidInput, JitvaultError, UsageError, VaultUnavailable
from jitvault.mcp import calls
from jitvault.mcp.access_process import AccessProcess, State
from jitvault.mcp.answers import Failure
from jitvault.mcp.calls import Calls, Known, Setup

END = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)


async def progress(done: float, total: float, message: str) -> None:
    """Tell nobody."""


async def asked(server: Calls, tool: str, /, **arguments: Any) -> dict[str, Any]:
    return dict(json.loads((await server.call(tool, arguments, progress)).text))


def test_a_list_that_takes_long_is_polled_and_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_PATIENCE_S", 0.05)

    def slow(_: Sequence[str]) -> Known:
        time.sleep(0.2)
        return Known("me", {})

    async def talk() -> None:
        server = Calls(Setup(slow, (), 60))
        answer = await asked(server, "list_access")
        assert set(answer) == {"id", "state"} and answer["state"] == "running"
        while answer.get("state") == "running":
            answer = await asked(server, "poll", id=answer["id"])
        assert answer["agent"] == "me"

    asyncio.run(talk())


def test_the_end_of_a_task_with_more_time_is_asked_for_without_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(*_: object, **__: object) -> None:
        raise AssertionError("a process takes longer than Vault")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process)
    wanted: list[Sequence[str]] = []

    def known(tasks: Sequence[str]) -> Known:
        wanted.append(tasks)
        return Known("me", {}, ends=dict.fromkeys(tasks, END))

    async def talk() -> None:
        server = Calls(Setup(known, (), 60))
        for name in ("t-1", "t-2"):
            server.tasks[name] = task = AccessProcess(name, "pg", ("psql",), timedelta(minutes=15))
            task.state, task.until, task.may_be_extended = State.HELD, END - timedelta(hours=1), name == "t-2"
        found = {each["task"]: each["until"] for each in (await asked(server, "list_access"))["tasks"]}
        assert found == {"t-1": "2030-01-31T08:00:00Z", "t-2": "2030-01-31T09:00:00Z"}

    asyncio.run(talk())
    assert wanted == [["t-2"]]


def test_time_that_was_granted_is_no_error_where_its_end_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(_: Sequence[str]) -> Known:
        raise VaultUnavailable("no answer")

    async def command(*_: str) -> None:
        """Extend the task."""

    async def talk() -> None:
        server = Calls(Setup(known, (), 60))
        server.tasks["t-1"] = task = AccessProcess("t-1", "pg", ("psql",), timedelta(minutes=15))
        task.state = State.HELD
        answer = await asked(server, "extend", task="t-1", minutes=5, reason="One table is left.")
        assert (answer["task"], answer["state"]) == ("t-1", "held")

    monkeypatch.setattr(calls, "command", command)
    asyncio.run(talk())


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        (UsageError, "Tell your user: Set one."),
        # a template of the host's, for one
        (InvalidInput, "Tell your user: Set one."),
        (VaultUnavailable, "Vault does not answer. Call again in a moment; list_access says what there is."),
    ],
)
def test_what_a_server_lacks_is_each_tools_answer(kind: type[JitvaultError], hint: str) -> None:
    def known(_: Sequence[str]) -> Known:
        raise kind("no login is set", hint="Set one.")

    async def talk() -> None:
        server = Calls(Setup(known, (), 60))
        request = {"template": "pg", "tools": ["sh"], "reason": "Count."}
        for answer in (await asked(server, "list_access"), await asked(server, "request_access", **request)):
            assert answer == {"error": "no login is set", "hint": hint}

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("was_held", "what"), [(True, "its access is given back"), (False, "its request is withdrawn")]
)
def test_what_became_of_a_finished_task_is_each_later_answer(was_held: bool, what: str) -> None:
    async def talk() -> None:
        server = Calls(Setup(lambda _: Known("me", {}), (), 60))
        server.tasks["t-1"] = task = AccessProcess("t-1", "pg", ("psql",), timedelta(minutes=15))
        task.state, task.was_held = State.ENDED, was_held
        assert (await asked(server, "finish", task="t-1"))["why"] == f"task t-1 was finished: {what}"
        again = await asked(server, "run", task="t-1", tool="psql")
        assert again["error"] == f"task t-1 was finished: {what}" and "request_access" in again["hint"]

    asyncio.run(talk())


def test_no_more_tasks_are_asked_for_than_a_server_holds_however_many_calls_come_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def started(*_: object) -> None:
        """Start nothing."""

    monkeypatch.setattr(AccessProcess, "start", started)
    monkeypatch.setattr(calls, "spec_data", lambda *_, **__: {})
    monkeypatch.setattr(calls, "_SETTLED_S", 0.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def talk() -> list[dict[str, Any]]:
        server = Calls(Setup(lambda _: Known("me", {}), (), 60))
        request = {"template": "pg", "tools": ["sh"], "reason": "Count.", "minutes": 5}
        return await asyncio.gather(*(asked(server, "request_access", **request) for _ in range(2 * calls.MOST_TASKS)))

    answers = asyncio.run(talk())
    assert sum("error" not in answer for answer in answers) == calls.MOST_TASKS


@pytest.mark.parametrize(("code", "withdrawn"), [(4, True), (13, True), (3, False), (0, False)])
def test_a_request_that_was_not_granted_in_time_is_withdrawn(
    monkeypatch: pytest.MonkeyPatch, code: int, *, withdrawn: bool
) -> None:
    ran: list[tuple[str, ...]] = []

    async def command(*words: str) -> None:
        ran.append(words)

    monkeypatch.setattr(calls, "command", command)
    access = AccessProcess("t-1", "pg", ("psql",), timedelta(minutes=15))
    access.state, access.failure = State.ENDED, Failure("no", "", code)
    asyncio.run(calls._withdraw_unanswered(access))
    assert ran == ([("cancel", "t-1")] if withdrawn else [])
