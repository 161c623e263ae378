"""`jitvault unwrap`: an agent takes its task token out of the wrapping."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from jitvault.agent.credential import Credential
from jitvault.agent.opened_wrappings import Record, locked_record, state_directory
from jitvault.agent.unwrap import TaskToken, read_all
from jitvault.cli import inbox, session
from jitvault.cli.access.wrapping_source import Given, opened
from jitvault.cli.access.wrapping_source import given as wrapping_given
from jitvault.cli.folding import for_terminal
from jitvault.cli.options import Out, ending
from jitvault.cli.views import output
from jitvault.cli.views import task_token as view
from jitvault.cli.views.output import NewFile
from jitvault.errors import JitvaultError, OutcomeUnknown, UsageError, WrongState, error_like
from jitvault.vault.client import Vault
from jitvault.wiring import Wiring


class UnwrapFormat(StrEnum):
    """The formats of what `--read` read; a token is only text or JSON."""

    JSON = "json"
    ENV = "env"
    DSN = "dsn"


def unwrap(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="TASK|FILE|-",
            help="The id of a task in your inbox, a file with the JSON output of `jitvault grant`, or - for standard "
            "input. A wrapping token itself works too, but everybody on this machine can see the arguments of a "
            "process.",
        ),
    ],
    read: Annotated[bool, typer.Option("--read", help="Read the task's secrets at once, and print them.")] = False,
    out: Out = None,
    format_: UnwrapFormat | None = None,
) -> None:
    """Take a task token out of its wrapping.

    This works only once: a second unwrap of the same wrapping token is refused before Vault is asked, since Vault would
    take it for theft and end the task. The token, or with --read the secrets that it gives, is printed or written to a
    new file. What the agent may do with it is printed as well.

    With --read, -o env prints lines for a shell, which set the variables of PostgreSQL's own programs; -o dsn prints a
    URL.

    Example: jitvault unwrap read-orders --read -o env --out orders.env
    """
    as_json = format_ is UnwrapFormat.JSON
    if format_ is not None and not as_json and not read:
        raise UsageError(
            f"-o {format_.value} prints what was read, and nothing is read without --read",
            hint="Add --read. Nothing was unwrapped.",
        )
    wiring = session.open_session()
    vault = wiring.vault(None)
    with output.new_file(out) as file:
        given = wrapping_given(wiring, what)
        if given.task:
            ending(context).task = given.task
        with locked_record(given.token, state_directory(os.environ), _warn) as record:
            held = _take(wiring, given, record)
        if read:
            _read(vault, held, file, format_)
        else:
            commands = wiring.commands() if held.heartbeat is not None else ()
            view.print_task_token(held, out=file, as_json=as_json, commands=commands)
    if given.is_from_inbox:
        inbox.empty(wiring, given.task)


def _read(vault: Vault, held: TaskToken, file: NewFile | None, format_: UnwrapFormat | None) -> None:
    """Read the task's secrets, and print them in a format.

    The wrapping is open: whatever goes wrong, the agent is not left with nothing. Raises what kept the secrets from
    being read, and WrongState for secrets that are no URL.
    """
    found: list[Credential] = []
    try:
        for credential in read_all(vault, held):
            found.append(credential)
    except JitvaultError as error:
        view.print_task_token(held, out=file, as_json=format_ is not None)
        raise error_like(
            error, f"the secrets could not be read: {error}", hint=view.read_yourself(held, len(found))
        ) from None
    lacking = [each for each in found if not each.is_login] if format_ is UnwrapFormat.DSN else []
    if lacking:
        view.print_secrets(held, found, out=file, format_="json")
        names = ", ".join(dict.fromkeys(each.use.template for each in lacking))
        raise WrongState(
            f"{names}: no database and address is known, so there is no URL; all that was read was printed as JSON",
            hint="Go on with that: the wrapping is open. Another time use -o env or -o json, or give the template a "
            "`connection` (docs/reference.md).",
        )
    view.print_secrets(held, found, out=file, format_=format_.value if format_ else None)


def _take(wiring: Wiring, given: Given, record: Record) -> TaskToken:
    """Unwrap the wrapping token, and remember that it was opened.

    Raises NotFound for one that has expired or that somebody else opened, and OutcomeUnknown where Vault may have
    opened it and its answer was lost. It is remembered then, too: a second unwrap would be an alarm.
    """
    try:
        held = opened(wiring, given)
    except OutcomeUnknown:
        record.keep(given.task, wiring.vault(None).connection.address)
        raise
    record.keep(held.task_id, wiring.vault(None).connection.address)
    return held


def _warn(message: str) -> None:
    """Print a warning to stderr."""
    typer.echo(for_terminal(message, sys.stderr, first="warning: ", rest=" " * 9), err=True)
