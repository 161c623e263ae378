"""Read one answer with llhttp, which reads the bytes of an answer in one way only.

Beyond what llhttp refuses, an answer has to say how long it is, and must not be an announcement of another one. Where
more than empty lines comes after it, the connection is not used again.
"""

from __future__ import annotations

from http import HTTPStatus

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MOST_HEAD = 64 * 1024
"""How many bytes are read before the head of an answer is whole."""
_WITHOUT_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class NoHttp(Exception):
    """What came is no answer, or one that can be read in several ways."""


class AnswerReader:
    """What came of an answer so far. The parser calls the methods whose names begin with `on_`."""

    def __init__(self, *, head_only: bool) -> None:
        self.status = 0
        self.body = bytearray()
        self.is_whole = False
        self.leaves_connection = False
        """Whether the answer is whole, nothing came after it, and the server keeps the connection open."""
        self._head_only = head_only
        self._has_head = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._count = 0
        self._parser = HttpResponseParser(self)

    @property
    def is_over(self) -> bool:
        """Whether all is read that was to be."""
        return self.is_whole or (self._head_only and self._has_head)

    def header(self, name: str) -> str:
        """Return a header of the answer, the first of that name, "" where there is none."""
        return next(iter(self._all(name.lower().encode())), b"").decode("latin-1")

    def feed(self, data: bytes) -> None:
        """Read on. Raises NoHttp."""
        self._count += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            if not self.is_whole:
                raise NoHttp from None
            self.leaves_connection = False
        if not self._has_head and self._count > MOST_HEAD:
            raise NoHttp

    def close(self) -> None:
        """End the reading. Parser and reader refer to each other, and what was read may be a secret."""
        del self._parser

    def on_message_begin(self) -> None:
        self.leaves_connection = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # not what follows a body in chunks
        if not self._has_head:
            self._headers.append((name.lower(), value.strip()))

    def on_headers_complete(self) -> None:
        if self._has_head:
            return
        self.status = self._parser.get_status_code()
        if self.status == HTTPStatus.CONTINUE:
            # the answer is still to come
            self._headers.clear()
            return
        self._has_head = True
        if self.status < HTTPStatus.OK or not (self._head_only or self._has_clear_length()):
            raise NoHttp

    def on_body(self, data: bytes) -> None:
        if not self.is_whole:
            self.body += data

    def on_message_complete(self) -> None:
        if not self._has_head:
            return
        self.leaves_connection = not self.is_whole and self._parser.should_keep_alive()
        self.is_whole = True

    def _has_clear_length(self) -> bool:
        if self.status in _WITHOUT_BODY:
            return True
        lengths = self._all(b"content-length")
        codings = self._all(b"transfer-encoding")
        if codings:
            return not lengths and [coding.lower() for coding in codings] == [b"chunked"]
        return len(lengths) == 1 and lengths[0].isdigit()

    def _all(self, name: bytes) -> list[bytes]:
        return [value for each, value in self._headers if each == name]
