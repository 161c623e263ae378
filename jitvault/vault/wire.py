"""One connection to Vault, over TCP or TLS: a request, and then its answer, as llhttp reads it (the parser of Node.js).

It says in which of three ways there is no answer, since that is what a caller has to know: `NotSent`, `NotTrusted`,
`ResponseLost`. A connection that an answer was not read from to its end, or that said more than was asked, is never
used again: the rest of it would be taken for the next answer.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

_AT_ONCE = 64 * 1024
# a million names in one list are a fifth of it
MOST = 256 * 1024 * 1024
# how TLS 1.3 says, after the handshake, that a certificate is not believed; whatever else breaks off says nothing
_CERTIFICATE_REFUSED = re.compile("ALERT(?:(?!ALERT).)*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED|DECRYPT_ERROR)")
# what would end a line, or cannot be in one
_ENDS_LINE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


class NotSent(Exception):
    """No byte of the request was sent: there is no connection."""


class NotTrusted(Exception):
    """Not sent either: one of the two sides does not believe the other's certificate."""


class ResponseLost(Exception):
    """It may have been sent, and there is no answer."""


class TooLong(Exception):
    """There is an answer, and it is longer than the caller wanted to read."""


@dataclass(frozen=True, slots=True)
class Place:
    """Who is spoken to. `context` is how TLS is spoken; `server_name` is in the certificate where `host` is not."""

    host: str
    port: int
    context: ssl.SSLContext | None
    server_name: str | None

    @property
    def certified(self) -> str:
        """The name that has to be in the certificate: one that ends with a dot is the same without it."""
        return self.server_name or self.host.rstrip(".")

    @property
    def named(self) -> str:
        """As it stands in a request: without the port where that is the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host.rstrip(".")
        return host if self.port == (443 if self.context else 80) else f"{host}:{self.port}"


class Reply:
    """One answer, while it comes: llhttp calls it with each part. The body may hold a secret: it is never shown."""

    def __init__(self) -> None:
        self.status, self.location, self.date, self.body = 0, "", "", bytearray()
        self.is_whole = self.stays_open = False
        self._parser = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Raises Lost for what is no answer. What comes after one is not looked at, and ends the connection."""
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.stays_open = False
            if isinstance(error.__context__, KeyboardInterrupt | SystemExit):
                raise error.__context__ from None
            if not self.is_whole:
                raise ResponseLost("what came is no HTTP") from None

    def end(self) -> None:
        """It is not read any further: the parser, which holds it, lets go of it."""
        del self._parser

    def on_message_begin(self) -> None:
        # after the first: nobody asked for another one
        self.stays_open = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_whole:
            return
        if name.lower() == b"location":
            self.location = value.decode("latin-1")
        elif name.lower() == b"date":
            self.date = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if not self.is_whole:
            self.status = self._parser.get_status_code()
            self.stays_open = self._parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        if not self.is_whole:
            self.body += part

    def on_message_complete(self) -> None:
        # what is below 200 only says that the answer is still to come
        self.is_whole = self.is_whole or self.status >= 200


@dataclass(slots=True)
class Connection:
    """Make it with `connected`. Not shared between threads."""

    place: Place
    _socket: socket.socket = field(repr=False)
    _may_be_refused: bool
    """Whether nothing was asked yet, and the other side judges our certificate after the handshake, as in TLS 1.3."""
    is_open: bool = True

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        until: float,
        *,
        most: int = MOST,
    ) -> Reply:
        """Send the request and read the whole answer, `until` then by the monotonic clock at most. Raises Lost and
        NotTrusted; TooLong once its body has more than `most` bytes; ValueError, before anything is sent, for what
        cannot be in a request.
        """
        sent = _request(method, path, {"Host": self.place.named, **headers}, body)
        reply, may_be_refused, self._may_be_refused = Reply(), self._may_be_refused, False
        # whatever stops it from here on, the rest of an answer must not be taken for the next one
        self.is_open = False
        try:
            # who hangs up early has mostly said why: that a certificate is refused, or too much was sent
            with suppress(ConnectionError, ssl.SSLError):
                self._socket.settimeout(_left(until, timeout_s))
                self._socket.sendall(sent)
            self._read(reply, timeout_s, until, most)
            self.is_open = reply.stays_open
        except OSError as error:
            refused = isinstance(error, ssl.SSLError) and _CERTIFICATE_REFUSED.search(error.reason or "")
            if may_be_refused and refused and not reply.status:
                raise NotTrusted(_why(error)) from None
            raise ResponseLost(_why(error)) from None
        finally:
            reply.end()
            if not self.is_open:
                # at once: what nobody waits for any more is not to be done
                self.close()
        return reply

    def _read(self, reply: Reply, timeout_s: float, until: float, most: int) -> None:
        while not reply.is_whole:
            self._socket.settimeout(_left(until, timeout_s))
            if not (data := self._socket.recv(_AT_ONCE)):
                raise ResponseLost("it was closed before the answer was whole")
            reply.feed(data)
            if len(reply.body) > most:
                raise TooLong("the answer is too long")

    def is_silent(self) -> bool:
        """Whether the other side has neither closed it nor said something that nobody asked for."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self.is_open = False
        self._socket.close()


def connected(place: Place, timeout_s: float, until: float) -> Connection:
    """A new connection, `until` then at most. Raises NotSent and NotTrusted."""
    plain = _reached(place, timeout_s, until)
    try:
        plain.settimeout(_left(until, timeout_s))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if place.context is None:
            return Connection(place, plain, False)
        secured = place.context.wrap_socket(plain, server_hostname=place.certified)
        return Connection(place, secured, secured.version() == "TLSv1.3")
    except (OSError, ValueError) as error:
        plain.close()
        raise (NotTrusted if isinstance(error, ssl.SSLError) else NotSent)(_why(error)) from None


def _reached(place: Place, timeout_s: float, until: float) -> socket.socket:
    """The first of its addresses that answers. Raises NotSent."""
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    # a name that cannot be one is not even looked for
    except (OSError, UnicodeError) as error:
        raise NotSent(_why(error)) from None
    why = "no such address"
    for *_, address in found:
        try:
            return socket.create_connection((str(address[0]), place.port), _left(until, timeout_s))
        except OSError as error:
            why = _why(error)
    raise NotSent(why)


def _left(until: float, timeout_s: float) -> float:
    """How long may be waited for what comes next. Raises TimeoutError once the time is over."""
    if (left := until - time.monotonic()) <= 0:
        raise TimeoutError("it takes too long")
    return min(left, timeout_s)


def _request(method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Raises ValueError, which repeats nothing: what cannot be sent may be a token."""
    if body is not None:
        headers = {**headers, "Content-Length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if " " in path or any(_ENDS_LINE.search(line) for line in lines):
        raise ValueError("there is a character in it that cannot be sent")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + (body or b"")


def _why(error: Exception) -> str:
    """The system's own words, or the kind of failure: nothing that the other side sent is repeated."""
    if isinstance(error, TimeoutError):
        return "it takes too long"
    return getattr(error, "strerror", None) or type(error).__name__
