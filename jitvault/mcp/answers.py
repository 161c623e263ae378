"""What is told to a model: JSON of 40,000 characters at most. Pure."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jitvault.agent.command_events import Failed
from jitvault.mcp.frames import LONGEST_STDERR, LONGEST_STDOUT, Output
from jitvault.mcp.hints import hint_of

LONGEST = 40_000
"""The most characters of one answer."""
_LONGEST_WORDS = 2_000


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something was not done, and what to do next, in words.

    `exit_code` is that of the command's error, 0 where no command failed.
    """

    message: str
    hint: str
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The text of an answer, and whether it says that nothing was done."""

    text: str
    is_error: bool = False


def told(facts: Mapping[str, Any]) -> Answer:
    """Return an answer with these facts."""
    text = _json(facts)
    if len(text) > LONGEST:
        return failed(Failure("the answer is longer than 40,000 characters", "Ask for less."))
    return Answer(text)


def failure_of(error: Failed) -> Failure:
    """Return why a command of jitvault failed, with a hint for a model."""
    hint = hint_of(error.exit_code, error.hint)
    return Failure(error.message[:_LONGEST_WORDS], hint[:_LONGEST_WORDS], error.exit_code)


def failed(failure: Failure) -> Answer:
    """Return an answer that says why something was not done."""
    return Answer(_json({"error": failure.message, "hint": failure.hint}), is_error=True)


def printed(run: str, output: Output, over: Failure | None = None) -> Answer:
    """Return the answer about a tool that runs, or has ended.

    It has what the tool printed since the last answer, and why the task is `over`, where the tool ended with it.
    """
    stdout, cut_stdout = _fitting(output.stdout, LONGEST_STDOUT)
    stderr, cut_stderr = _fitting(output.stderr, LONGEST_STDERR)
    facts: dict[str, Any] = {"id": run, "state": "running"}
    if output.exit_code is not None:
        facts = {"id": run, "state": "ended", "exit_code": output.exit_code}
    cut = [
        f"{dropped:,} characters of {name} are not shown"
        for name, dropped in (("stdout", cut_stdout + output.cut_stdout), ("stderr", cut_stderr + output.cut_stderr))
        if dropped
    ]
    if cut:
        facts["cut"] = f"{', and '.join(cut)}: let the tool print less, or write a file"
    if not output.is_utf8:
        facts["note"] = "bytes that are no UTF-8 are shown as \N{REPLACEMENT CHARACTER}"
    if over is not None:
        facts |= {"error": over.message, "hint": over.hint}
    return replace(told({**facts, "stdout": stdout, "stderr": stderr}), is_error=over is not None)


def fitting(items: Sequence[Mapping[str, Any]], most: int) -> tuple[list[Mapping[str, Any]], int]:
    """Return the first items that fit into `most` characters.

    Return also how many do not.
    """
    kept: list[Mapping[str, Any]] = []
    for item in items:
        most -= len(_json(item)) + 2
        if most < 0:
            break
        kept.append(item)
    return kept, len(items) - len(kept)


def _fitting(text: str, most: int) -> tuple[str, int]:
    """Return the beginning of `text` that JSON spells in `most` characters.

    Return also how many characters come after it.
    """
    if len(_json(text)) <= most:
        return text, 0
    length = bisect_right(range(len(text)), most, key=lambda end: len(_json(text[:end]))) - 1
    return text[:length], len(text) - length


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
