"""Start tools with a task's access, for `jitvault mcp`.

    python -P -m jitvault.mcp.runner      # with JITVAULT_MCP_RUNNER, by `jitvault exec` alone

The secrets are in this process and in its tools, and not in the MCP server. So this process masks what the tools print,
as bytes and before anything is put into JSON, in which a secret could have another spelling. It ends when the server
says so, when its standard input ends, or at SIGTERM, and `jitvault exec` gives the access back then.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from threading import BoundedSemaphore, Lock, Thread
from typing import NoReturn

import msgspec

from jitvault.agent.execution.allowed_program import check_program, find_tool, names_of
from jitvault.errors import InvalidInput, JitvaultError, NotFound, UsageError, WrongState
from jitvault.mcp import frames
from jitvault.mcp.hints import OVER
from jitvault.mcp.shared_secrets import SharedMasker, received
from jitvault.mcp.task_end import question
from jitvault.mcp.tool_run import ToolRun
from jitvault.memory_protection import keep_private

# for tools that end by themselves when their task is over; `jitvault mcp` gives exec more
_GRACE_S = 3.0
_PAUSE_S = 0.02
MOST_RUNNING = 8
_MOST_WAITING = 64
# for answers that are under way, and for what a killed tool has in its pipes
_REST_S = 1.0
_HINT = "Nothing was started."


class Runner:
    """The tools of one task."""

    def __init__(
        self, setting: frames.Setting, environment: Mapping[str, str], sink: int, shared: int | None = None
    ) -> None:
        self._setting = setting
        self._environment = environment
        self._masker = SharedMasker(setting.secrets, shared)
        self._sink = sink
        self._writing = Lock()
        self._changing = Lock()
        self._runs: dict[str, ToolRun] = {}
        self._asked = Counter[str]()
        self._waiting = BoundedSemaphore(_MOST_WAITING)
        self._is_over = False
        self._question = None if setting.asking is None else question(setting.asking)
        self._end = ""

    def say_ready(self) -> None:
        """Tell the server that the access is there."""
        self._say(frames.Ready(self._setting.variables, self._setting.until))

    def serve(self, data: bytes) -> bool:
        """Carry out the request in one line, in a thread of its own.

        Return whether there are further ones.
        """
        try:
            request = frames.request(data)
        except msgspec.MsgspecError:
            return True
        if isinstance(request, frames.Finish):
            return False
        # more than this the server never has under way
        self._waiting.acquire()
        Thread(target=self._answer, args=(request,), daemon=True).start()
        return True

    def stop(self, grace_s: float) -> None:
        """End all tools: by SIGTERM, and after `grace_s` seconds by SIGKILL."""
        self._is_over = True
        with self._changing:
            runs = list(self._runs.values())
        deadline = time.monotonic() + grace_s
        for run in runs if grace_s else ():
            run.signal(signal.SIGTERM)
        while time.monotonic() < deadline and any(run.wait(0) is None for run in runs):
            time.sleep(_PAUSE_S)
        for run in runs:
            run.kill()
        self._say_rest()

    def _say_rest(self) -> None:
        """Tell what the tools printed and nobody asked for.

        It may be the result of a write.
        """
        deadline = time.monotonic() + _REST_S
        while time.monotonic() < deadline and self._asked.total():
            time.sleep(_PAUSE_S)
        with self._changing:
            left = dict(self._runs)
        for name, run in left.items():
            self._say(_printed(0, run, run.wait(_REST_S), over="", rest_of=name))

    def _answer(self, request: frames.Run | frames.Take) -> None:
        with self._changing:
            self._asked[request.run] += 1
        try:
            answer: frames.Answer = self._carried_out(request)
        except JitvaultError as error:
            answer = frames.Refused(request.number, str(error), error.hint)
        except Exception as error:  # noqa: BLE001 (the last one before the wire)
            # a bug: only the kind of exception is told, since its text may contain anything
            answer = frames.Refused(request.number, f"unexpected {type(error).__name__}", JitvaultError.default_hint)
        finally:
            self._waiting.release()
        # why its tools were stopped is known to `jitvault exec`, and told by the server when that has ended
        if not self._is_over or isinstance(answer, frames.Output):
            self._say(answer)
        with self._changing:
            self._asked[request.run] -= 1

    def _carried_out(self, request: frames.Run | frames.Take) -> frames.Output | frames.Refused:
        if isinstance(request, frames.Run) and self._end:
            return frames.Refused(request.number, self._end, OVER)
        run = self._start(request) if isinstance(request, frames.Run) else self._known(request.run)
        code = run.wait(request.patience)
        if code is not None:
            with self._changing:
                self._runs.pop(request.run, None)
        # what failed may have lost its login: the answer says so, and no later one
        if code and self._question and not self._is_over:
            self._end = self._end or self._question.why()
        over = "" if self._is_over else self._end or None
        return _printed(request.number, run, code, over=over if code else None)

    def _start(self, request: frames.Run) -> ToolRun:
        """Start a tool.

        Raises InvalidInput for one that nobody signed, NotFound and UsageError for one that cannot be run, WrongState
        while too many run.
        """
        executable = self._executable(request.tool)
        check_program(self._setting.task, self._setting.tools, names_of(executable))
        with self._changing:
            if len(self._runs) >= MOST_RUNNING:
                raise WrongState(
                    f"{MOST_RUNNING} tools of task {self._setting.task} run already, or were not polled to their end",
                    hint=f"{_HINT} Poll the ids that are running first.",
                )
            try:
                run = ToolRun([Path(executable).name, *request.args], executable, self._environment, self._masker.now)
            except ValueError:
                raise UsageError("an argument has a NUL character", hint=_HINT) from None
            except OSError as error:
                why = os.strerror(error.errno or 0)
                raise UsageError(f"{request.tool} cannot be run: {why}", hint=_HINT) from None
            self._runs[request.run] = run
        run.give(request.stdin)
        return run

    def _executable(self, tool: str) -> str:
        # a path could name a file of any content by a name that was signed
        if "/" in tool or "\0" in tool or not tool:
            raise InvalidInput(
                f"{tool!a:.80} is no name of a tool", hint=f"{_HINT} Name a program in PATH, such as psql."
            )
        path = find_tool(tool, self._environment.get("PATH"))
        if path is None:
            raise NotFound(f"there is no program {tool!a:.80} in PATH", hint=_HINT)
        return os.path.abspath(path)  # noqa: PTH100 (a link stays one: its name counts)

    def _known(self, run: str) -> ToolRun:
        with self._changing:
            found = self._runs.get(run)
        if found is None:
            raise NotFound(f"{run} has ended, and its end was told", hint="Run the tool again.")
        return found

    def _say(self, message: msgspec.Struct) -> None:
        data = frames.line(message)
        with self._writing:
            while data:
                data = data[os.write(self._sink, data) :]


def main() -> NoReturn:
    """Serve until standard input ends, or until the task is over."""
    keep_private()
    word = os.environ.pop(frames.SETTING, "")
    try:
        setting = frames.setting(word)
    except msgspec.MsgspecError:
        sys.exit(f"{frames.SETTING} is not set: `jitvault mcp` starts this program")
    runner = Runner(setting, dict(os.environ), 1, None if setting.shared is None else received(setting.shared))
    signal.signal(signal.SIGTERM, _stop)
    grace_s, code = 0.0, 0
    try:
        runner.say_ready()
        for line in sys.stdin.buffer:
            if not runner.serve(line):
                break
    except _Stopped:
        grace_s, code = _GRACE_S, 128 + signal.SIGTERM
    finally:
        runner.stop(grace_s)
        # threads may be blocked in a pipe
        os._exit(code)


def _printed(number: int, run: ToolRun, code: int | None, *, over: str | None, rest_of: str = "") -> frames.Output:
    """Return what a tool printed since the last time."""
    out, err = run.stdout.take(), run.stderr.take()
    return frames.Output(
        number,
        code,
        stdout=out.text,
        stderr=err.text,
        cut_stdout=out.cut,
        cut_stderr=err.cut,
        is_utf8=out.is_utf8 and err.is_utf8,
        over=over,
        rest_of=rest_of,
    )


class _Stopped(BaseException):
    """The task is over."""


def _stop(*_: object) -> NoReturn:
    raise _Stopped


if __name__ == "__main__":
    main()
