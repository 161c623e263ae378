"""The requests that the HTTP receiver takes: one small protocol.

A POST to the one path by somebody who may send is answered 204 when its body is on the disk. Everything else is
refused, and ends the connection. A request without the right bearer is answered 401, whatever it asks for: neither its
method nor its path is looked at, and nothing but its head is kept in memory.
"""

from __future__ import annotations

import hmac
import io
import socket
import ssl
import time
from contextlib import AbstractContextManager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Any, Protocol, cast

from jitvault.audit.receivers.http_senders import Senders
from jitvault.audit.receivers.receiver import DISK_FULL, Notices

MAX_BODY = 1024**3
_MAX_HEAD = 32 * 1024
_CHUNK = 64 * 1024
_IN_MEMORY = 256 * 1024
# For the head of a request; a connection that has not sent one by then is ended.
_HEAD_S = 2.0
# Go keeps an idle connection for 90 s. If a connection is closed just when OpenBao uses it, the device fails, so the
# receiver must never be the one that closes first.
_IDLE_S = 150.0
_BODY_S = 30.0
_LINGER_S = 1.0


class Server(Protocol):
    """What a request needs of the server that it came to.

    `bearer` is None where a client certificate shows who may send, and `stopping` is set when the server is to end.
    """

    path: str
    bearer: bytes | None
    senders: Senders
    notices: Notices
    stopping: Event

    def serving(self, request: socket.socket) -> AbstractContextManager[None]:
        """Mark a connection as busy while its request is answered.

        Raises ConnectionAbortedError if it was dropped meanwhile.
        """
        ...


class Handler(BaseHTTPRequestHandler):
    """One connection to the HTTP receiver.

    A refusal ends it, since the rest of the request was not read.
    """

    protocol_version = "HTTP/1.1"
    timeout = _HEAD_S

    @property
    def _server(self) -> Server:
        return cast("Server", self.server)

    def setup(self) -> None:
        super().setup()
        cast("ssl.SSLSocket", self.request).do_handshake()
        self.rfile = _Head(self.rfile)

    def handle_one_request(self) -> None:
        if isinstance(self.rfile, _Head):
            self.rfile.left = _MAX_HEAD
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Read the head of a request, and let nobody further who may not send."""
        if not super().parse_request():
            return False
        if self._is_known():
            return True
        self._refuse(HTTPStatus.UNAUTHORIZED)
        return False

    def do_POST(self) -> None:
        refusal = self._refusal()
        if refusal is not None:
            self._refuse(refusal)
            return
        with self._server.serving(self.request):
            self.connection.settimeout(_BODY_S)
            status = self._keep(int(self.headers["Content-Length"]))
            if status is not None:
                self._answer(status)
        self.connection.settimeout(_IDLE_S)

    def do_GET(self) -> None:
        right = self.path == self._server.path
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED if right else HTTPStatus.NOT_FOUND)

    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def _refusal(self) -> HTTPStatus | None:
        if self.path != self._server.path:
            return HTTPStatus.NOT_FOUND
        lengths = self.headers.get_all("Content-Length") or []
        if self.headers["Transfer-Encoding"] is not None or not lengths:
            return HTTPStatus.LENGTH_REQUIRED
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdecimal()) or not int(lengths[0][:20]):
            return HTTPStatus.BAD_REQUEST
        if int(lengths[0][:20]) > MAX_BODY:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return None

    def _is_known(self) -> bool:
        bearer = self._server.bearer
        if bearer is None:
            return True
        given = self.headers.get("Authorization", "").encode(errors="surrogateescape")
        return hmac.compare_digest(given, b"Bearer " + bearer)

    def _keep(self, length: int) -> HTTPStatus | None:
        """Keep the body; return the answer to it, or None if the sender has gone."""
        senders = self._server.senders
        try:
            with senders.spool.temporary(in_memory=_IN_MEMORY) as body:
                while length:
                    chunk = self._read(min(length, _CHUNK))
                    if not chunk:
                        self._tell("an incomplete body was refused")
                        self.close_connection = True
                        return None
                    body.write(chunk)
                    length -= len(chunk)
                senders.keep(self.client_address[0], body)
        except OSError as error:
            self._server.notices.say("lines were refused: the spool takes nothing", str(error.strerror))
            full = error.errno in DISK_FULL
            return HTTPStatus.INSUFFICIENT_STORAGE if full else HTTPStatus.INTERNAL_SERVER_ERROR
        return HTTPStatus.NO_CONTENT

    def _read(self, length: int) -> bytes:
        """Return some of the body; nothing if the connection broke.

        Errors of the network are not errors of the disk.
        """
        try:
            return self.rfile.read(length)
        except OSError:
            return b""

    def _tell(self, what: str) -> None:
        self._server.notices.say(what, f"from {self.client_address[0]}")

    def _refuse(self, status: HTTPStatus) -> None:
        self._tell(f"a request was refused: {status.value} {status.phrase}")
        self._answer(status)

    def _answer(self, status: HTTPStatus) -> None:
        if status is not HTTPStatus.NO_CONTENT or self._server.stopping.is_set():
            self.close_connection = True
        self.send_response_only(status)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", "0")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if status is not HTTPStatus.NO_CONTENT:
            self._linger()

    def _linger(self) -> None:
        """Read what still comes of a request that was refused.

        If any of it were left unread, closing would send a reset: a peer that is still sending would see that, and
        not the answer.
        """
        shut(self.request, socket.SHUT_WR)
        until = time.monotonic() + _LINGER_S
        # the peer may have gone, or go on sending for longer than that
        with suppress(OSError):
            while (wait_s := until - time.monotonic()) > 0:
                self.connection.settimeout(wait_s)
                if not self.connection.recv(_CHUNK):
                    return

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request in which the base class found an error.

        The base class would answer with a page of HTML.
        """
        self.close_connection = True
        self._refuse(HTTPStatus(code))

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing for a request: the lines are in the spool."""


class _Head(io.BufferedIOBase):
    """A stream that limits the lines of a request's head together.

    The base class limits them only one by one.
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self.left = _MAX_HEAD

    def readline(self, size: int | None = -1) -> bytes:
        line = self._stream.readline(self.left)
        self.left -= len(line)
        if self.left <= 0:
            raise ConnectionAbortedError
        return line

    def read(self, size: int | None = -1) -> bytes:
        return self._stream.read(-1 if size is None else size)

    def close(self) -> None:
        self._stream.close()
        super().close()


def shut(request: socket.socket, how: int) -> None:
    # not SSLSocket's own, which would let its thread go on in plain text
    with suppress(OSError):
        socket.socket.shutdown(request, how)
