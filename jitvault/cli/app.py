"""Command line: all commands, and the handling of their failures.

Only here do failures become messages and exit codes.
"""

from __future__ import annotations

import errno
import gc
import os
import re
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from itertools import takewhile
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from jitvault import __version__
from jitvault.cli.caller import heed_caller, tell_failure
from jitvault.cli.closing import on_exit
from jitvault.cli.command_table import COMMANDS, GROUPS
from jitvault.cli.commands.installation.completion import answer_shell
from jitvault.cli.folding import for_terminal
from jitvault.cli.help import Group, example_in
from jitvault.cli.lazy_commands import commands_of
from jitvault.cli.options import OWN_FAILURE, Ending, made_task_hint
from jitvault.cli.output_options import wants_json
from jitvault.cli.refused import hint_for
from jitvault.errors import JitvaultError, UsageError, VaultNotServing, VaultUnavailable
from jitvault.formats.shorten import printable
from jitvault.formats.token_pattern import without_tokens

_OBJECTS_BEFORE_COLLECTION = 50_000

app = typer.Typer(
    name="jitvault",
    cls=Group,
    help="Give an AI agent access for one approved task, revoke it, and prove that it is revoked.",
    epilog="Exit codes: 0 done, 1 bug, 2 usage, 3 denied, 4 approval missing, 5 Vault unavailable, "
    "6 revoked but not confirmed, 7 audit stream not trusted, 8 invalid spec, 9 not found or wrong state, "
    "10 Vault refused, 11 ledger, 12 security finding, 13 wait timed out.",
    no_args_is_help=True,
    # every command inherits them
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


# the exit codes by which a shell reports SIGINT and SIGPIPE
_INTERRUPTED = 130
_BROKEN_PIPE = 141
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def _version(value: bool) -> None:
    if value:
        typer.echo(f"jitvault {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run one command.

    A failure shows a traceback only with --debug, and never shows a secret.
    """
    # the modules of a command are 60,000 objects that live until it ends: Python's default, 700, would search them
    # again and again for garbage, which takes a twentieth of a command's start
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
    with on_exit:
        _run()


@cache
def _commands() -> Any:
    """Return the commands as typer runs them."""
    group: Any = get_command(app)
    group.commands = commands_of(COMMANDS, GROUPS)
    return group


def _run() -> NoReturn:
    answer_shell(_commands)
    arguments = sys.argv[1:]
    # what comes after -- is of another program
    debug = "--debug" in takewhile("--".__ne__, arguments)
    as_json = wants_json(arguments)
    end = Ending()
    try:
        heed_caller()
        code = _commands()(prog_name="jitvault", standalone_mode=False, obj=end)
    except typer.TyperException as error:
        # the command line itself is wrong; without a message, the help of a group was printed already
        lines = error.format_message().replace("Value error, ", "").splitlines()
        message = " ".join(filter(None, map(str.strip, lines)))
        # whatever keeps the program of `exec` from running has one code
        code = OWN_FAILURE if _command_of(error) == "jitvault exec" else None
        if message:
            _print_error(message, _hint_for_usage(error, arguments), error.exit_code, as_json=as_json, exit_code=code)
        sys.exit(code or error.exit_code)
    except JitvaultError as error:
        if debug:
            raise
        hint = hint_for(error)
        if isinstance(error, UsageError) and not error.has_own_hint:
            hint = f"See `{_typed_command(arguments)} --help`."
        hint = re.sub(r"\bTASK\b", lambda word: end.task or word[0], hint)
        hint = _with_made_task(hint, error, end.made)
        _print_error(
            str(error),
            _with_server_program(hint, error),
            error.exit_code,
            as_json=as_json,
            exit_code=end.exit_code,
            **error.data,
        )
    except (BrokenPipeError, SystemExit):
        # the reader of our output has gone: typer exits only for that
        _discard_output()
        sys.exit(_BROKEN_PIPE)
    except Exception as error:
        # a bug: only the kind of exception is shown, since its text may contain anything
        if debug:
            raise
        failure = _as_failure(error)
        hint = _with_made_task(failure.hint, failure, end.made)
        _print_error(str(failure), hint, failure.exit_code, as_json=as_json)
    # typer returns this code for Ctrl-C
    if code == _INTERRUPTED and not end.is_of_program:
        hint = end.interrupt_hint or "The next command on the task finishes what was begun."
        _print_error("interrupted", hint, _INTERRUPTED, as_json=as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _discard_output() -> None:
    """Leave what cannot be printed: Python would try it once more at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def _as_failure(error: Exception) -> JitvaultError:
    """Return what a command ends with where nothing expected `error`.

    It is a bug, or the output goes to a disk that is full.
    """
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        _discard_output()
        return UsageError(
            f"{error.filename or 'what the command prints'} cannot be written: {error.strerror}",
            hint="Free space there, or print elsewhere, and run the command again: what it did before is done.",
        )
    return JitvaultError(f"unexpected {type(error).__name__}")


def _with_made_task(hint: str, error: JitvaultError, made: str | None) -> str:
    """Return the hint with how to go on with a task whose id the command made.

    Most hints that do not lead on by themselves say to run the same command again.
    """
    if made is None or error.leads_on:
        return hint
    return f"{hint} {made_task_hint(made)}"


def _with_server_program(hint: str, error: JitvaultError) -> str:
    """Return the hint with `bao` replaced by the server's program.

    Where the server cannot be asked, it is the program that is installed.
    """
    if "`bao " not in hint:
        return hint
    from jitvault.formats.server_product import with_commands
    from jitvault.settings import load
    from jitvault.wiring import Wiring

    # where the server does not answer, do not make the caller wait for it a second time
    answers = error.answers if isinstance(error, VaultNotServing) else not isinstance(error, VaultUnavailable)
    try:
        wiring = Wiring(load())
    except JitvaultError:
        # the settings are what is wrong
        return hint
    with closing(wiring):
        return with_commands(hint, wiring.commands(ask=answers))


def _typed_command(arguments: Sequence[str]) -> str:
    """Return the command that was typed, such as `jitvault policy check`."""
    command, words = _commands(), ["jitvault"]
    for argument in arguments:
        if not isinstance(command, typer.core.TyperGroup) or argument not in command.commands:
            break
        command = command.commands[argument]
        words.append(argument)
    return " ".join(words)


def _command_of(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return str(context.command_path) if context else "jitvault"


def _hint_for_usage(error: typer.TyperException, arguments: Sequence[str]) -> str:
    """Return the hint for a command line that cannot be meant.

    Of `exec` the options are most likely the program's, where nothing says where that begins.
    """
    command = _command_of(error)
    hint = f"See `{command} --help`."
    context = getattr(error, "ctx", None)
    if context is not None:
        hint = f"{example_in(context.command.help or '')}{hint}"
    if command == "jitvault exec" and "--" not in arguments:
        return f"The program and its options come after `--`: `jitvault exec TASK -- CMD`. {hint}"
    return hint


def _print_error(
    message: str, hint: str, code: int, *, as_json: bool, exit_code: int | None = None, **data: object
) -> NoReturn:
    """Print an error and exit.

    The exit code is the error's own, or `exit_code`, which only `exec` sets. `data` is more of it, for programs alone.
    """
    from jitvault.cli.views.output import to_json

    message = without_tokens(printable(message))
    hint = without_tokens(printable(hint))
    tell_failure(code, message, hint)
    if as_json:
        typer.echo(to_json({"error": {"exit_code": code, "message": message, "hint": hint, **data}}), err=True)
    else:
        prefix = "error: "
        typer.secho(prefix, fg="red", bold=True, err=True, nl=False)
        # the message may contain a reason that another person wrote: it is indented further than any line of ours, and
        # so is each further line of a message that has several
        indent = " " * len(prefix)
        message = message.replace("\n", f"\n{indent}")
        folded = for_terminal(message, sys.stderr, first=indent, rest=indent)
        then = for_terminal(hint, sys.stderr, first="  ", rest="  ", keep_commands=True)
        typer.echo(f"{folded[len(prefix) :]}\n{then}", err=True)
    sys.exit(exit_code or code)


if __name__ == "__main__":
    main()
