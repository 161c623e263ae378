"""Steps over the tokens of a JSON text of any size, in a window.

The steps refuse what msgspec refuses, and check the text of strings that are not needed as little as msgspec does.
What is repeated possessively has no alternatives in it: before Python 3.11.5 such an expression finds too little.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import NoReturn

MAX_PREFIX = 64
# Go's own decoder stops at 10,000, and a request is nested a few levels deep in its audit line.
MAX_DEPTH = 20_000
_PIECE = 1024 * 1024
_WINDOW = 64 * 1024
# An expression of many parts remembers some 200 bytes for each.
_RUN = 16 * 1024
_LONGEST_ESCAPE = 12
_LONGEST_TORN = 5
_LONGEST_SCALAR = 4096

_SPACE = b"[ \t\r\n]*+"
_HEX = b"[0-9a-fA-F]"
# any escape but half of a surrogate pair
_LONE = rb"u(?![dD][89a-fA-F])" + _HEX * 4
_TEXT = (
    rb"(?:[ !#-\[\]-\xff]++"
    rb"|(?:\\" + _LONE + rb")++"
    rb"|(?:\\[\"\\/bfnrt])++"
    rb"|\\u[dD][89abAB]" + _HEX * 2 + rb"\\u[dD][c-fC-F]" + _HEX * 2 + rb")*"
)
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_STRING = b'"' + _TEXT + b'"'
_KEY = _STRING + _SPACE + b":" + _SPACE
_SIMPLE = b"(?:" + _NUMBER + b"|" + _STRING + b"|true|false|null)"


def _shallow(element: bytes) -> bytes:
    """Return an expression for `element`, and for arrays and objects of it."""

    def some(one: bytes) -> bytes:
        return _SPACE + b"(?:" + one + _SPACE + b"(?:," + _SPACE + one + _SPACE + b")*)?"

    return b"(?:" + element + rb"|\[" + some(element) + rb"\]|\{" + some(_KEY + element) + rb"\})"


# Runs of elements that are at most two levels deep, each with the comma after it: one step instead of many.
_ELEMENT = _shallow(_shallow(_SIMPLE)) + _SPACE + b"," + _SPACE
_items = re.compile(b"(?:" + _ELEMENT + b")*").match
_pairs = re.compile(b"(?:" + _KEY + _ELEMENT + b")*").match
_text = re.compile(_TEXT).match
_unescaped = re.compile(rb"[ !#-\[\]-\xff]*+").match
_printable = re.compile(rb"[ -\xff]*+").match
# an invalid escape, or half of a surrogate pair
_intricate = re.compile(rb"\\(?!" + _LONE + rb"|[/bfnrt])").search
_space = re.compile(_SPACE).match
_scalar = re.compile(_NUMBER + b"|true|false|null").match
_unfinished = re.compile(rb"[-+.0-9eEa-z]*+\Z").match
_last_character = re.compile(rb"[\xc0-\xff][\x80-\xbf]*+\Z")
_digits = re.compile(rb"[0-9]{64,}+")
_prefix = re.compile(rb"[\t -z|}~]{0,%d}(?=\{)" % MAX_PREFIX).match
_LAST_SPACE = ord(" ")
QUOTE, BRACE, BRACKET, COMMA, COLON = b'"{[,:'
CLOSES = {BRACE: ord("}"), BRACKET: ord("]")}


class Undecodable(Exception):
    """A line that is not an audit entry: a gap in the record."""


def prefix_length(raw: bytes) -> int:
    """Return how many bytes the device's `prefix` option put before the entry.

    Raises Undecodable if there is no entry.
    """
    found = _prefix(raw)
    if found is None:
        raise Undecodable("no JSON object")
    return found.end()


class Reader:
    """A window on the line, and the steps over JSON tokens in the window."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.buffer = b""
        self.at = 0
        self.length = 0
        self.sha256 = hashlib.sha256()
        self._pieces = (
            memoryview(chunk)[begin : begin + _PIECE] for chunk in chunks for begin in range(0, len(chunk), _PIECE)
        )

    def fill(self) -> bool:
        """Read another piece; return whether there was more of the line."""
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self.sha256.update(piece)
        self.length += len(piece)
        self.buffer = b"".join((memoryview(self.buffer)[self.at :], piece))
        self.at = 0
        return True

    def next_or_end(self) -> int | None:
        """Return the first byte of the next token, without passing over it.

        None means the end of the line.
        """
        while True:
            at = self.at
            if at < len(self.buffer):
                if (found := self.buffer[at]) > _LAST_SPACE:
                    return found
                self.at = _end(_space(self.buffer, at))
                if self.at == at:
                    broken()
            elif not self.fill():
                return None

    def next(self) -> int:
        found = self.next_or_end()
        return broken() if found is None else found

    def take(self, wanted: int) -> None:
        """Pass over one byte, which has to be `wanted`."""
        if self.next() != wanted:
            broken()
        self.at += 1

    def string(self) -> Iterator[tuple[int, int]]:
        """Pass over a string, and yield its pieces.

        A piece is given by where its bytes, still escaped, are in the buffer.
        """
        self.take(QUOTE)
        while True:
            begin, self.at = self.at, _text_end(self.buffer, self.at)
            if self.at > begin:
                yield begin, self.at
            if self.buffer[self.at : self.at + 1] == b'"':
                self.at += 1
                return
            if self.at == begin and (len(self.buffer) - begin >= _LONGEST_ESCAPE or not self.fill()):
                broken()

    def run(self, elements: Callable[[bytes, int, int], re.Match[bytes] | None]) -> None:
        """Pass over the simple elements in the buffer.

        Each of them has the comma after it.
        """
        begin = -1
        while self.at > begin:
            begin, self.at = self.at, _end(elements(self.buffer, self.at, self.at + _RUN))

    def scalar(self) -> bytes:
        """Pass over a number, true, false or null, and return it.

        Digits of a very long number are left out.
        """
        while _unfinished(self.buffer, self.at) and self.fill():
            if len(self.buffer) - self.at > _LONGEST_SCALAR and (token := _unfinished(self.buffer, self.at)):
                # fewer digits do not make another kind of token
                self.buffer, self.at = _digits.sub(lambda run: run[0][:64], token[0]), 0
                if len(self.buffer) > _LONGEST_SCALAR:
                    broken()
        found = _scalar(self.buffer, self.at)
        if found is None:
            broken()
        self.at = found.end()
        return found[0]


