"""Where results go, and how the pieces of what is printed look.

Results go to stdout, everything else to stderr. Text from specs and Vault is shown as text: markup in it is not
interpreted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

from jitvault.errors import UsageError
from jitvault.formats.shorten import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# an id, a path or a digest: it has no blank in it, so nothing reads as a sentence where a terminal breaks it
_ID = re.compile(r"[A-Za-z0-9:/._=@+,()-]{1,200}")
CONTINUED = "    | "
"""What stands before each line that goes on with the words of somebody else."""
# json escapes what is below a space itself
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
    """Readable in any script; what a terminal would obey is escaped, as JSON does it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return _NOT_ASCII.sub(lambda run: run[0] if run[0].isprintable() else json.dumps(run[0])[1:-1], text)


def text(value: str, *, out: NewFile | None) -> None:
    """Print a result, or write it to the new file."""
    if out is None:
        sys.stdout.write(value)
        sys.stdout.flush()
    else:
        out.write(value)
        typer.echo(f"written to {out.path}", err=True)


class NewFile:
    """A file with mode 0600 that is made before the act whose result it will hold: a secret that comes once
    must not meet a full disk or a name that is taken.
    """

    def __init__(self, path: Path) -> None:
        """Raises UsageError when the file exists or cannot be made."""
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}", hint="Name a new file.") from None

    def write(self, value: str) -> None:
        with os.fdopen(self._descriptor, "w") as file:
            file.write(value)


@contextmanager
def new_file(path: Path | None) -> Iterator[NewFile | None]:
    """The new file at `path`, or None without one; removed again when nothing was written into it."""
    if path is None:
        yield None
        return
    file = NewFile(path)
    try:
        yield file
    finally:
        if path.exists() and path.stat().st_size == 0:
            path.unlink()


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """What it prints of a string is what is written there, as text."""
    from jitvault.cli.plain import PlainConsole

    return PlainConsole(stderr=stderr, quiet=quiet)


def printable(text: str) -> str:
    """What came from outside may hold control characters, which a terminal would obey: they are escaped."""
    return "\n".join(map(one_line, text.split("\n")))


def folded(line: str, width: int, *, first: str | None = None, rest: str = CONTINUED) -> str:
    """A line that came from outside, wrapped at words; each line that goes on is indented and marked.

    A terminal would begin it where a line of jitvault's own begins. An id is never cut, so that it can be copied; every
    other word is cut where it is wider than the room, by how wide a terminal shows it.
    """
    first = line[: len(line) - len(line.lstrip(" "))] if first is None else first
    lines, room = [first], max(20, width - len(rest))
    empty = True
    for word in printable(line).split():
        for piece in [word] if _ID.fullmatch(word) else _pieces(word, room):
            if not empty and _cells(lines[-1]) + 1 + _cells(piece) > width:
                lines.append(rest)
                empty = True
            lines[-1] += piece if empty else f" {piece}"
            empty = False
    return "\n".join(lines)


def for_terminal(text: str, stream: TextIO, *, first: str = "") -> str:
    """Each line folded to the width of the terminal that it goes to; as it is where it goes elsewhere."""
    if not stream.isatty():
        return first + text
    width = shutil.get_terminal_size().columns
    head, *rest = text.split("\n")
    return "\n".join([folded(head, width, first=first), *(folded(line, width) for line in rest)])


def _pieces(word: str, room: int) -> list[str]:
    pieces = [""]
    for character in word:
        if pieces[-1] and _cells(pieces[-1] + character) > room:
            pieces.append("")
        pieces[-1] += character
    return pieces


def _cells(text: str) -> int:
    """How wide a terminal shows it: a letter of some scripts takes the room of two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def print_facts(console: Console, facts: Mapping[str, str], *, least: int = 0) -> None:
    """Names and values; words are wrapped, an id or a digest is never folded, so that it can be copied.

    One that does not fit beside its name stands below it. `least` is the width that the names have at least.
    """
    column = 2 + max(least, *map(len, facts)) + 2
    for name, value in facts.items():
        room = max(20, console.width - column)
        if _ID.fullmatch(value) and len(value) > room:
            console.print(f"  {name}\n    {value}", soft_wrap=True)
            continue
        beside = folded(value, column + room, first=f"  {name}".ljust(column), rest=" " * column)
        for line in beside.split("\n"):
            console.print(line.rstrip(), soft_wrap=True)


def indented(line: str, width: int, *, first: str = "  ", rest: str = "    ") -> str:
    """Text below something: words are wrapped, what goes on is indented, an id is never folded."""
    return folded(line, width, first=first, rest=rest)


def new_table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        # an id that is cut cannot be copied: it is folded instead
        table.add_column(column, overflow="fold")
    return table


def coloured(word: str, style: str | None = None) -> Text:
    """A word in `style`; without one in that of the state or outcome that it names."""
    from rich.text import Text

    return Text(printable(word), style or _COLOURS.get(word, "bold"))


def pairs(values: Mapping[str, str]) -> str:
    """`name=value, name=value`, as what is sent with a request is shown."""
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items()))


def readable(at: str | None) -> str:
    return f"{at[:10]} {at[11:19]} UTC" if at else "not known yet"
