"""Print rows in columns, as a terminal or a pipe has room for them.

On a terminal that is too narrow, columns that matter less are left out, and the last one is folded. Elsewhere every
column is printed and no line is folded, so that a program finds each row on one line, with `-` where a cell is empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from jitvault.cli.folding import cells, folded
from jitvault.formats.shorten import printable

_GAP = 2
_EMPTY = "-"
_LEAST_LAST = 20
"""The least columns that are left to the last column where it is folded."""


@dataclass(frozen=True, slots=True)
class Column:
    """The title of a column, and how easily it is done without.

    On a narrow terminal the column with the highest `spare` is left out first; one with 0 never is.
    """

    title: str
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """A text in a style of Rich's."""

    text: str
    style: str = ""


Row = Sequence[Cell | str]


def print_listing(console: Console, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Print the rows below the titles of their columns."""
    table = [[_cell(each) for each in row] for row in rows]
    if not console.is_terminal:
        _print_whole(console, columns, table)
        return
    shown = _fitting(columns, table, console.width)
    widths = [_width(columns, table, n) for n in shown]
    titles = [Cell(columns[n].title, "bold") for n in shown]
    console.print(_line(titles, widths), soft_wrap=True)
    console.print("─" * min(console.width, sum(widths) + _GAP * (len(widths) - 1)), soft_wrap=True)
    for row in table:
        for line in _lines([row[n] for n in shown], widths, console.width):
            console.print(line, soft_wrap=True)


def _cell(given: Cell | str) -> Cell:
    cell = Cell(given) if isinstance(given, str) else given
    return Cell(" ".join(printable(cell.text).split()), cell.style)


def _print_whole(console: Console, columns: Sequence[Column], table: Sequence[Sequence[Cell]]) -> None:
    """Print every row on one line, with all columns."""
    lines = [[Cell(column.title) for column in columns]]
    lines += [[Cell(cell.text or _EMPTY, cell.style) for cell in row] for row in table]
    widths = [max(cell_len(row[n].text) for row in lines) for n in range(len(columns))]
    for row in lines:
        console.print(_line(row, widths), soft_wrap=True)


def _fitting(columns: Sequence[Column], table: Sequence[Sequence[Cell]], width: int) -> list[int]:
    """Return the numbers of the columns that a terminal has room for.

    A column without any content is left out, and so is one that another one is to be done without for.
    """
    shown = [n for n in range(len(columns)) if not table or any(row[n].text for row in table)]
    while _least_width(columns, table, shown) > width:
        spare = max(shown, key=lambda n: columns[n].spare)
        if not columns[spare].spare:
            break
        shown.remove(spare)
    return shown


def _least_width(columns: Sequence[Column], table: Sequence[Sequence[Cell]], shown: Sequence[int]) -> int:
    """Return the least width of these columns, the last one folded."""
    widths = [_width(columns, table, n) for n in shown]
    last = min(widths[-1], _LEAST_LAST)
    return sum(widths[:-1]) + last + _GAP * (len(widths) - 1)


def _width(columns: Sequence[Column], table: Sequence[Sequence[Cell]], n: int) -> int:
    return max(cell_len(columns[n].title), *(cell_len(row[n].text) for row in table), 0)


def _lines(row: Sequence[Cell], widths: Sequence[int], width: int) -> Iterator[Text]:
    """Yield a row, its last cell folded to what is left of the width.

    The columns stand where most terminals show them below each other. A terminal that shows the cells before the last
    one wider has room for it as well.
    """
    *first, last = row
    before = sum(widths[:-1]) + _GAP * (len(widths) - 1)
    room = width - before
    # without room for it, the terminal breaks the line, and what is copied stays whole
    wider = sum(cells(cell.text) - cell_len(cell.text) for cell in first)
    least = max(_LEAST_LAST, room - wider)
    pieces = folded(last.text, least, first="", rest="").split("\n") if room >= _LEAST_LAST else [last.text]
    yield _line([*first, Cell(pieces[0], last.style)], widths)
    for piece in pieces[1:]:
        yield Text(" " * before + piece, last.style)


def _line(row: Sequence[Cell], widths: Sequence[int]) -> Text:
    """Return cells beside each other, without blanks at the end."""
    found = Text()
    for cell, width in zip(row, widths, strict=True):
        found.append(cell.text, cell.style or None)
        found.append(" " * (width - cell_len(cell.text) + _GAP))
    found.rstrip()
    return found
