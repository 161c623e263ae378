"""The messages between the MCP server and the runner. Pure.

Each is one line of JSON, in ASCII. The server writes requests to the runner's standard input and reads answers from
its standard output: one answer for each request, by its number, and `Ready` before all of them. `jitvault exec` stands
between the two and masks what passes: a marker has no character that JSON escapes, so a masked line stays JSON.
"""

from __future__ import annotations

import json
import sys

import msgspec

# -P: a module in the directory where the model works must not take the place of one of ours
RUNNER = (sys.executable, "-P", "-m", "jitvault.mcp.runner")
"""The program that `jitvault exec` runs."""
LONGEST_STDOUT, LONGEST_STDERR = 26_000, 9_000
"""How many characters of a tool's output are in one answer; with what is said of them they are under 40,000."""
SETTING = "JITVAULT_MCP_RUNNER"
"""The variable with the runner's `Setting`, which `jitvault exec` sets and the runner's tools do not get."""


class Setting(msgspec.Struct, frozen=True):
    """What the runner has to know of its task.

    `tools` are the signed names, none for any. `secrets` are what it masks: template, field, value. `variables` are the
    names of those that the tools get. `until` is the task's deadline in RFC 3339, None where it is not known. `shared`
    is the descriptor by which the runner asks for the memory with the secrets of all tasks, None without one. `asking`
    is that by which it asks whether the task is over.
    """

    task: str
    tools: tuple[str, ...]
    secrets: tuple[tuple[str, str, str], ...]
    variables: tuple[str, ...]
    until: str | None
    shared: int | None = None
    asking: int | None = None


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Start a tool.

    The answer comes when it has ended, or `patience` seconds are over.
    """

    number: int
    run: str
    tool: str
    args: tuple[str, ...]
    stdin: str
    patience: float


class Take(msgspec.Struct, frozen=True, tag="take"):
    """Answer with what a tool printed since the last answer.

    The answer comes when the tool has ended, or `patience` seconds are over.
    """

    number: int
    run: str
    patience: float


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    """Kill the tools and end, as at the end of standard input.

    That end does not come while something else has a copy of the pipe. There is no answer.
    """


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The access is there."""

    variables: tuple[str, ...]
    until: str | None


class Output(msgspec.Struct, frozen=True, tag="output"):
    """What a tool printed since the last answer, with secrets masked.

    `exit_code` is None while it runs, else what a shell reports: 128 and the number of the signal that killed it.
    `cut_stdout` and `cut_stderr` count the characters that were dropped. `is_utf8` is false where bytes that are no
    UTF-8 were replaced by U+FFFD. `over` says why the task is over, where the tool ended with it; "" stands for a
    reason that only `jitvault exec` knows. `rest_of` is the run of an output that nobody asked for, the last one of a
    stopped tool.
    """

    number: int
    exit_code: int | None
    stdout: str
    stderr: str
    cut_stdout: int
    cut_stderr: int
    is_utf8: bool
    over: str | None = None
    rest_of: str = ""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The runner did not do what it was asked."""

    number: int
    message: str
    hint: str


Request = Run | Take | Finish
Answer = Ready | Output | Refused

_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def line(message: msgspec.Struct) -> bytes:
    """Return a message as one line.

    Every character beyond ASCII is escaped, so that the line can be cut and masked anywhere.
    """
    return json.dumps(msgspec.to_builtins(message)).encode() + b"\n"


def request(data: bytes) -> Request:
    """Return the request in a line. Raises msgspec.MsgspecError."""
    return _requests.decode(data)


def answer(data: bytes) -> Answer:
    """Return the answer in a line. Raises msgspec.MsgspecError."""
    return _answers.decode(data)


def setting(text: str) -> Setting:
    """Return the runner's setting. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(text, type=Setting)
