"""One HTTP/1.1 connection, over TCP or TLS: every request that jitvault sends goes through here.

A request is written in one piece, and llhttp reads its answer (`answer_reader.py`). Nothing is sent again, no redirect
is followed, and no proxy and no password of the environment is used. A missing answer is one of three errors, because
the caller has to know which: `NotSent`, `NotTrusted`, `ResponseLost`. A connection is never used again after an answer
that was not read to its end, or that contained more than was asked for: the rest would be taken for the next answer.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from socket import socket
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

from jitvault.http.answer_reader import AnswerReader, NoHttp
from jitvault.http.deadline_socket import DeadlineSocket, TimeLimit, open_socket

MOST = 256 * 1024 * 1024
"""The largest answer in bytes; a list of a million names has a fifth of this."""
_PORT = 80
_TLS_PORT = 443
# a port and whether it has TLS: these are not named in a request
_USUAL = ((_PORT, False), (_TLS_PORT, True))
_WITH_BODY = ("PATCH", "POST", "PUT")
# a standby that forwards nothing redirects to the active node
_REDIRECTS = (HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT)
# how a peer says, with TLS 1.3 after the handshake, that it refuses a certificate; other aborts say nothing about it
_CERTIFICATE_REFUSED = re.compile("ALERT(?:(?!ALERT).)*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED|DECRYPT_ERROR)")
# characters that would end a header line or a path, or cannot be in one
_NOT_IN_HEADER = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_NOT_IN_PATH = re.compile(r"[^\x21-\x7e]")


class NoAnswer(Exception):
    """There is no answer to a request: what the three errors that say why have in common."""


class NotSent(NoAnswer):
    """The server did nothing with the request.

    There is no connection, or the server redirected the request to where it is not sent.
    """


class BadRedirect(NotSent):
    """The server redirects to where the request is not sent."""


class NotTrusted(NoAnswer):
    """One side refused the other's certificate: there is no TLS.

    `left` says that the request had left by then: in TLS 1.3 a server refuses after the handshake.
    """

    def __init__(self, why: str, *, left: bool = False) -> None:
        super().__init__(why)
        self.left = left


class ResponseLost(NoAnswer):
    """The request may have been sent, and there is no answer."""


class TooLong(Exception):
    """The answer is longer than the caller wanted to read."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The server to connect to.

    `context` is the TLS context, None for plain TCP. `server_name` is the name in the certificate where it is not
    `host`.
    """

    host: str
    port: int
    context: ssl.SSLContext | None = None
    server_name: str | None = None

    @classmethod
    def of(cls, url: str, context: ssl.SSLContext | None = None, server_name: str | None = None) -> Self:
        """Return the server that a URL names; without a context, the system's authorities certify it.

        Raises NotSent for what is no server's address.
        """
        try:
            parts = urlsplit(url)
            host, port = _ascii(parts.hostname or ""), parts.port
        except ValueError:
            raise NotSent("no such address") from None
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
            raise NotSent("no such address")
        if parts.scheme == "http":
            return cls(host, port or _PORT)
        return cls(host, port or _TLS_PORT, context or ssl.create_default_context(), server_name)

    @property
    def header(self) -> str:
        """The header that names the server, without a dot at its end."""
        host = self.host.rstrip(".")
        if ":" in host:
            host = f"[{host}]"
        if (self.port, self.context is not None) in _USUAL:
            return host
        return f"{host}:{self.port}"

    @property
    def certified(self) -> str:
        """The name that the certificate has to contain: without a dot at its end."""
        return self.server_name or self.host.rstrip(".")


@dataclass(frozen=True, slots=True)
class Answer:
    """Any answer over HTTP.

    The body may hold a secret and is left out of `repr`.
    """

    status_code: int
    body: bytes = field(repr=False)
    date: str = ""
    """When the answer was made, by the clock of the answering server, in HTTP's form."""
    redirect: str = ""
    """Where a standby says that the active node is, "" where the answer is no such redirect."""

    @property
    def ok(self) -> bool:
        return self.status_code < 400

    def json(self) -> Any:
        """Return the decoded body. Raises ValueError for what is no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except ValueError:
            # msgspec refuses some of what the standard library takes, such as Infinity; a document may contain it.
            return json.loads(self.body)


class OpenConnection:
    """A connection that is open, made by `connect`.

    It is not shared between threads.
    """

    def __init__(self, server: ServerAddress, opened: DeadlineSocket) -> None:
        self._host = server.header
        self._socket = opened
        # in TLS 1.3 the server refuses the client's certificate after the handshake
        self._may_be_refused = self._socket.tls_version == "TLSv1.3"
        self._is_reusable = True

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        limit: TimeLimit,
        *,
        most: int | None = MOST,
    ) -> Answer:
        """Send a request and return the whole answer, or only its head where `most` is None.

        Raises NotSent, NotTrusted, ResponseLost, TooLong once the body has more than `most` bytes, and, before anything
        is sent, ValueError for what cannot be in a request.
        """
        _check_sendable(path, headers)
        # not reusable until the answer is whole: the rest of an answer must not be taken for the next one
        self._is_reusable = False
        may_be_refused = self._may_be_refused
        self._may_be_refused = False
        self._socket.begin(limit)
        request = _written(method, path, {"Host": self._host, **headers}, body)
        reader = AnswerReader(head_only=most is None)
        try:
            try:
                # nothing that is there already can answer what was not sent yet
                self._socket.check_silent()
                self._socket.sendall(request)
            except (ConnectionError, ssl.SSLError):
                # A server that closes early has mostly said why: the certificate is refused, or too much was sent.
                # What it said before a byte was sent is no answer to this request.
                if not self._socket.may_have_sent:
                    raise
            self._read(reader, most)
            self._is_reusable = reader.leaves_connection
        except (OSError, NoHttp, ValueError) as error:
            raise self._absence(error, may_be_refused=may_be_refused and not reader.status) from None
        finally:
            reader.close()
            if not self._is_reusable:
                # at once, so that the server can drop a request that is not waited for any more
                self.close()
        redirect = reader.header("Location") if reader.status in _REDIRECTS else ""
        return Answer(reader.status, bytes(reader.body), reader.header("Date"), redirect)

    def _read(self, reader: AnswerReader, most: int | None) -> None:
        """Read the answer, as far as it is to be read. Raises ResponseLost where it ends before, and TooLong."""
        while not reader.is_over:
            came = self._socket.receive()
            if not came:
                raise ResponseLost("it was closed before the answer was whole")
            reader.feed(came)
            if most is not None and len(reader.body) > most:
                raise TooLong("the answer is too long")

    def _absence(self, error: Exception, *, may_be_refused: bool) -> Exception:
        """Return the error for an answer that is not there.

        `may_be_refused` says whether the server could still refuse the client's certificate.
        """
        if may_be_refused and isinstance(error, ssl.SSLError) and _CERTIFICATE_REFUSED.search(error.reason or ""):
            return NotTrusted(_why(error), left=self._socket.may_have_sent)
        if not self._socket.may_have_sent:
            return NotSent(_why(error))
        return ResponseLost(_why(error))

    def is_usable(self) -> bool:
        """Return whether another request may be sent.

        The last answer was whole, and the server neither closed the connection nor sent unasked data since.
        """
        return self._is_reusable and self._socket.is_silent

    @property
    def was_left(self) -> bool:
        """Whether the server closed the connection, or sent what nobody asked for, after a whole answer."""
        return self._is_reusable and not self._socket.is_silent

    def close(self) -> None:
        self._is_reusable = False
        self._socket.shut()


def connect(server: ServerAddress, limit: TimeLimit) -> OpenConnection:
    """Open a connection within the time limit.

    Raises NotSent and NotTrusted.
    """
    try:
        return OpenConnection(server, DeadlineSocket(_open(server, limit), limit))
    except ssl.SSLError as error:
        raise (NotTrusted if _is_about_trust(error) else NotSent)(_why(error)) from None
    # ValueError: the name cannot be a host's or a certificate's
    except (OSError, ValueError) as error:
        raise NotSent(_why(error)) from None


def _is_about_trust(error: ssl.SSLError) -> bool:
    """Return whether a handshake failed because of a certificate.

    One side refused the other's. Otherwise the server closed the connection, or it speaks no TLS, or none that both
    sides know.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    # an OpenSSL server says "handshake failure" where it misses a certificate
    return _CERTIFICATE_REFUSED.search(error.reason or "") is not None or "HANDSHAKE_FAILURE" in (error.reason or "")


