"""Fold text at words to the width of a terminal.

A terminal folds between any two characters, and begins the next line where one of jitvault's own lines begins.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Iterator
from typing import TextIO

from jitvault.formats.shorten import is_mark, printable

# an id, a path or a digest: without a blank in it, no part of it reads as a sentence where a terminal breaks it
ID = re.compile(r"[A-Za-z0-9:/._=@+,()-]{1,200}")
# a command of ours in a hint, with what stands around it
_COMMAND = re.compile(r"[(]?`(?:jitvault|bao|vault) [^`]{1,200}`[.,;:)]*")
_COMMAND_OR_WORD = re.compile(rf"{_COMMAND.pattern}|\S+")
MARK = "| "
"""What stands before each line of text that another person wrote."""
CONTINUED = f"    {MARK}"
"""The prefix of each continued line of a message that quotes another person."""


def folded(
    line: str,
    width: int,
    *,
    first: str | None = None,
    rest: str = CONTINUED,
    keep_commands: bool = False,
    keep_ids: bool = True,
) -> str:
    """Wrap a line that came from outside at words.

    Each continued line is indented and marked. Otherwise the terminal would begin a continued line where one of
    jitvault's own lines begins. An id is never cut, so that it can be copied. Every other word is cut where it is wider
    than the room, as wide as a terminal shows it.

    With `keep_commands` a command in backticks is not cut either: it begins a line where it does not fit. That is for
    jitvault's own text, such as hints. Without `keep_ids` an id is cut as well. That is for text in which every line
    has to begin with `rest`, whatever its author wrote.
    """
    if first is None:
        first = line[: len(line) - len(line.lstrip(" "))]
    lines = [first]
    room = max(20, width - len(rest))
    empty = True
    for word in _words(printable(line), keep_commands=keep_commands):
        is_whole = (keep_ids and ID.fullmatch(word)) or (keep_commands and _COMMAND.fullmatch(word))
        for piece in [word] if is_whole else _pieces(word, room):
            if not empty and cells(lines[-1]) + 1 + cells(piece) > width:
                lines.append(rest)
                empty = True
            lines[-1] += piece if empty else f" {piece}"
            empty = False
    return "\n".join(lines)


def _words(line: str, *, keep_commands: bool) -> list[str]:
    """Return the words of a line, a command in backticks as one of them."""
    if not keep_commands:
        return line.split()
    return [" ".join(found[0].split()) for found in _COMMAND_OR_WORD.finditer(line)]


def for_terminal(
    text: str,
    stream: TextIO,
    *,
    first: str = "",
    rest: str = CONTINUED,
    keep_commands: bool = False,
    keep_ids: bool = True,
) -> str:
    """Fold each line to the width of the terminal that `stream` is.

    Return the text unchanged for other streams. `rest` begins each continued line: only text that others wrote is
    marked.
    """
    if not stream.isatty():
        return first + text
    width = shutil.get_terminal_size().columns
    head, *more = text.split("\n")
    lines = [folded(head, width, first=first, rest=rest, keep_commands=keep_commands, keep_ids=keep_ids)]
    lines += [folded(line, width, rest=rest, keep_commands=keep_commands, keep_ids=keep_ids) for line in more]
    return "\n".join(lines)


def wrapped(text: str, stream: TextIO) -> str:
    """Wrap jitvault's own text at words for the terminal that `stream` is.

    Return the text unchanged for other streams.
    """
    return folded(text, shutil.get_terminal_size().columns, first="", rest="") if stream.isatty() else text


def _pieces(word: str, room: int) -> list[str]:
    pieces = [""]
    for letter in _letters(word):
        if pieces[-1] and cells(pieces[-1]) + cells(letter) > room:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _letters(word: str) -> Iterator[str]:
    """Yield each letter with its marks: no mark is drawn on ours."""
    letter = ""
    for character in word:
        if letter and not is_mark(character):
            yield letter
            letter = ""
        letter += character
    yield letter


def cells(text: str) -> int:
    """Return the most columns that any terminal shows `text` in.

    Terminals differ: some show a mark in a column of its own, and a symbol, an emoji or a letter that is as wide as
    those of East Asia in two. Where one shows less, a row ends earlier than it could.
    """
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if character.isascii():
        return 1
    is_narrow = unicodedata.east_asian_width(character) in ("N", "Na", "H")
    return 1 if is_narrow and unicodedata.category(character)[0] in "LMN" else 2
