"""One task of the MCP server, held by a `jitvault exec`.

That process has a session of its own and dies with this one. Its standard input is the runner's: when that is told to
finish it ends, and the access with it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import count
from pathlib import Path

import msgspec

from jitvault.agent.command_events import Event, Failed, Waiting, event
from jitvault.agent.events_variable import VARIABLE
from jitvault.mcp import frames
from jitvault.mcp.answers import Failure, failure_of
from jitvault.mcp.shared_secrets import hand_out
from jitvault.model.vault_access import CAPS, smallest_cap

# -P: a module in the directory where the model works must not take the place of one of ours
JITVAULT = (sys.executable, "-P", "-m", "jitvault")
# longer than the longest answer of the runner
_LONGEST_LINE = 2 * 1024 * 1024
# how much later than its patience an answer may come
_WAY_S = 0.2
# how long after a process its last events are waited for
_LAST_EVENTS_S = 1.0
# the runner gives its tools three seconds when the task is over
_STOP_TIMEOUT = "10s"


_Answer = asyncio.Future[frames.Output | frames.Refused | None]


class State(StrEnum):
    """Where a task is, as the server sees it."""

    WAITING = "waiting"
    HELD = "held"
    ENDED = "ended"


@contextmanager
def _handed_out(memory: int | None) -> Iterator[Sequence[int]]:
    """Yield the descriptor by which a process asks for the memory.

    It, and what it starts, are answered until each of them has closed it.
    """
    if memory is None:
        yield ()
        return
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()

    def answer() -> None:
        try:
            goes_on = hand_out(memory, ours)
        except BlockingIOError:
            return
        except OSError:
            goes_on = False
        if not goes_on:
            loop.remove_reader(ours)
            ours.close()

    loop.add_reader(ours, answer)
    with theirs:
        yield (theirs.fileno(),)


@asynccontextmanager
async def _event_line() -> AsyncIterator[tuple[int, AsyncIterator[Event]]]:
    """Yield the descriptor for the events of a process that is started in the block, and the events.

    It is a socket: unlike a pipe, no other process can open that again below /proc.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        reader = asyncio.StreamReader(limit=_LONGEST_LINE)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, ours)
        yield theirs.fileno(), _events(reader, transport)


