"""One HTTP/1.1 connection to Vault, over TCP or TLS.

Answers are parsed by llhttp (the parser of Node.js). A missing answer is one of three errors, because the caller has to
know which: `NotSent`, `NotTrusted`, `ResponseLost`. A connection is never used again after an answer that was not read
to its end, or that contained more than was asked for: the rest would be taken for the next answer.
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

_READ_SIZE = 64 * 1024
# the largest answer; a list of a million names has a fifth of this
MOST = 256 * 1024 * 1024
# how a peer says after a TLS 1.3 handshake that it refuses a certificate; other aborts say nothing about it
_CERTIFICATE_REFUSED = re.compile("ALERT(?:(?!ALERT).)*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED|DECRYPT_ERROR)")
# characters that would end a header line, or cannot be in one
_ENDS_LINE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


class NotSent(Exception):
    """Vault did nothing with the request.

    There is no connection, or Vault redirected the request to where it is not sent.
    """


class NotTrusted(Exception):
    """Nothing was sent: one side refused the other's certificate."""


class ResponseLost(Exception):
    """The request may have been sent, and there is no answer."""


class TooLong(Exception):
    """The answer is longer than the caller wanted to read."""


@dataclass(frozen=True, slots=True)
class Place:
    """The server to connect to.

    `context` is the TLS context, None for plain TCP. `server_name` is the name in the certificate where it is not
    `host`.
    """

    host: str
    port: int
    context: ssl.SSLContext | None
    server_name: str | None

    @property
    def certified(self) -> str:
        """The name that the certificate has to contain.

        A trailing dot of the host is left out.
        """
        return self.server_name or self.host.rstrip(".")

    @property
    def named(self) -> str:
        """The value of the `Host` header: the usual port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host.rstrip(".")
        usual_port = 443 if self.context else 80
        return host if self.port == usual_port else f"{host}:{self.port}"


class Reply:
    """One answer while it is read; llhttp calls it with each part.

    The body may hold a secret and is never shown.
    """

    def __init__(self) -> None:
        self.status = 0
        self.location = ""
        self.date = ""
        self.body = bytearray()
        self.is_whole = self.stays_open = False
        self._parser = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Parse more bytes. Raises ResponseLost for what is no answer.

        Bytes after the answer are ignored, and end the connection.
        """
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.stays_open = False
            if isinstance(error.__context__, KeyboardInterrupt | SystemExit):
                raise error.__context__ from None
            if not self.is_whole:
                raise ResponseLost("what came is no HTTP") from None

    def end(self) -> None:
        """Stop reading: break the reference cycle with the parser."""
        del self._parser

    def on_message_begin(self) -> None:
        # a second message was not asked for: the connection is not reused
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
        # an answer below 200 is only an announcement of the real one
        self.is_whole = self.is_whole or self.status >= 200


@dataclass(slots=True)
class Connection:
    """An open connection, made by `connected`; not shared between threads."""

    place: Place
    _socket: socket.socket = field(repr=False)
    _may_be_refused: bool
    """Whether the server can still refuse the client's certificate: in TLS 1.3 it does so after the handshake."""
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
        """Send a request and return the whole answer.

        `timeout_s` bounds each wait, `until` the whole request, by the monotonic clock. Raises ResponseLost and
        NotTrusted, TooLong once the body has more than `most` bytes, and, before anything is sent, ValueError for what
        cannot be in a request.
        """
        sent = _request(method, path, {"Host": self.place.named, **headers}, body)
        reply = Reply()
        may_be_refused = self._may_be_refused
        self._may_be_refused = False
        # not reusable until the answer is whole: the rest of an answer must not be taken for the next one
        self.is_open = False
        try:
            # A server that closes early has mostly said why: the certificate is refused, or too much was sent.
            with suppress(ConnectionError, ssl.SSLError):
                self._socket.settimeout(_remaining_s(until, timeout_s))
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
                # at once, so that the server can drop a request that is not waited for any more
                self.close()
        return reply

    def _read(self, reply: Reply, timeout_s: float, until: float, most: int) -> None:
        while not reply.is_whole:
            self._socket.settimeout(_remaining_s(until, timeout_s))
            data = self._socket.recv(_READ_SIZE)
            if not data:
                raise ResponseLost("it was closed before the answer was whole")
            reply.feed(data)
            if len(reply.body) > most:
                raise TooLong("the answer is too long")

    def is_silent(self) -> bool:
        """Return whether the server neither closed nor sent unasked data."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self.is_open = False
        self._socket.close()


def connected(place: Place, timeout_s: float, until: float) -> Connection:
    """Open a connection, by `until` at the latest.

    Raises NotSent and NotTrusted.
    """
    plain = _open_socket(place, timeout_s, until)
    try:
        plain.settimeout(_remaining_s(until, timeout_s))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if place.context is None:
            return Connection(place, plain, False)
        secured = place.context.wrap_socket(plain, server_hostname=place.certified)
        return Connection(place, secured, secured.version() == "TLSv1.3")
    except (OSError, ValueError) as error:
        plain.close()
        raise (NotTrusted if isinstance(error, ssl.SSLError) else NotSent)(_why(error)) from None


def _open_socket(place: Place, timeout_s: float, until: float) -> socket.socket:
    """Return a TCP socket to the first address that answers.

    Raises NotSent.
    """
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    # UnicodeError: the name cannot be a host name
    except (OSError, UnicodeError) as error:
        raise NotSent(_why(error)) from None
    why = "no such address"
    for *_, address in found:
        try:
            return socket.create_connection((str(address[0]), place.port), _remaining_s(until, timeout_s))
        except OSError as error:
            why = _why(error)
    raise NotSent(why)


def _remaining_s(until: float, timeout_s: float) -> float:
    """Return how long the next wait may take, in seconds.

    Raises TimeoutError once `until` has passed.
    """
    remaining_s = until - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError("it takes too long")
    return min(remaining_s, timeout_s)


def _request(method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Return the bytes of a request.

    Raises ValueError, which repeats nothing: what cannot be sent may be a token.
    """
    if body is not None:
        headers = {**headers, "Content-Length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if " " in path or any(_ENDS_LINE.search(line) for line in lines):
        raise ValueError("there is a character in it that cannot be sent")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + (body or b"")


def _why(error: Exception) -> str:
    """Return the system's message, or the kind of failure.

    Nothing that the server sent is repeated.
    """
    if isinstance(error, TimeoutError):
        return "it takes too long"
    return getattr(error, "strerror", None) or type(error).__name__
