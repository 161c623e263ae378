"""Options that many commands share.

What takes long to import is imported where it is needed, because `--help` has to start fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from jitvault.errors import InvalidInput, JitvaultError, UsageError
from jitvault.formats.token_pattern import without_tokens

_TASK_ID = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9._-]{0,62}")


def is_task_id(text: str) -> bool:
    """Return whether `text` is a valid task id.

    `jitvault.formats.fields` has the same rule for specs.
    """
    return _TASK_ID.fullmatch(text) is not None


def is_file(text: str) -> bool:
    """Return whether `text` names a file.

    False also for a name that no file can have.
    """
    try:
        return Path(text).is_file()
    except OSError:
        return False


@dataclass(slots=True)
class Ending:
    """What a command knows for the words and the code of its end."""

    task: str | None = None
    """What TASK stands for in a hint."""
    made: str | None = None
    """The task whose id the command made. It is named wherever the command ends early: the same one makes another."""
    interrupt_hint: str | None = None
    """The hint for Ctrl-C."""
    exit_code: int | None = None
    """The exit code, whatever error ends the command. The error's JSON has the error's own code."""
    is_of_program: bool = False
    """Whether the exit code is another program's: what it would mean of this one does not count."""


def ending(context: typer.Context) -> Ending:
    """Return what `main` says of the command's end; nobody reads it where `main` does not run the command."""
    return context.obj or Ending()


def set_made_task(context: typer.Context, task: str | None) -> None:
    """Name the task whose id the command made, wherever it ends early. None takes that back."""
    end = ending(context)
    end.made = task
    end.interrupt_hint = made_task_hint(task) if task else None


def made_task_hint(task: str) -> str:
    """Return how to go on with a task whose id the command made."""
    return (
        f"This command made the task's id: go on with `jitvault grant {task}`, since the same command makes another "
        f"task. `jitvault status {task}` shows whether this one was submitted."
    )


OWN_FAILURE = 125
"""The exit code of `exec` where the program did not run, as of `env` and `docker run`."""


def task_id(context: typer.Context, text: str | None) -> str | None:
    """Return the task id as it was typed.

    Raises UsageError for text that is not a task id. The id becomes part of Vault paths, so it is checked before
    anything else.
    """
    _check_id("TASK", text, hint="Operators, approvers and auditors see all tasks with `jitvault list`.")
    if text is not None:
        ending(context).task = text
    return text


def _given_id(text: str | None) -> str | None:
    """Return the id as it was typed. Raises UsageError for another text."""
    _check_id("--id", text, hint="Name the task with such an id. Nothing was written.")
    return text


def _check_id(name: str, text: str | None, *, hint: str) -> None:
    """Raise UsageError for text that is no task id. `name` is what the text was given for."""
    if text is not None and not is_task_id(text):
        raise UsageError(
            f"{name}: expected 1 to 63 of a-z 0-9 . _ - beginning with a letter or digit, without `..`, "
            f"got {without_tokens(text)!a:.80}",
            hint=hint,
        )


def seconds(*, least: float = 0, most: float | None = None) -> Callable[[str | float], float]:
    """Return the reader of an option that takes a duration, in seconds.

    It takes `30`, `30s` and `10m`.
    """

    def read(text: str | float) -> float:
        from jitvault.formats.time_window import format_duration, parse_seconds

        if not isinstance(text, str):
            # the option's default
            return text
        try:
            found = parse_seconds(text)
        except InvalidInput as error:
            raise typer.BadParameter(str(error)) from None
        if found < least:
            raise typer.BadParameter(f"expected at least {format_duration(timedelta(seconds=least))}, got {text}")
        if most is not None and found > most:
            raise typer.BadParameter(f"expected at most {format_duration(timedelta(seconds=most))}, got {text}")
        return found

    return read


def duration(
    name: str,
    meaning: str,
    *,
    shown: str | None = None,
    least: float = 0,
    most: float | None = None,
    panel: str | None = None,
) -> Any:
    """Return the option of a duration in seconds; `shown` is its default as it is typed."""
    return typer.Option(
        name,
        metavar="DURATION",
        parser=seconds(least=least, most=most),
        show_default=shown or True,
        help=meaning,
        rich_help_panel=panel,
    )


def template_names(incomplete: str) -> list[str]:
    """Return the access templates whose names begin so, for a shell.

    A shell can show no error: where the templates cannot be read, nothing is completed.
    """
    from jitvault.settings import load
    from jitvault.wiring import Wiring

    try:
        return sorted(name for name in Wiring(load()).templates if name.startswith(incomplete))
    except JitvaultError:
        return []


Task = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", callback=task_id)]
Json = Annotated[bool, typer.Option("--json", help="Short for -o json.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only the result, or the ids of what it is about; errors stay.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")]
Wait = Annotated[
    float, duration("--wait", "How long to try, or to wait for a worker (exit code 13).", shown="30s", most=86_400)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
OfAgent = Annotated[
    str, typer.Option("--agent", metavar="ENTITY", help="Only tasks of this agent, by name or entity id.")
]
OfOwner = Annotated[
    str, typer.Option("--owner", metavar="ENTITY", help="Only tasks of this owner, by name or entity id.")
]
Template = Annotated[str, typer.Argument(metavar="NAME", help="The template's name.", autocompletion=template_names)]
TaskOrSpec = Annotated[str, typer.Argument(metavar="TASK|SPEC", help="A task in your inbox, or a spec to ask for.")]
Reason = Annotated[str, typer.Option("--reason", help="The reason. It is kept in the task's record.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the result to a new file with mode 0600.")
]

APPROVAL_WAIT = 1800.0
"""How many seconds a command waits for approvals, and then uses the access itself."""

ApprovalWait = Annotated[
    float,
    duration(
        "--wait",
        "How long to wait for the approvals of a SPEC; a TASK has to be granted already.",
        shown="30m",
        most=86_400,
    ),
]

DEFAULT_WAIT = 30.0

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="PATH",
        envvar="JITVAULT_SANDBOX_SERVER",
        show_envvar=False,
        help="The program of an OpenBao (bao) or a HashiCorp Vault (vault) to run, or a container image with one, "
        "instead of the sandbox's own OpenBao. It can also be set in JITVAULT_SANDBOX_SERVER.",
    ),
]

SpecFile = Annotated[
    str, typer.Argument(metavar="SPEC", help="A task spec, YAML or JSON: a file, or - for standard input.")
]
TaskId = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="ID",
        callback=_given_id,
        help="The task's id, in place of the one in the spec: one spec serves many tasks.",
    ),
]