async def _events(reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> AsyncIterator[Event]:
    """Yield events until the process has closed its end, or sends a line that is none."""
    try:
        with suppress(ValueError, OSError, msgspec.MsgspecError):
            while data := await reader.readline():
                yield event(data)
    finally:
        # whoever goes on sending is not to wait for us
        transport.close()


class AccessProcess:
    """The access of one task, from its request to its end.

    `until` is its deadline, and `latest_end` how long its token can live at most; both are known once it is held.
    """

    def __init__(self, task: str, template: str, tools: Sequence[str], window: timedelta) -> None:
        self.task = task
        self.template = template
        self.tools = tuple(tools)
        self.window = window
        self.variables: tuple[str, ...] = ()
        self.until: datetime | None = None
        self.latest_end: datetime | None = None
        self.may_be_extended = False
        self.state = State.WAITING
        self.was_held = False
        self.failure: Failure | None = None
        self.is_finishing = False
        self._waits_for = ""
        self._failed: Failed | None = None
        self._numbers = count(1)
        self._answers: dict[int, _Answer] = {}
        # of each run the answer that nobody has yet
        self._late: dict[str, _Answer] = {}
        # what its tools printed before the end, and nobody asked for
        self._rest: dict[str, frames.Output] = {}
        self._changed = asyncio.Condition()
        self._process: Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def waits_for(self) -> str:
        """What the task waits for in words, "" where that is not said yet."""
        return self._waits_for if self.state is State.WAITING else ""

    async def start(self, spec: Path, wait: str, shared: int | None) -> None:
        """Ask for the access that the file `spec` describes.

        `wait` is the duration for which approvals are waited for. `shared` is the memory for the secrets of all tasks.
        The file is removed when it is not needed any more.
        """
        with _handed_out(shared) as passed:
            await self._start(spec, wait, passed)

    async def _start(self, spec: Path, wait: str, passed: Sequence[int]) -> None:
        server = ("--mcp-server", str(os.getpid()), *(f"--mcp-secrets={each}" for each in passed))
        options = ("--mask", "always", "--stop-timeout", _STOP_TIMEOUT, "--wait", wait)
        async with _event_line() as (descriptor, events):
            self._process = await asyncio.create_subprocess_exec(
                *(*JITVAULT, "exec", str(spec), *server, *options, "--", *frames.RUNNER),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                limit=_LONGEST_LINE,
                env={**os.environ, VARIABLE: str(descriptor)},
                pass_fds=(*passed, descriptor),
                start_new_session=True,
            )
        self._watch = asyncio.create_task(self._until_the_end(self._process, events, spec))

    async def settled(self, seconds: float) -> bool:
        """Wait until the task is held or over, and return whether it is."""
        return await self._until(lambda: self.state is not State.WAITING, seconds)

    async def ended(self, seconds: float) -> bool:
        """Wait until the access is given back, and return whether it is."""
        return await self._until(lambda: self.state is State.ENDED, seconds)

    async def run(
        self, run: str, tool: str, args: Sequence[str], stdin: str, patience: float
    ) -> frames.Output | frames.Refused | None:
        """Start a tool, and return what it printed within `patience` seconds.

        The result is None where the access ended meanwhile.
        """
        return await self._ask(frames.Run(next(self._numbers), run, tool, tuple(args), stdin, patience))

    async def take(self, run: str, patience: float) -> frames.Output | frames.Refused | None:
        """Return what a tool printed since the last time.

        The result comes when the tool has ended, after `patience` seconds at most. It is None where the access ended
        meanwhile.
        """
        return await self._ask(frames.Take(next(self._numbers), run, patience))

    def finish(self) -> None:
        """Have the tools killed and the access given back.

        A request that still waits is not waited for any more.
        """
        self.is_finishing = True
        if self._process is None or self._process.stdin is None or self.state is State.ENDED:
            return
        self._process.stdin.write(frames.line(frames.Finish()))
        self._process.stdin.close()
        if self.state is State.WAITING:
            # it reads nothing yet; its monitor gives back what it may hold already
            with suppress(ProcessLookupError):
                self._process.terminate()

    async def _ask(self, request: frames.Run | frames.Take) -> frames.Output | frames.Refused | None:
        # what came too late for the last call is not lost
        future = self._late.pop(request.run, None)
        if future is not None and future.done() and future.result() is not None:
            return future.result()
        if self.state is not State.HELD or self._process is None or self._process.stdin is None:
            return self._rest.pop(request.run, None)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            self._answers[request.number] = future
            with suppress(ConnectionError):
                self._process.stdin.write(frames.line(request))
                await self._process.stdin.drain()
        self._late[request.run] = future
        done, _ = await asyncio.wait([future], timeout=request.patience + _WAY_S)
        if not done:
            # a tool that is being stopped, or a machine that is slow: the next call learns more
            return frames.Output(request.number, None, stdout="", stderr="", cut_stdout=0, cut_stderr=0, is_utf8=True)
        self._late.pop(request.run, None)
        return future.result() or self._rest.pop(request.run, None)

    async def _until(self, is_so: Callable[[], bool], seconds: float) -> bool:
        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(is_so), seconds)
        return is_so()

    async def _until_the_end(self, process: Process, events: AsyncIterator[Event], spec: Path) -> None:
        assert process.stdout is not None  # noqa: S101 (for the type checker)
        heeding = asyncio.create_task(self._heed(events, spec))
        with suppress(ValueError, msgspec.MsgspecError):
            while line := await process.stdout.readline():
                await self._received(frames.answer(line), spec)
        if process.stdin is not None:
            process.stdin.close()
        code = await process.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(heeding, _LAST_EVENTS_S)
        spec.unlink(missing_ok=True)
        # a request that waits is not waited for by killing its process; access is given back by one that ends well
        is_expected = self.is_finishing and not (self.was_held and code)
        self.failure = _why_it_ended(self._failed, code, is_expected=is_expected)
        self.state = State.ENDED
        for future in self._answers.values():
            if not future.done():
                future.set_result(None)
        await self._tell()

    async def _received(self, answer: frames.Answer, spec: Path) -> None:
        if isinstance(answer, frames.Ready):
            self.state, self.was_held = State.HELD, True
            self.variables = answer.variables
            if answer.until:
                self.until = datetime.fromisoformat(answer.until)
                self.latest_end = self.until - self.window + CAPS[smallest_cap(self.window)]
            spec.unlink(missing_ok=True)
            await self._tell()
            return
        if isinstance(answer, frames.Output) and answer.rest_of:
            self._rest[answer.rest_of] = answer
            return
        future = self._answers.pop(answer.number, None)
        if future is not None and not future.done():
            future.set_result(answer)

    async def _heed(self, events: AsyncIterator[Event], spec: Path) -> None:
        async for each in events:
            # whichever it is, the spec was read: this process may be killed while it waits
            spec.unlink(missing_ok=True)
            match each:
                case Waiting():
                    self._waits_for = each.text
                case Failed():
                    self._failed = each
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def command(*words: str) -> Failure | None:
    """Run a command of jitvault; return why it failed, None where it did not.

    What it prints is thrown away, since that can be a token.
    """
    async with _event_line() as (descriptor, events):
        process = await asyncio.create_subprocess_exec(
            *(*JITVAULT, *words, "-o", "json"),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            env={**os.environ, VARIABLE: str(descriptor)},
            pass_fds=(descriptor,),
            start_new_session=True,
        )
    error: Failed | None = None
    async for each in events:
        if isinstance(each, Failed):
            error = each
    code = await process.wait()
    return _why_it_ended(error, code, is_expected=code == 0)


def _why_it_ended(error: Failed | None, code: int, *, is_expected: bool) -> Failure | None:
    """Return why a process of jitvault ended with `code`, None where it did what it should."""
    if error is not None:
        return failure_of(error)
    if is_expected:
        return None
    return Failure(f"the process that held the access ended with {code}", "Ask for another task with request_access.")
