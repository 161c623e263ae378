"""Print results, and format the parts of what is printed.

Results go to stdout, everything else to stderr. Text from specs and Vault is printed literally: markup in it is not
interpreted.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from jitvault.cli.folding import ID, folded, for_terminal
from jitvault.cli.quiet import is_for_program, is_quiet, note
from jitvault.errors import UsageError
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.shorten import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# json itself escapes the characters below a space
_NOT_ASCII = re.compile("[^\x00-\x7e]+")
_COLOURS = {
    "denied": "red",
    "cancelled": "dim",
    "lapsed": "dim",
    "pending_approval": "yellow",
    "ending": "yellow",
    "unverified": "red",
    "confirmed": "green",
    "sealed": "green",
    "passed": "green",
    "failed": "red",
    "needed": "yellow",
    "exempt": "dim",
}


def to_json(value: object) -> str:
    """Return indented JSON with all scripts unescaped.

    Characters that a terminal would obey are escaped.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    return _NOT_ASCII.sub(lambda run: run[0] if run[0].isprintable() else json.dumps(run[0])[1:-1], text)


def _plain(value: object) -> object:
    return msgspec.to_builtins(value, enc_hook=str)


def print_for_scripts(shown: object, *ids: str) -> bool:
    """Print a result as JSON, or with --quiet its ids, one a line.

    Returns False where people are to read it, and nothing was printed.
    """
    if print_for_program(shown):
        return True
    if is_quiet():
        text("".join(f"{printable(each)}\n" for each in ids), out=None)
    return is_quiet()


def print_for_program(shown: object) -> bool:
    """Print a result as JSON where a program reads it, else return False."""
    if is_for_program():
        text(to_json(shown) + "\n", out=None)
    return is_for_program()


def print_lines(shown: object, *lines: str) -> None:
    """Print a result as JSON where a program reads it, else as these lines."""
    if not print_for_program(shown):
        for line in lines:
            typer.echo(line)


def text(value: str, *, out: NewFile | None) -> None:
    """Print a result, or write it to the new file."""
    if out is None:
        sys.stdout.write(value)
        sys.stdout.flush()
    else:
        out.write(value)
        note(f"written to {out.path}")


class NewFile:
    """A file with mode 0600, created before the act whose result it will hold.

    A secret that is returned only once must not be lost because the disk is full or the file exists.
    """

    def __init__(self, path: Path) -> None:
        """Create the file. Raises UsageError when it exists or cannot be created."""
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}", hint="Name a new file.") from None

    def write(self, value: str) -> None:
        """Write all of the file. Raises UsageError, as for a disk that is full."""
        try:
            with os.fdopen(self._descriptor, "w") as file:
                file.write(value)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written: {error.strerror}", hint="Name another file.") from None


@contextmanager
def new_file(path: Path | None) -> Iterator[NewFile | None]:
    """Yield the new file at `path`, or None without a path.

    A file that stays empty is removed again.
    """
    if path is None:
        yield None
        return
    file = NewFile(path)
    try:
        yield file
    finally:
        if path.exists() and path.stat().st_size == 0:
            path.unlink()


@contextmanager
def new_files(*paths: Path | None) -> Iterator[tuple[NewFile | None, ...]]:
    """Yield the new files at `paths`, None for each that is None.

    All of them or none: if something fails before they are written, each is removed again.
    """
    made: list[NewFile] = []
    try:
        found: list[NewFile | None] = []
        for path in paths:
            found.append(NewFile(path) if path is not None else None)
            made += [file for file in found[-1:] if file is not None]
        yield tuple(found)
    except BaseException:
        for file in made:
            file.path.unlink(missing_ok=True)
        raise


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console that prints strings literally."""
    from jitvault.cli.views.console import PlainConsole

    return PlainConsole(stderr=stderr, quiet=quiet)


def warn(message: str) -> None:
    """Print a warning to stderr, folded at words where that is a terminal."""
    typer.echo(for_terminal(message, sys.stderr, rest="  "), err=True)


def print_facts(console: Console, facts: Mapping[str, str | None], *, least: int = 0, mark: str = "") -> None:
    """Print names and values in two columns, without what has no value.

    Words are wrapped. An id, a digest or a command is never folded, so that it can be copied: one that does not fit
    beside its name is printed below it. `least` is the minimal width of the names. With `mark` each line of a value
    begins with it, and everything is folded; an empty one is shown as such.
    """
    stated = {name: value or "" for name, value in facts.items() if value or mark}
    column = 2 + max(least, *map(len, stated), 0) + 2
    for name, value in stated.items():
        room = max(20, console.width - column)
        is_command = value.startswith("jitvault ")
        if not mark and (is_command or ID.fullmatch(value)) and len(value) > room:
            console.print(f"  {name}\n    {value}", soft_wrap=True)
            continue
        first = f"  {name}".ljust(column) + mark
        beside = folded(value, column + room, first=first, rest=" " * column + mark, keep_ids=not mark)
        for line in beside.split("\n"):
            console.print(line.rstrip(), soft_wrap=True)


def indented(line: str, width: int, *, first: str = "  ", rest: str = "    ", keep_commands: bool = False) -> str:
    """Return `line` wrapped and indented, to be printed below a heading.

    An id is never folded.
    """
    return folded(line, width, first=first, rest=rest, keep_commands=keep_commands)


def colour_of(word: str) -> str:
    """Return the style of the state that `word` names."""
    return _COLOURS.get(word, "bold") if word else ""


def coloured(word: str, style: str | None = None) -> Text:
    """Return a word in `style`, or in the style of the state that it names."""
    from rich.text import Text

    return Text(printable(word), style or colour_of(word))


def pairs(values: Mapping[str, str]) -> str:
    """Return a request's parameters as `name=value, name=value`."""
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items()))


def readable(at: datetime | str | None) -> str:
    """Return a time in UTC, also one in RFC 3339, as `2024-05-01 12:00:00 UTC`."""
    at = rfc3339(at) if isinstance(at, datetime) else at
    return f"{at[:10]} {at[11:19]} UTC" if at else "not known yet"
