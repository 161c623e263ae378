"""Rich console that prints strings literally."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from jitvault.formats.shorten import printable


class PlainConsole(Console):
    """Console that interprets no markup in strings.

    Names, reasons and secrets come from other people: no markup in a string is interpreted and no control character
    reaches the terminal. Only a `rich.text.Text` has colours.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, soft_wrap=False, emoji=False, markup=False, highlight=False)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """Print objects, wrapped at words on a terminal alone.

        In a pipe a sentence is one line, as messages and hints are: whoever searches the output finds it whole.
        """
        super().print(*objects, soft_wrap=not self.is_terminal if soft_wrap is None else soft_wrap, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return `text` without control characters.

        Rich also calls this for each cell of a table.
        """
        return super().render_str(printable(text), **options)
