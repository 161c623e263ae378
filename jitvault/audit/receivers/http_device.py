"""OpenBao's `http` audit device: one POST for each line.

The device waits for the answer and does not send a line again, so 2xx means that the line is on the disk. OpenBao
spreads its lines over many short connections, so a sender is a peer's address here, and its lines are in one file
in the order in which they were answered. A body becomes part of that file whole or not at all: until it is complete
it is kept apart, in memory while it is short.

Nobody waits behind untrusted peers. Each connection gets a thread at once, and if there are too many, one is
dropped: one that has not requested anything yet, or, without a bearer, the one that is least likely to be Vault's.
A WSGI server cannot do that: its few threads wait for silent peers, and its applications see no connections.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore, Event, Lock
from typing import Any
from urllib.parse import urlsplit

from jitvault.audit.files.spool import Spool
from jitvault.audit.receivers.http_requests import Handler, Refused, shut
from jitvault.audit.receivers.http_senders import Senders
from jitvault.audit.receivers.peers import Guest, first_to_go, peer_at
from jitvault.audit.receivers.receiver import DRAIN_S, POLL_S, Notices
from jitvault.errors import UsageError

_STRANGER_S = 2.0
_SILENT_PLACES = 64
# Threads of connections that were dropped and are about to end.
_LEAVING = 64


@dataclass(frozen=True)
class Endpoint:
    """`http://HOST:PORT/PATH` or `https://…`, with what is needed to serve it."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None = None
    bearer: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, *, certificate: Path | None, key: Path | None, bearer_file: Path | None) -> Endpoint:
        """Parse the URL and read the files. Raises UsageError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not host or port is None or "@" in parts.netloc:
            raise UsageError(f"--http: expected http(s)://HOST:PORT/PATH, got {url!a:.100}")
        if parts.query or parts.fragment:
            raise UsageError("--http: expected a URL without `?` and `#`")
        if (parts.scheme == "https") != (certificate is not None and key is not None) or bool(certificate) != bool(key):
            raise UsageError("--http: https needs --tls-cert and --tls-key, and http takes neither")
        tls = _tls(certificate, key) if certificate and key else None
        return cls(host, port, parts.path or "/", tls, _bearer(bearer_file) if bearer_file else None)

    def url(self, port: int) -> str:
        """Return the URL with another port: with port 0, the system chooses one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{host}:{port}{self.path}"


class HttpReceiver:
    """The receiver behind an HTTP server.

    Implements `jitvault.audit.receivers.receiver.Receiver`.
    """

    def __init__(self, endpoint: Endpoint, spool: Spool, notices: Notices, *, max_connections: int) -> None:
        """Listen. Raises UsageError if that is not possible."""
        senders = Senders(spool, max_connections, vouched=endpoint.bearer is not None)
        try:
            self._server = _Server(endpoint, senders, notices, max_connections)
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"{endpoint.url(endpoint.port)} cannot be used to listen on: {reason}") from None
        self.listening = endpoint.url(self._server.server_address[1])

    def run(self, stopping: Event) -> None:
        """Receive until `stopping` is set.

        Requests that have begun by then are answered, for three seconds at most.
        """
        server = self._server
        server.stopping = stopping
        server.timeout = POLL_S
        try:
            while not stopping.is_set():
                server.handle_request()
                server.drop_strangers()
        finally:
            server.server_close()
            server.drain()
            server.senders.close(server.notices)


@dataclass(slots=True)
class _Connection(Guest):
    """A connection of the HTTP server.

    `asked`: it has made a request that we answer. `dropped`: it was ended, and its thread is about to notice.
    """

    asked: bool = False
    dropped: bool = False


