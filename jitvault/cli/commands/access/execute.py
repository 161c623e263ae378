"""`jitvault exec`: run a program with a task's access, then give it back."""

from __future__ import annotations

import os
import shutil
import signal
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from jitvault.agent.execution import mapping
from jitvault.agent.execution.allowed_program import names_of
from jitvault.agent.execution.run import StopRule
from jitvault.agent.execution.streams import fill_closed
from jitvault.cli import session
from jitvault.cli.access import execute_for_mcp as for_mcp
from jitvault.cli.access import execute_steps as steps
from jitvault.cli.access.execute_run import run
from jitvault.cli.access.held_access import OtherToken, monitored
from jitvault.cli.options import (
    APPROVAL_WAIT,
    OWN_FAILURE,
    ApprovalWait,
    TaskId,
    TaskOrSpec,
    duration,
    ending,
)
from jitvault.errors import InvalidInput, NotFound, UsageError

NOT_EXECUTABLE, NOT_FOUND = 126, 127
_MAX_ENV_FILE = 1_000_000
_gets = partial(typer.Option, rich_help_panel="What it gets")
_ENDS = "How it ends"
_ends = partial(typer.Option, rich_help_panel=_ENDS)


class OnChange(StrEnum):
    """What is done where more time for the task comes with another token."""

    RESTART = "restart"
    IGNORE = "ignore"


class Mask(StrEnum):
    """When secrets are replaced in what the program prints."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def execute(
    context: typer.Context,
    what: TaskOrSpec,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="The program and its arguments.")],
    env: Annotated[list[str] | None, _gets(metavar="NAME=TEMPLATE.FIELD", help="A variable of the program.")] = None,
    file: Annotated[
        list[str] | None, _gets(metavar="NAME=TEMPLATE.FIELD", help="A file in memory; NAME has its path.")
    ] = None,
    env_file: Annotated[
        Path | None, _gets(metavar="FILE", help="Lines NAME=VALUE; VALUE can be jit://TEMPLATE/FIELD.")
    ] = None,
    preset: Annotated[
        list[str] | None, _gets(metavar="postgres", help="PGHOST, PGUSER, PGPASSFILE …, DATABASE_URL.")
    ] = None,
    pristine: Annotated[bool, _gets("--pristine", help="None of this shell's variables but PATH, HOME …")] = False,
    mask: Annotated[Mask, _gets(help="Replace secrets in its output; auto: unless that is a terminal.")] = Mask.AUTO,
    task_id: TaskId = None,
    wait: ApprovalWait = APPROVAL_WAIT,
    stop_signal: Annotated[str, _ends(metavar="NAME", help="The signal when the task is over.")] = "TERM",
    stop_timeout: Annotated[
        float, duration("--stop-timeout", "How long after it SIGKILL follows.", shown="30s", most=3600, panel=_ENDS)
    ] = 30.0,
    on_change: Annotated[
        OnChange,
        _ends(help="Where more time comes with another token: restart the program with it, or let it go on without."),
    ] = OnChange.IGNORE,
    mcp_server: Annotated[
        int | None, typer.Option(metavar="PID", hidden=True, help="Serve this `jitvault mcp`.")
    ] = None,
    mcp_secrets: Annotated[
        int | None, typer.Option(metavar="FD", hidden=True, help="Ask here for its secrets.")
    ] = None,
) -> None:
    """Run a program with a task's access, then give the access back.

    With a SPEC the access is asked for first, and the command waits for approvals. The program gets the secrets as
    variables and as files in memory. When it ends, or is killed, or this command is killed, every process that it
    started is killed, the files are removed and the task's token is revoked. When the task is revoked or over, the
    program is stopped. The exit code is the program's, 128 and the number of the signal that killed it, 127 or 126 for
    one that is not found or cannot be run, and 125 for what kept it from running or ended it.

    Example: jitvault exec read-orders.yaml --preset postgres -- psql
    """
    fill_closed()
    ending(context).exit_code = OWN_FAILURE
    executable = _executable(context, command[0])
    serving = None if mcp_server is None else for_mcp.begin(mcp_server, command)
    wanted = mapping.Wanted(has_all=True)
    if serving is None:
        wanted = mapping.parse(env or (), file or (), _text(env_file), preset or ())
    # the runner of `jitvault mcp` checks the tools that it runs
    checked = names_of(executable) if serving is None else None
    stop = StopRule(_signal(stop_signal), stop_timeout)
    inherited = mapping.without_our_own(os.environ, pristine=pristine)
    wiring = session.open_session()
    # before anything is known that is secret, and while this process has one thread and no connection
    with monitored(wiring, ends=serving.ends if serving else ()) as monitor:
        task = steps.requested(context, wiring, what, checked, wanted, monitor, wait=wait, task_id=task_id)
        ending(context).task = task
        with steps.held(wiring, task, checked, wanted, monitor) as access:
            if serving is None:
                access.on_other = OtherToken.TAKE if on_change is OnChange.RESTART else OtherToken.IGNORE
            else:
                inherited |= for_mcp.setting(access, serving, mcp_secrets)
            code = run(access, [executable, *command], inherited, is_masked=_is_masked(mask), stop=stop)
    ending(context).is_of_program = True
    raise typer.Exit(code)


def _executable(context: typer.Context, name: str) -> str:
    """Return the path of the program.

    Raises NotFound, UsageError with a shell's exit codes.
    """
    found = shutil.which(name)
    if found is not None:
        return str(Path(found).absolute())
    is_there = "/" in name and Path(name).exists()
    ending(context).exit_code = NOT_EXECUTABLE if is_there else NOT_FOUND
    if is_there:
        raise UsageError(f"{name!a:.200} cannot be executed", hint="Nothing was asked for and nothing was started.")
    raise NotFound(
        f"there is no program {name!a:.200}", hint="Nothing was asked for and nothing was started. Is it in PATH?"
    )


def _text(env_file: Path | None) -> str:
    if env_file is None:
        return ""
    try:
        with env_file.open() as opened:
            return opened.read(_MAX_ENV_FILE)
    except (OSError, UnicodeDecodeError):
        raise InvalidInput(f"--env-file {env_file} cannot be read as text", hint="Nothing was started.") from None


def _signal(name: str) -> int:
    try:
        return int(signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"])
    except KeyError:
        raise UsageError(f"--stop-signal {name!a:.40}: expected a name such as TERM or INT") from None


def _is_masked(mask: Mask) -> bool:
    return mask is Mask.ALWAYS or (mask is Mask.AUTO and not os.isatty(1))
