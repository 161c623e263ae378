"""What the tools of the MCP server do, and what they answer."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from jitvault.agent.execution.allowed_program import find_tool
from jitvault.errors import (
    ApprovalMissing,
    Denied,
    InvalidInput,
    JitvaultError,
    NotFound,
    VaultUnavailable,
    WaitTimedOut,
    WrongState,
    error_like,
)
from jitvault.formats.fields import Strict
from jitvault.mcp import arguments as given
from jitvault.mcp import shared_secrets
from jitvault.mcp.access_process import AccessProcess, State, command
from jitvault.mcp.access_request import offered, spec_data
from jitvault.mcp.answers import Answer, Failure, failed, fitting, printed, told
from jitvault.mcp.frames import Output, Refused
from jitvault.mcp.hints import OVER, for_user, hint_of
from jitvault.mcp.task_facts import check_token_lasts, end_of, facts, state_of
from jitvault.model.spec_file import LONGEST_PREFIX, SUFFIX_ALPHABET, SUFFIX_LENGTH, generated_id
from jitvault.model.template import AccessTemplate

# a call answers in 3 s; some of that is for the way
_PATIENCE_S = 2.7
# how long a request that may be granted at once is waited for within that
_SETTLED_S = 2.4
_TICK_S = 1.0
MOST_TASKS = 8
"""The most tasks that wait or hold access at a time."""
# of the 2 s in which a client expects the server to end
_LAST_S = 1.8
_ROOM = 18_000
# a request that is not granted yet goes on waiting after these
_STANDS = (ApprovalMissing.exit_code, WaitTimedOut.exit_code)
_CORRECT = "Correct the arguments and call again. Nothing was done."

Progress = Callable[[float, float, str], Awaitable[None]]
Poll = Callable[[], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Known:
    """The name of the caller's Vault entity, and the templates that there are.

    `warning` says why no request of this server can succeed, "" where nothing is known against it. `ends` has the
    published deadlines of the tasks that were asked about.
    """

    agent: str
    templates: Mapping[str, AccessTemplate]
    warning: str = ""
    ends: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setup:
    """How the server was set up.

    `known` reads who the agent is and what there is now, and the ends of the tasks that it is given. `tools` are the
    programs that may run, none for any. `wait_s` is how many seconds a request waits for approvals.
    """

    known: Callable[[Sequence[str]], Known]
    tools: Sequence[str]
    wait_s: float


@dataclass
class Calls:
    """The tools of one client, with the tasks that it asked for."""

    setup: Setup
    tasks: dict[str, AccessProcess] = field(default_factory=dict)
    _polls: dict[str, Poll] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=lambda: count(1))
    _shared: int | None = field(default_factory=shared_secrets.made)
    _kept: set[asyncio.Task[None]] = field(default_factory=set)

    async def call(self, name: str, values: dict[str, Any], progress: Progress) -> Answer:
        """Carry out a call. Every failure is an answer."""
        try:
            return await self._carry_out(given.parsed(name, values), progress)
        except JitvaultError as error:
            is_argument = isinstance(error, InvalidInput) and not error.has_own_hint
            return failed(Failure(str(error), _CORRECT if is_argument else error.hint))
        except Exception as error:  # noqa: BLE001 (the last one before the wire)
            # a bug: only the kind of exception is told, since its text may contain anything
            return failed(Failure(f"unexpected {type(error).__name__}", "This is a bug in jitvault. Report it."))

    async def close(self) -> None:
        """Kill the tools, give all access back, and withdraw what waits.

        Where that takes longer than a client waits, the processes go on without this one.
        """
        waiting = [each for each in self.tasks.values() if each.state is State.WAITING]
        held = [each for each in self.tasks.values() if each.state is not State.ENDED]
        for each in held:
            each.finish()
        ending: list[asyncio.Task[Any]] = [asyncio.create_task(_withdraw(each)) for each in waiting]
        ending += [asyncio.create_task(_ended(each)) for each in held]
        if ending:
            await asyncio.wait(ending, timeout=_LAST_S)

    async def _carry_out(self, asked: Strict, progress: Progress) -> Answer:
        match asked:
            case given.ListAccess():
                return await self._in_background("list", self._list())
            case given.RequestAccess():
                return await self._in_background("request", self._request(asked))
            case given.WaitForAccess():
                return await self._wait(asked, progress)
            case given.Run():
                return await self._run(asked)
            case given.Poll():
                return await self._poll(asked.id)
            case given.Extend():
                return await self._extend(asked)
            case given.Finish():
                return await self._finish(self._known(asked.task))
        raise TypeError

    async def _list(self) -> Answer:
        # approvers may have agreed meanwhile
        known = await self._known_now(
            *(each for each in self.tasks.values() if each.may_be_extended and each.state is State.HELD)
        )
        templates = [offered(each, self.setup.tools) for _, each in sorted(known.templates.items())]
        kept, more = fitting(templates, _ROOM)
        tasks, older = fitting([facts(each) for each in reversed(self.tasks.values())], _ROOM)
        answer: dict[str, Any] = {"agent": known.agent, "templates": kept, "tasks": tasks}
        if known.warning:
            answer["warning"] = known.warning
        if more or older:
            answer["cut"] = f"{more} templates and {older} tasks are not shown"
        return told(answer)

    async def _request(self, asked: given.RequestAccess) -> Answer:
        missing = [tool for tool in asked.tools if find_tool(tool) is None]
        if missing:
            raise NotFound(f"there is no program {missing[0]} in PATH", hint="Nothing was asked for.")
        suffix = "".join(secrets.choice(SUFFIX_ALPHABET) for _ in range(SUFFIX_LENGTH))
        task = generated_id(f"{asked.template[: LONGEST_PREFIX - 1]}-", suffix)
        begun = asyncio.get_running_loop().time()
        known = await self._known_now()
        if known.warning:
            raise Denied(known.warning, hint="Tell your user. Nothing was asked for.")
        data = spec_data(known.templates, asked, agent=known.agent, task=task, tools=self.setup.tools)
        # several calls may have come at once
        if sum(each.state is not State.ENDED for each in self.tasks.values()) >= MOST_TASKS:
            raise WrongState(f"this server has {MOST_TASKS} tasks already", hint="Finish one. Nothing was asked for.")
        descriptor, name = tempfile.mkstemp(prefix=f"{task}-", suffix=".json")
        with os.fdopen(descriptor, "w") as file:
            json.dump(data, file)
        minutes = asked.minutes
        window = known.templates[asked.template].spec.ttl if minutes is None else timedelta(minutes=minutes)
        access = AccessProcess(task, asked.template, asked.tools, window)
        self.tasks[task] = access
        await access.start(Path(name), f"{self.setup.wait_s:g}s", self._shared)
        self._keep(_withdraw_unanswered(access))
        await access.settled(max(0.0, begun + _SETTLED_S - asyncio.get_running_loop().time()))
        return state_of(access)

    async def _known_now(self, *tasks: AccessProcess) -> Known:
        """Return what there is now, and let the tasks know when they end.

        No process is started for that: it would take longer than Vault does.
        """
        try:
            known = await asyncio.to_thread(self.setup.known, [each.task for each in tasks])
        except VaultUnavailable as error:
            raise error_like(error, str(error), hint=hint_of(error.exit_code, error.hint)) from None
        except JitvaultError as error:
            # the model's arguments have no part in it
            raise error_like(error, str(error), hint=for_user(error.hint)) from None
        for each in tasks:
            each.until = known.ends.get(each.task, each.until)
        return known

    async def _wait(self, asked: given.WaitForAccess, progress: Progress) -> Answer:
        if asked.task is None and not self.tasks:
            raise NotFound("no access was asked for", hint="Call request_access first.")
        access = self._known(asked.task or next(reversed(self.tasks)))
        waited = 0.0
        while waited < asked.seconds and not await access.settled(min(_TICK_S, asked.seconds - waited)):
            waited += _TICK_S
            await progress(waited, asked.seconds, access.waits_for or "the answer of a worker")
        return state_of(access)

    async def _run(self, asked: given.Run) -> Answer:
        access = self._holding(asked.task)
        run = f"run-{next(self._numbers)}"
        return await self._printed(access, run, access.run(run, asked.tool, asked.args, asked.stdin, _PATIENCE_S))

    async def _printed(self, access: AccessProcess, run: str, asking: Awaitable[Output | Refused | None]) -> Answer:
        async def again() -> Answer:
            return await self._printed(access, run, access.take(run, _PATIENCE_S))

        now = asyncio.get_running_loop().time
        until = now() + _PATIENCE_S
        output = await asking
        self._polls.pop(run, None)
        if output is None:
            return failed(end_of(access))
        if isinstance(output, Refused):
            return failed(Failure(output.message, output.hint))
        if output.over:
            return printed(run, output, Failure(output.over, OVER))
        if output.over is not None:
            # it was stopped, and the process that held the access says why when it ends
            if await access.ended(max(0.0, until - now())):
                return printed(run, output, end_of(access))
            output = msgspec.structs.replace(output, exit_code=None)
        if output.exit_code is None:
            self._polls[run] = again
        return printed(run, output)

    async def _poll(self, name: str) -> Answer:
        poll = self._polls.get(name)
        if poll is None:
            raise NotFound(f"nothing runs by the id {name!a:.40}", hint="Its end was told, or it is another id.")
        return await poll()

    async def _extend(self, asked: given.Extend) -> Answer:
        access = self._holding(asked.task)
        check_token_lasts(access, timedelta(minutes=asked.minutes))
        access.may_be_extended = True
        # what the model wrote is never read as an option
        words = ("extend", access.task, "--for", f"{asked.minutes}m", f"--reason={asked.reason}")

        async def extended() -> Answer:
            failure = await command(*words)
            if failure is not None:
                return failed(failure)
            # it is extended, also where its end cannot be read now; list_access reads it again
            with suppress(JitvaultError):
                await self._known_now(access)
            return state_of(access)

        return await self._in_background("extend", extended())

    async def _finish(self, access: AccessProcess) -> Answer:
        if access.state is State.ENDED:
            return told(facts(access))

        async def finished() -> Answer:
            is_waiting = access.state is State.WAITING
            access.finish()
            await _ended(access)
            failure = await _withdraw(access) if is_waiting else None
            return state_of(access) if failure is None else failed(failure)

        return await self._in_background("finish", finished())

    async def _in_background(self, what: str, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Answer by what `work` gives.

        Where that takes longer than a call may, the answer is `running` and an id.
        """
        name = f"{what}-{next(self._numbers)}"
        task = asyncio.create_task(work)

        async def poll() -> Answer:
            done, _ = await asyncio.wait([task], timeout=_PATIENCE_S)
            if not done:
                self._polls[name] = poll
                return told({"id": name, "state": "running"})
            self._polls.pop(name, None)
            return task.result()

        return await poll()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Have work done in the background, until it is done."""
        task = asyncio.create_task(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    def _known(self, task: str) -> AccessProcess:
        found = self.tasks.get(task)
        if found is None:
            known = ", ".join(self.tasks) or "none"
            raise NotFound(
                f"this server has no task {task}; it has {known}", hint="Call request_access, and use the task's id."
            )
        return found

    def _holding(self, task: str) -> AccessProcess:
        """Return the task that holds access. Raises NotFound for every other."""
        access = self._known(task)
        if access.state is State.WAITING:
            waits = access.waits_for or "the answer of a worker"
            raise NotFound(f"task {task} waits for {waits}", hint="Call wait_for_access.")
        if access.state is State.ENDED:
            end = end_of(access)
            raise NotFound(end.message, hint=end.hint)
        return access


async def _ended(access: AccessProcess) -> None:
    while not await access.ended(_TICK_S):
        pass


async def _withdraw_unanswered(access: AccessProcess) -> None:
    """Withdraw the request of a task that was not granted in time.

    Nobody else knows its id: what is granted later would be taken by nobody.
    """
    await _ended(access)
    if access.failure is not None and access.failure.exit_code in _STANDS:
        await _withdraw(access)


async def _withdraw(access: AccessProcess) -> Failure | None:
    """Cancel a request, or end what was granted meanwhile.

    Return why neither was done, None where one was.
    """
    if await command("cancel", access.task) is None:
        return None
    return await command("complete", access.task)
