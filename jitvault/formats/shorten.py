"""Text from outside, shortened and escaped to be read and stored."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from hashlib import sha256

_DIGITS = 16
MOST_MARKS = 4
"""How many combining marks a letter keeps. More of them would be drawn over the lines above and below."""


def one_line(text: str) -> str:
    """Escape line ends and whatever else a terminal would obey.

    A name that somebody signed could otherwise put lines into a message that read as if jitvault had printed them. The
    marks that a letter has beyond `MOST_MARKS` are escaped, too.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character.isprintable() and marks <= MOST_MARKS else character.encode("unicode_escape").decode()
        for character, marks in zip(text, marks_so_far(text), strict=True)
    )


def marks_so_far(text: str) -> Iterator[int]:
    """Yield for each character how many marks its letter has with it."""
    marks = 0
    for character in text:
        marks = marks + 1 if is_mark(character) else 0
        yield marks


def is_mark(character: str) -> bool:
    """Return whether a character is drawn on the letter before it."""
    return unicodedata.category(character).startswith("M")


def quoted(text: str, limit: int) -> str:
    """Return another person's words on one line, in quotation marks.

    They are `limit` characters at most, and cannot end the quotation.
    """
    line = one_line(text).replace('"', "'")
    return f'"{line}"' if len(line) <= limit else f'"{line[: limit - 1]}…"'


def printable(text: str) -> str:
    """Escape whatever a terminal would obey, but keep line ends."""
    return "\n".join(map(one_line, text.split("\n")))


def shorten(text: str, limit: int) -> str:
    """Shorten `text` to `limit` characters, with a remark in the text.

    The remark has the length and a digest of the whole text, so that two texts with one beginning stay different.
    """
    if len(text) <= limit:
        return text
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    remark = f"… (cut: {len(text)}, {digest})"
    return text[: limit - len(remark)] + remark