def _open(server: ServerAddress, limit: TimeLimit) -> socket:
    """Return an open socket, with TLS where the server has it."""
    opened = open_socket(server.host, server.port, limit)
    try:
        opened.settimeout(limit.remaining_s())
        return server.context.wrap_socket(opened, server_hostname=server.certified) if server.context else opened
    except BaseException:
        opened.close()
        raise


def _check_sendable(path: str, headers: Mapping[str, str]) -> None:
    """Raise ValueError for what cannot be in a request.

    The message repeats nothing: what cannot be sent may be a token.
    """
    lines = (f"{name}: {value}" for name, value in headers.items())
    if _NOT_IN_PATH.search(path) or any(_NOT_IN_HEADER.search(line) for line in lines):
        raise ValueError("there is a character in it that cannot be sent")


def _written(method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Return the bytes of a request, headers and body in one piece."""
    lines = [f"{method} {path} HTTP/1.1", "Accept-Encoding: identity"]
    for name, value in headers.items():
        lines.append(f"{name}: {value}")
    if body is not None or method in _WITH_BODY:
        lines.append(f"Content-Length: {len(body or b'')}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def _why(error: BaseException) -> str:
    """Return the system's message, or the kind of failure.

    Nothing that the server sent is repeated.
    """
    if isinstance(error, TimeoutError):
        return "it takes too long"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "what came is no HTTP"


def _ascii(host: str) -> str:
    """Return a host's name as DNS knows it. Raises ValueError."""
    return host if host.isascii() else host.encode("idna").decode()