class _Server(ThreadingHTTPServer):
    """A thread for each connection.

    Silent connections have few places, for a short time.
    """

    request_queue_size = 1024
    block_on_close = False

    def __init__(self, endpoint: Endpoint, senders: Senders, notices: Notices, max_connections: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        self._tls = endpoint.tls
        self.path = endpoint.path
        self.bearer = endpoint.bearer
        self.senders = senders
        self.notices = notices
        self.stopping = Event()
        self._max_connections = max_connections
        self._slots = BoundedSemaphore(max_connections + _SILENT_PLACES + _LEAVING)
        self._connections: dict[socket.socket, _Connection] = {}
        self._lock = Lock()
        super().__init__((endpoint.host, endpoint.port), Handler)

    def server_bind(self) -> None:
        # not HTTPServer's, which asks the DNS for our name
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._tls:
            # the connection's thread does the handshake: here it would keep all others waiting
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        peer = peer_at("http", client_address[0])
        connection = _Connection(peer, time.monotonic(), known=self.senders.spool.knows(peer.name))
        while not self._slots.acquire(timeout=POLL_S):
            self.drop_strangers()
            if self.stopping.is_set():
                self.shutdown_request(request)
                return
        with self._lock:
            self._connections[request] = connection
            silent = [guest for guest in self._connections.values() if not guest.asked and not guest.dropped]
            if len(silent) > _SILENT_PLACES:
                self._drop(first_to_go(silent), "too many ask for nothing")
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
    def serving(self, request: socket.socket) -> Iterator[_Connection]:
        """Mark a connection as busy while its request is answered.

        Raises Refused if there is no place for one more.
        """
        with self._lock:
            connection = self._connections[request]
            connection.asked = connection.busy = True
            if not self._has_place(connection):
                raise Refused
        try:
            yield connection
        finally:
            with self._lock:
                connection.busy = False

    def _has_place(self, newcomer: _Connection) -> bool:
        """Drop the connection that is least likely to be Vault's, if needed.

        It is needed if there are too many. Return whether the newcomer may stay. A peer that knows the bearer
        stays. Without a bearer, a canary vouches for an address, which others may have as well.
        """
        there = [guest for guest in self._connections.values() if guest.asked and not guest.dropped]
        if len(there) <= self._max_connections or self.senders.vouched:
            return True
        for guest in there:
            guest.known = guest.known or self.senders.trusts(guest.peer)
        first = first_to_go(there)
        if first is newcomer:
            return False
        self._drop(first, "there are too many")
        return True

    def drop_strangers(self) -> None:
        """End connections that have not requested anything within two seconds."""
        latest = time.monotonic() - _STRANGER_S
        with self._lock:
            for connection in self._connections.values():
                if not connection.asked and not connection.dropped and connection.since < latest:
                    self._drop(connection, "it asks for nothing")

    def _drop(self, connection: _Connection | None, why: str) -> None:
        """End a connection; its thread notices."""
        for request, guest in self._connections.items():
            if guest is connection:
                guest.dropped = True
                shut(request, socket.SHUT_RDWR)
                self.notices.say("a connection was dropped", f"{why}: {guest.peer.name}")

    def drain(self) -> None:
        """Let requests finish that have begun, and end the other connections."""

        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            with self._lock:
                if not self._connections:
                    return
                for request, connection in self._connections.items():
                    if not connection.busy:
                        shut(request, socket.SHUT_RD)
            time.sleep(0.01)
        with self._lock:
            for request in self._connections:
                shut(request, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        with self._lock:
            connection = self._connections.get(request)
        if connection is not None and connection.dropped:
            return
        kind = type(sys.exception()).__name__
        self.notices.say("a connection failed", f"{kind}, from {client_address[0]}")


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (certificate, key):
        if not path.is_file():
            raise UsageError(f"{path} does not exist")
    try:
        # without a password function, OpenSSL would ask for one on the terminal
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "not PEM"
        raise UsageError(f"{certificate} and {key} are not a certificate and its key: {reason}") from None
    return context


def _bearer(path: Path) -> bytes:
    """Return the secret in a file.

    `Bearer ` may precede it, as OpenBao wants it in its own file.
    """
    try:
        text = path.read_text("ascii").strip().removeprefix("Bearer ").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not ASCII"
        raise UsageError(f"--bearer-file {path} cannot be read: {reason}") from None
    if not text or not text.isprintable():
        raise UsageError(f"--bearer-file {path} has no bearer in it")
    return text.encode()
