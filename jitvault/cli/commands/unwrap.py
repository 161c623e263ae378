"""`jitvault unwrap`: an agent takes its task token out of the wrapping."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from jitvault.cli.options import Debug, Json, Out, is_file, is_task_id, set_hint_task

if TYPE_CHECKING:
    from jitvault.agent.opened_wrappings import Record
    from jitvault.agent.unwrap import TaskToken
    from jitvault.errors import NotFound
    from jitvault.formats.secret import Secret
    from jitvault.vault.client import Vault
    from jitvault.wiring import Wiring

_READ_YOURSELF = "The wrapping is open, so the task's token was printed instead: read with it, and do not unwrap again."


def unwrap(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="TOKEN|FILE|-|TASK",
            help="A wrapping token, a file with the JSON output of `jitvault grant`, - for standard input, or the id "
            "of a task in your inbox.",
        ),
    ],
    read: Annotated[bool, typer.Option("--read", help="Read the task's secrets at once, and print them.")] = False,
    out: Out = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Take a task token out of its wrapping.

    This works only once: a second unwrap of the same wrapping token is refused before Vault is asked, since Vault would
    take it for theft and end the task. The token, or with --read the secrets that it gives, is printed or written to a
    new file. What the agent may do with it is printed as well.

    Example: jitvault unwrap wrapped.json --read --out secrets.json
    """
    from jitvault.agent.opened_wrappings import locked_record, state_directory
    from jitvault.agent.unwrap import read_all, wrapping_token
    from jitvault.cli import session
    from jitvault.cli.views import output
    from jitvault.cli.views import task_token as view
    from jitvault.errors import JitvaultError, error_like

    wiring = session.open_session()
    vault = wiring.vault(None)
    with output.new_file(out) as file:
        given = _given(wiring, what)
        if given.task:
            set_hint_task(context, given.task)
        token = wrapping_token(given.text)
        with locked_record(token, state_directory(os.environ), _warn) as record:
            held = _take(vault, token, record)
        if not read:
            view.print_task_token(held, out=file, as_json=json_)
        else:
            try:
                secrets = read_all(vault, held)
            except JitvaultError as error:
                # the wrapping is open: without the token the agent would be left with nothing
                view.print_task_token(held, out=file, as_json=json_)
                raise error_like(error, f"the secrets could not be read: {error}", hint=_READ_YOURSELF) from None
            view.print_secrets(held.task_id, secrets, out=file, as_json=json_)
    if given.inbox:
        wiring.person.documents.destroy(given.inbox)


def _take(vault: Vault, token: Secret, record: Record) -> TaskToken:
    """Unwrap the wrapping token, and remember that it was opened.

    Raises NotFound for one that has expired or that somebody else opened.
    """
    from jitvault.agent.unwrap import unwrap as take
    from jitvault.errors import NotFound
    from jitvault.vault.wrapping import Wrapping

    try:
        held = take(vault, token)
    except NotFound:
        # A failed look-up does not name the wrapping in the audit stream. A refused unwrap does, and so shows jitvault
        # that the token was unwrapped before.
        Wrapping(vault).unwrap(token)
        raise
    record.keep(held.task_id)
    return held


class _Given(NamedTuple):
    """Hold the text with the wrapping token.

    `task` is the task that the text names, if it names one. `inbox` is its path in the inbox, where it came from there.
    """

    text: str
    task: str = ""
    inbox: str = ""


def _given(wiring: Wiring, what: str) -> _Given:
    """Return the text that the argument stands for.

    Raises InvalidInput, NotFound.
    """
    from jitvault.errors import InvalidInput
    from jitvault.formats.token_pattern import is_wrapping, without_tokens

    if what == "-":
        return _named(sys.stdin.read(64 * 1024))
    if is_file(what):
        try:
            return _named(Path(what).read_text())
        except (OSError, UnicodeDecodeError):
            raise InvalidInput(f"{what!a:.80} cannot be read as text") from None
    if is_wrapping(what):
        return _Given(what)
    if not is_task_id(what):
        shown = without_tokens(what)
        raise InvalidInput(f"expected a wrapping token, a file, - or the id of a task, got {shown!a:.80}")
    inbox = f"inbox/{wiring.person.entity}/{what}"
    message = wiring.person.documents.get(inbox)
    # a token that was delivered too late was removed again
    if message is None or not message["wrapping"]:
        raise _nothing_in_the_inbox(what)
    return _Given(str(message["wrapping"][0]["token"]), what, inbox)


def _named(text: str) -> _Given:
    """Return the text with the task that it names.

    The output of `jitvault grant` names one.
    """
    import json

    with suppress(ValueError, KeyError, TypeError, RecursionError):
        task = json.loads(text)["task_id"]
        if isinstance(task, str) and is_task_id(task):
            return _Given(text, task)
    return _Given(text)


def _nothing_in_the_inbox(task: str) -> NotFound:
    """Return the error for a task without a wrapping token in the inbox.

    It says when this user opened the task's wrapping, if that is why the inbox is empty.
    """
    from jitvault.agent.opened_wrappings import opened_of_task, state_directory
    from jitvault.errors import NotFound

    message = f"there is no file {task}, and no task of that name in your inbox"
    opened = opened_of_task(task, state_directory(os.environ))
    if opened is None:
        return NotFound(message)
    return NotFound(
        f"{message}: you opened its wrapping at {opened.at:%Y-%m-%d %H:%M:%S} UTC",
        hint=f"Go on with the token that it gave then. `jitvault status {task}` shows what the task may still do.",
    )


def _warn(message: str) -> None:
    """Print a warning to stderr."""
    from jitvault.cli.views.output import for_terminal

    typer.echo(for_terminal(message, sys.stderr, first="warning: "), err=True)
