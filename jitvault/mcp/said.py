"""What `jitvault exec` and other commands say on stderr. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from jitvault.mcp.hints import hint_of

_ERROR = '{\n  "error"'
_LONGEST = 2_000


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something was not done, and what to do next: jitvault's words.

    `exit_code` is that of the command's error, 0 where no command failed.
    """

    message: str
    hint: str
    exit_code: int = 0


def failure_in(said: str, code: int, *, is_expected: bool = False) -> Failure | None:
    """Return the error in what a command with `-o json` said.

    It ended with `code`. Without an error the result is None for an end that is expected.
    """
    start = said.rfind(_ERROR)
    if start >= 0:
        try:
            error = json.loads(said[start:])["error"]
            hint = hint_of(error["exit_code"], str(error["hint"]))
            return Failure(str(error["message"])[:_LONGEST], hint[:_LONGEST], error["exit_code"])
        except (ValueError, KeyError, TypeError):
            pass
    if is_expected:
        return None
    return Failure(f"the process that held the access ended with {code}", "Ask for another task with request_access.")


def waits_for(said: str, task: str) -> str:
    """Return what the task waits for, by the last line that says so.

    The result is "" without one.
    """
    start = f"Task {task} waits for "
    found = [line for line in said.splitlines() if line.startswith(start)]
    return found[-1].removeprefix(start).partition("; this command waits")[0][:_LONGEST] if found else ""