class Text:
    """The first bytes of a string, and a hash of all of it.

    The hash tells the string from others with that beginning.
    """

    def __init__(self, reader: Reader, limit: int) -> None:
        self._kept = b""
        self._length = 0
        sha256 = hashlib.sha256()
        for begin, end in reader.string():
            room = max(0, limit - self._length)
            # not in the middle of an escape
            self._kept += reader.buffer[begin : _end(_text(reader.buffer, begin, min(end, begin + room)))]
            self._length += end - begin
            sha256.update(memoryview(reader.buffer)[begin:end])
        self._sha256 = sha256.hexdigest()

    @property
    def is_cut(self) -> bool:
        return self._length > len(self._kept)

    def json(self) -> bytes:
        """Return the string as it was, or its beginning and a remark.

        Its text is not checked for UTF-8.
        """
        if not self.is_cut:
            return b'"' + self._kept + b'"'
        # the last character may be torn
        head = _last_character.sub(b"", self._kept)
        return b'"%b\\u2026 (cut: %d bytes, SHA-256 %b)"' % (head, self._length, self._sha256.encode())


def skip(reader: Reader) -> None:
    """Pass over one value, however deep.

    A list instead of the stack holds what is open.
    """
    is_open = bytearray()
    while True:
        opening = reader.next()
        if opening in CLOSES:
            if len(is_open) == MAX_DEPTH:
                raise Undecodable("nested too deeply")
            reader.take(opening)
            if reader.next() == CLOSES[opening]:
                reader.take(CLOSES[opening])
            else:
                is_open.append(opening)
                _skip_to_value(reader, opening)
                continue
        elif opening == QUOTE:
            deque(reader.string(), maxlen=0)
        else:
            reader.scalar()
        # a value ended here, which may also have been the last one of its container
        while is_open and reader.next() == CLOSES[is_open[-1]]:
            reader.take(CLOSES[is_open.pop()])
        if not is_open:
            return
        reader.take(COMMA)
        _skip_to_value(reader, is_open[-1])


def _skip_to_value(reader: Reader, opening: int) -> None:
    """Pass over the simple elements that follow, and over the next key."""
    # a run begins with a token
    reader.next()
    if opening == BRACKET:
        reader.run(_items)
        return
    reader.run(_pairs)
    reader.next()
    deque(reader.string(), maxlen=0)
    reader.take(COLON)


def _text_end(buffer: bytes, at: int) -> int:
    """Return where the text of a string ends that continues at `at`.

    If the end is not known yet, return the end of the part that is certain.
    """
    limit = min(len(buffer), at + _WINDOW)
    end = _end(_unescaped(buffer, at, limit))
    if buffer[end : end + 1] != b"\\":
        return end
    # Escapes are read from left to right; after this step the other quotes and backslashes mean what they seem to.
    plain = buffer[at:limit].replace(rb"\\", b"__").replace(rb"\"", b"__")
    end = plain.find(b'"')
    if end < 0:
        torn = plain.rfind(b"\\", max(0, len(plain) - _LONGEST_TORN))
        end = len(plain) if torn < 0 else torn
    if _end(_printable(plain, 0, end)) < end or _intricate(plain, 0, end):
        return _end(_text(buffer, at, limit))
    return at + end


def _end(found: re.Match[bytes] | None) -> int:
    """Return the end of a match of an expression that also matches nothing."""
    return found.end() if found else broken()


def broken() -> NoReturn:
    raise Undecodable("not JSON")
