"""The HTTP server of `receive_http`: a bounded number of threads, and one small protocol.

POST to the one path with the right bearer is answered 204 when its body is on the disk. Everything else is refused,
and ends the connection.
"""

from __future__ import annotations

import hmac
import io
import socket
import socketserver
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Event, Lock
from typing import Any

from jitvault.audit.receivers.http_endpoint import Endpoint
from jitvault.audit.receivers.http_senders import Senders, TooManySenders
from jitvault.audit.receivers.receiver import DISK_FULL, DRAIN_S, POLL_S, Notices

MAX_BODY = 1024**3
_MAX_HEAD = 32 * 1024
_CHUNK = 64 * 1024
_IN_MEMORY = 256 * 1024
_STRANGER_S = 2.0
# Go keeps an idle connection for 90 s. Whoever closes one just when OpenBao uses it makes the device fail, so it
# must never be us.
_IDLE_S = 150.0
_BODY_S = 30.0
_LINGER_S = 1.0


@dataclass
class _Connection:
    since: float
    known: bool = False  # it has made a request that we answer
    busy: bool = False


class HttpServer(ThreadingHTTPServer):
    """A thread for each connection, and no more of them than the limit: the others wait in the listen queue."""

    request_queue_size = 128
    block_on_close = False

    def __init__(self, endpoint: Endpoint, senders: Senders, notices: Notices, max_connections: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        self.endpoint = endpoint
        self.senders = senders
        self.notices = notices
        self.stopping = Event()
        self._slots = BoundedSemaphore(max_connections)
        self._connections: dict[socket.socket, _Connection] = {}
        self._lock = Lock()
        super().__init__((endpoint.host, endpoint.port), _Handler)

    def server_bind(self) -> None:
        # not HTTPServer's, which asks the DNS for our name
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.endpoint.tls:
            # the handshake is its thread's business: here it would keep everybody else waiting
            connection = self.endpoint.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        while not self._slots.acquire(timeout=POLL_S):
            self.drop_strangers()
            if self.stopping.is_set():
                self.shutdown_request(request)
                return
        with self._lock:
            self._connections[request] = _Connection(time.monotonic())
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            del self._connections[request]
        self._slots.release()

    @contextmanager
    def serving(self, request: socket.socket) -> Iterator[None]:
        """While a request that is ours to answer is answered."""
        with self._lock:
            self._connections[request].known = self._connections[request].busy = True
        try:
            yield
        finally:
            with self._lock:
                self._connections[request].busy = False

    def drop_strangers(self) -> None:
        """End connections that hold a thread and have not asked for anything in ten seconds."""
        latest = time.monotonic() - _STRANGER_S
        with self._lock:
            for request, connection in self._connections.items():
                if not connection.known and connection.since < latest:
                    _shut(request, socket.SHUT_RDWR)

    def drain(self) -> None:
        """Let those finish who have begun, and end the others."""
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            with self._lock:
                if not self._connections:
                    return
                for request, connection in self._connections.items():
                    if not connection.busy:
                        _shut(request, socket.SHUT_RD)
            time.sleep(0.01)
        with self._lock:
            for request in self._connections:
                _shut(request, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        kind = type(sys.exception()).__name__
        self.notices.say("a connection failed", f"{kind}, from {client_address[0]}")


class _Handler(BaseHTTPRequestHandler):
    """One connection. Whatever is refused ends it, since what is left of the request was not read."""

    protocol_version = "HTTP/1.1"
    timeout = _STRANGER_S
    server: HttpServer

    def setup(self) -> None:
        super().setup()
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        self.rfile = _Head(self.rfile)

    def handle_one_request(self) -> None:
        if isinstance(self.rfile, _Head):
            self.rfile.left = _MAX_HEAD
        super().handle_one_request()

    def do_POST(self) -> None:
        refusal = self._refusal()
        if refusal is not None:
            self._answer(refusal)
            return
        with self.server.serving(self.request):
            self.connection.settimeout(_BODY_S)
            status = self._keep(int(self.headers["Content-Length"]))
            if status is not None:
                self._answer(status)
        self.connection.settimeout(_IDLE_S)

    def do_GET(self) -> None:
        right = self.path == self.server.endpoint.path
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED if right else HTTPStatus.NOT_FOUND)

    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def _refusal(self) -> HTTPStatus | None:
        if self.path != self.server.endpoint.path:
            return HTTPStatus.NOT_FOUND
        if not self._is_known():
            self.server.notices.say("a request without the right bearer was refused", f"from {self.client_address[0]}")
            return HTTPStatus.UNAUTHORIZED
        lengths = self.headers.get_all("Content-Length") or []
        if self.headers["Transfer-Encoding"] is not None or not lengths:
            return HTTPStatus.LENGTH_REQUIRED
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdecimal()) or not int(lengths[0][:20]):
            return HTTPStatus.BAD_REQUEST
        if int(lengths[0][:20]) > MAX_BODY:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return None

    def _is_known(self) -> bool:
        bearer = self.server.endpoint.bearer
        if bearer is None:
            return True
        given = self.headers.get("Authorization", "").encode(errors="surrogateescape")
        return hmac.compare_digest(given, b"Bearer " + bearer)

    def _keep(self, length: int) -> HTTPStatus | None:
        """Keep the body; the answer to it, None where the sender has gone."""
        senders = self.server.senders
        try:
            with senders.spool.temporary(in_memory=_IN_MEMORY) as body:
                while length:
                    chunk = self._read(min(length, _CHUNK))
                    if not chunk:
                        self.close_connection = True
                        return None
                    body.write(chunk)
                    length -= len(chunk)
                senders.keep(self.client_address[0], body)
        except TooManySenders:
            self.server.notices.say("lines were refused: there are too many senders")
            return HTTPStatus.SERVICE_UNAVAILABLE
        except OSError as error:
            self.server.notices.say("lines were refused: the spool takes nothing", str(error.strerror))
            full = error.errno in DISK_FULL
            return HTTPStatus.INSUFFICIENT_STORAGE if full else HTTPStatus.INTERNAL_SERVER_ERROR
        return HTTPStatus.NO_CONTENT

    def _read(self, length: int) -> bytes:
        """Some of the body; nothing where the connection broke. Errors of the network are not errors of the disk."""
        try:
            return self.rfile.read(length)
        except OSError:
            return b""

    def _answer(self, status: HTTPStatus) -> None:
        if status is not HTTPStatus.NO_CONTENT or self.server.stopping.is_set():
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
        """Take in what still comes of a request that was refused. If any of it were left unread our end would be a
        reset: whoever is still sending would see that, and not the answer.
        """
        _shut(self.request, socket.SHUT_WR)
        until, left = time.monotonic() + _LINGER_S, _CHUNK
        # one that has gone, or goes on for longer than that
        with suppress(OSError):
            while left and (wait_s := until - time.monotonic()) > 0:
                self.connection.settimeout(wait_s)
                came = self.connection.recv(left)
                if not came:
                    return
                left -= len(came)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request; its own answer is a page of HTML."""
        self.close_connection = True
        self._answer(HTTPStatus(code))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing for a request: the lines are in the spool."""


class _Head(io.BufferedIOBase):
    """A stream in which the lines of a request's head are limited together, not only one by one."""

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


def _shut(request: socket.socket, how: int) -> None:
    # not SSLSocket's own, which would let its thread go on in plain text
    with suppress(OSError):
        socket.socket.shutdown(request, how)
