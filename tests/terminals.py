"""How wide a row is on a terminal: they differ, and what others wrote has to fit on each."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from hypothesis import strategies as st
from rich.cells import cell_len

# marks with a column of their own and without, letters as wide as two, emoji and what joins them, the parts of a Hangul
# syllable, flags, tags, text that runs the other way, line ends, tabs and blanks that are none
HOSTILE = st.text(
    st.sampled_from(
        [
            *"क\u093e\u0301\u0338\u20dd\u0e33ﷺ﷽",
            *"Ｗ中é…│①\u1100\u1161\u11a8\ufe0f\u200d😀☺🇪🇺\U000e0061",
            *"\u202e\u2066\u2028\u2029\x85\r\n\t\v\x1b\x9b\u3164\u3000\xa0\xad\ufeff\u2e3b",
            *"ab |:.-",
        ]
    ),
    max_size=300,
)
PILED = "क" + "\u093e" * 61
"""One cell by the library, and sixty-two on a terminal."""


def _each(cells: Callable[[str], int]) -> Callable[[str], int]:
    return lambda row: sum(map(cells, row))


def _east_asian(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WFA" else 1


def _symbols(character: str) -> int:
    return 1 if character.isascii() or unicodedata.category(character)[0] in "LMN" else 2


TERMINALS = (cell_len, len, _each(_symbols), _each(_east_asian))


def widest(row: str) -> int:
    """Return how many columns the row takes where it takes most."""
    # nothing of these draws on other rows, or moves the cursor
    assert row.isprintable(), ascii(row)
    marks = 0
    for character in row:
        marks = marks + 1 if unicodedata.category(character)[0] == "M" else 0
        assert marks <= 4, ascii(row)
    return max(terminal(row) for terminal in TERMINALS)
