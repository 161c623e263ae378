"""The options that many commands share. Only typer is imported here: `--help` has to start fast."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from jitvault.errors import UsageError

_TASK_ID = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9._-]{0,62}")


def is_task_id(text: str) -> bool:
    """Whether a task can have this id; `jitvault.formats.fields` says the same of specs."""
    return _TASK_ID.fullmatch(text) is not None


def is_file(text: str) -> bool:
    """Whether `text` names a file; a name that no file can have does not."""
    try:
        return Path(text).is_file()
    except OSError:
        return False


def speak_of(context: typer.Context, task: str) -> None:
    """What a failure of this command hints at is this task, where the hint says TASK."""
    if context.obj is not None:
        context.obj["TASK"] = task


def task_id(context: typer.Context, text: str | None) -> str | None:
    """The id as it was typed: it becomes part of Vault paths, so nothing else gets any further."""
    if text is not None and not is_task_id(text):
        from jitvault.formats.token_pattern import without_tokens

        shown = without_tokens(text)
        raise UsageError(
            "TASK: expected 1 to 63 of a-z 0-9 . _ - beginning with a letter or digit, without `..`, "
            f"got {shown!a:.80}",
            hint="Run `jitvault list` to see the tasks there are.",
        )
    if text is not None:
        speak_of(context, text)
    return text


Task = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", callback=task_id)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")]
Wait = Annotated[
    float,
    typer.Option(
        "--wait", metavar="SECONDS", min=0, max=86_400, help="How long to go on, or to wait for a worker (exit 13)."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the task's record.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the result to a new 0600 file.")]

DEFAULT_WAIT = 30.0
