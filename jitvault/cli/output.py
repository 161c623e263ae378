"""Where results go, and how the pieces of what is printed look.

Results go to stdout, everything else to stderr. Text from specs and Vault is shown as text: markup in it is not
interpreted.
"""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from jitvault.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

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
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_facts(console: Console, facts: Mapping[str, str], *, least: int = 0) -> None:
    """Names and values; words are wrapped, an id or a digest is never folded, so that it can be copied.

    One that does not fit beside its name stands below it. `least` is the width that the names have at least.
    """
    column = 2 + max(least, *map(len, facts)) + 2
    for name, value in facts.items():
        room = max(20, console.width - column)
        lines = textwrap.wrap(value, room, break_long_words=False, break_on_hyphens=False) or [""]
        if len(lines) == 1 and len(value) > room:
            lines = [f"  {name}", f"    {value}"]
        else:
            lines = [f"{label:<{column}}{line}" for label, line in zip_longest([f"  {name}"], lines, fillvalue="")]
        for line in lines:
            console.print(line, soft_wrap=True)


def indented(line: str, width: int, *, first: str = "  ", rest: str = "    ") -> str:
    """Text below something: words are wrapped, what goes on is indented, an id is never folded."""
    return textwrap.fill(
        line,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


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
