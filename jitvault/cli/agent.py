"""What agents do: unwrap what was granted to them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jitvault.cli.options import Debug, Json, Out, is_file, is_task_id

if TYPE_CHECKING:
    from jitvault.wiring import Wiring


def unwrap(
    what: Annotated[
        str,
        typer.Argument(
            metavar="TOKEN|FILE|-|TASK",
            help="A wrapping token, a file with grant's JSON, - for standard input, or a task in your inbox.",
        ),
    ],
    read: Annotated[bool, typer.Option("--read", help="Read the task's secrets at once and print them.")] = False,
    out: Out = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Take the task token out of its wrapping, once."""
    from jitvault.agent.unwrap import read_all, wrapping_token
    from jitvault.agent.unwrap import unwrap as take
    from jitvault.cli import output, render, session

    wiring = session.wired()
    vault = wiring.vault(None)
    with output.new_file(out) as file:
        held = take(vault, wrapping_token(_given(wiring, what)))
        if read:
            render.secrets(held.task_id, read_all(vault, held), out=file, as_json=json_)
        else:
            render.unwrapped(held, out=file, as_json=json_)


def _given(wiring: Wiring, what: str) -> str:
    from jitvault.errors import InvalidInput, NotFound

    if what == "-":
        return sys.stdin.read(64 * 1024)
    if is_file(what):
        try:
            return Path(what).read_text()
        except (OSError, UnicodeDecodeError):
            raise InvalidInput(f"{what} cannot be read as text") from None
    # a wrapping token is s.…, hvs.… or a JWT; a task's id is none of these
    if what.startswith(("s.", "hvs.", "b.", "eyJ")) or what != what.lower():
        return what
    if not is_task_id(what):
        raise InvalidInput(f"expected a wrapping token, a file, - or the id of a task, got {what!a:.80}")
    person = wiring.person
    message = person.documents.get(f"inbox/{person.entity}/{what}")
    if message is None:
        raise NotFound(f"there is no file {what}, and no task of that name in your inbox")
    person.documents.destroy(f"inbox/{person.entity}/{what}")
    return str(message["wrapping"][0]["token"])
