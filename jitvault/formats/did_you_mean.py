"""What a misspelt name was most likely meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, among: Iterable[str], *, likeness: float = 0.6) -> str:
    """Return ` (did you mean …?)` for a misspelt one of `among`.

    The text is empty where the word resembles none by at least `likeness`, from 0 to 1.
    """
    close = difflib.get_close_matches(word.lower(), [*among], n=1, cutoff=likeness)
    return f" (did you mean {close[0]}?)" if close else ""
