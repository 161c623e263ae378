"""`jitvault unwrap`: an agent takes its task token out of the wrapping."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from jitvault.cli.options import Debug, Json, Out, is_file, is_task_id

if TYPE_CHECKING:
    from jitvault.wiring import Wiring


def unwrap(
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

    This works only once. The token, or with --read the secrets that it gives, is printed or written to a new file.

    Example: jitvault unwrap wrapped.json --read --out secrets.json
    """
    from jitvault.agent.unwrap import read_all, wrapping_token
    from jitvault.agent.unwrap import unwrap as take
    from jitvault.cli import session
    from jitvault.cli.views import output
    from jitvault.cli.views import task_token as view
    from jitvault.errors import NotFound
    from jitvault.vault.wrapping import Wrapping

    wiring = session.open_session()
    vault = wiring.vault(None)
    with output.new_file(out) as file:
        given = _given(wiring, what)
        token = wrapping_token(given.text)
        try:
            held = take(vault, token)
        except NotFound:
            # A failed look-up does not name the wrapping in the audit stream. A refused unwrap does, and so shows
            # jitvault that the token was unwrapped before.
            Wrapping(vault).unwrap(token)
            raise
        if read:
            view.print_secrets(held.task_id, read_all(vault, held), out=file, as_json=json_)
        else:
            view.print_task_token(held, out=file, as_json=json_)
    if given.inbox:
        wiring.person.documents.destroy(given.inbox)


class _Given(NamedTuple):
    """Hold the text with the wrapping token.

    `inbox` is its path in the inbox, where it came from there.
    """

    text: str
    inbox: str = ""


def _given(wiring: Wiring, what: str) -> _Given:
    """Return the text that the argument stands for.

    Raises InvalidInput, NotFound.
    """
    from jitvault.errors import InvalidInput, NotFound
    from jitvault.formats.token_pattern import is_wrapping, without_tokens

    if what == "-":
        return _Given(sys.stdin.read(64 * 1024))
    if is_file(what):
        try:
            return _Given(Path(what).read_text())
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
        raise NotFound(f"there is no file {what}, and no task of that name in your inbox")
    return _Given(str(message["wrapping"][0]["token"]), inbox)
