"""OpenBao's `http` audit device: one POST for each line.

The device waits for the answer and does not send a line again, so 2xx means that the line is on the disk. OpenBao
spreads its lines over many short connections, so a sender is an address here, and its lines are in one file in the
order in which they were answered. A body becomes part of that file whole or not at all: until it is complete it is
kept apart, in memory while it is short.

Only those may send who know the bearer or have a client certificate, over TLS. Each connection gets a thread. Where
all places are taken, a connection that has not shown yet that it may send is dropped, so that nobody waits behind it.
A WSGI server cannot do that: its few threads wait for silent peers, and its applications see no connections.
"""

from __future__ import annotations

import os
import socket
import socketserver
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore, Event, Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

from jitvault.audit.files.spool import Spool
from jitvault.audit.receivers.http_requests import Handler, shut
from jitvault.audit.receivers.http_senders import Senders
from jitvault.audit.receivers.receiver import DRAIN_S, MOST_CONNECTIONS, POLL_S, Notices
from jitvault.errors import UsageError

T = TypeVar("T")
# A bearer that can be guessed is none.
_LEAST_BEARER = 16
# Within this time a connection has to show that it may send.
_STRANGER_S = 2.0


@dataclass(frozen=True)
class Endpoint:
    """`https://HOST:PORT/PATH`, with what is needed to serve it.

    `bearer` is what senders have to know, or None: then they need a certificate, which `tls` demands.
    """

    host: str
    port: int
    path: str
    tls: ssl.SSLContext
    bearer: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(
        cls, url: str, *, certificate: Path | None, key: Path | None, bearer_file: Path | None, client_ca: Path | None
    ) -> Endpoint:
        """Parse the URL and read the files. Raises UsageError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme != "https" or not host or port is None or "@" in parts.netloc:
            raise UsageError(
                f"--http: expected https://HOST:PORT/PATH, got {url!a:.100}",
                hint="Without TLS, others can read the bearer on its way, or listen there in the receiver's place.",
            )
        if parts.query or parts.fragment:
            raise UsageError("--http: expected a URL without `?` and `#`")
        if certificate is None or key is None:
            raise UsageError("--http needs --tls-cert and --tls-key")
        if bearer_file is None and client_ca is None:
            raise UsageError(
                "--http needs --bearer-file or --client-ca",
                hint="Receivers take lines only from those who may send: what anybody sent would count as Vault's.",
            )
        bearer = _bearer(bearer_file) if bearer_file else None
        return cls(host, port, parts.path or "/", _tls(certificate, key, client_ca), bearer)

    def url(self, port: int) -> str:
        """Return the URL with another port: with port 0, the system chooses one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{port}{self.path}"


class HttpReceiver:
    """The receiver behind an HTTP server.

    Implements `jitvault.audit.receivers.receiver.Receiver`.
    """

    def __init__(self, endpoint: Endpoint, spool: Spool, notices: Notices) -> None:
        """Listen. Raises UsageError if that is not possible."""
        try:
            self._server = _Server(endpoint, Senders(spool), notices)
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
class Connection:
    """A connection of the HTTP server.

    `since` is when it was accepted (`time.monotonic()`), `known` that it has shown that it may send, and `busy` that it
    is sending something.
    """

    address: str
    since: float
    known: bool = False
    busy: bool = False


def first_to_go(strangers: Mapping[T, Connection]) -> T:
    """Return the oldest connection of the address that has most.

    So many connections of one address do not push out one of another. `strangers` are given the oldest first.
    """
    of_address = Counter(connection.address for connection in strangers.values())
    return max(strangers, key=lambda stranger: of_address[strangers[stranger].address])


class _Server(ThreadingHTTPServer):
    """A thread for each connection, and a bound on their number.

    Those that have not shown that they may send keep their place for a short time, and for as long as there are others.
    """

    request_queue_size = 1024
    block_on_close = False

    def __init__(self, endpoint: Endpoint, senders: Senders, notices: Notices) -> None:
        self.address_family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        self._tls = endpoint.tls
        self.path = endpoint.path
        self.bearer = endpoint.bearer
        self.senders = senders
        self.notices = notices
        self.stopping = Event()
        self._places = BoundedSemaphore(MOST_CONNECTIONS)
        self._connections: dict[socket.socket, Connection] = {}
        self._lock = Lock()
        super().__init__((endpoint.host, endpoint.port), Handler)

    def server_bind(self) -> None:
        # not HTTPServer's, which asks the DNS for our name
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        # the connection's thread does the handshake: here it would keep all others waiting
        return self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def process_request(self, request: Any, client_address: Any) -> None:
        while not self._places.acquire(blocking=False):
            self._drop_one()
            if self._places.acquire(timeout=POLL_S):
                break
            if self.stopping.is_set():
                self.shutdown_request(request)
                return
        with self._lock:
            self._connections[request] = Connection(client_address[0], time.monotonic())
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads
            self.handle_error(request, client_address)
            self.shutdown_request(request)
            self._forget(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._connections.pop(request, None)
        self._places.release()

    @contextmanager
    def serving(self, request: socket.socket) -> Iterator[None]:
        """Mark a connection as busy while its request is answered.

        Raises ConnectionAbortedError if it was dropped meanwhile.
        """
        with self._lock:
            connection = self._connections.get(request)
            if connection is None:
                raise ConnectionAbortedError
            connection.known = connection.busy = True
        try:
            yield
        finally:
            with self._lock:
                connection.busy = False

    def _strangers(self) -> dict[socket.socket, Connection]:
        """Return connections that have shown no right yet, the oldest first."""
        return {request: connection for request, connection in self._connections.items() if not connection.known}

    def drop_strangers(self) -> None:
        """End connections that show no right to send within two seconds."""
        latest = time.monotonic() - _STRANGER_S
        with self._lock:
            for request, connection in self._strangers().items():
                if connection.since < latest:
                    self._drop(request, "it shows no right to send")

    def _drop_one(self) -> None:
        """Make a place free where others than senders have one."""
        with self._lock:
            if strangers := self._strangers():
                self._drop(first_to_go(strangers), "too many show no right to send")

    def _drop(self, request: socket.socket, why: str) -> None:
        """End a connection; its thread notices."""
        address = self._connections.pop(request).address
        shut(request, socket.SHUT_RDWR)
        self.notices.say(f"a connection was dropped: {why}", f"from {address}")

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
            was_dropped = request not in self._connections
        if was_dropped:
            return
        kind = type(sys.exception()).__name__
        self.notices.say("a connection failed", f"{kind}, from {client_address[0]}")


def _tls(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in filter(None, (certificate, key, client_ca)):
        if not path.is_file():
            raise UsageError(f"{path} does not exist")
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not PEM"
            raise UsageError(f"--client-ca {client_ca} has no certificates: {reason}") from None
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
        with path.open(encoding="ascii") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read().strip().removeprefix("Bearer ").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not ASCII"
        raise UsageError(f"--bearer-file {path} cannot be read: {reason}") from None
    if mode & 0o077:
        raise UsageError(f"--bearer-file: others can read {path}", hint="Run `chmod 600` on it.")
    if not text.isprintable() or len(text) < _LEAST_BEARER:
        raise UsageError(
            f"--bearer-file: expected a bearer of at least {_LEAST_BEARER} characters in {path}",
            hint="`openssl rand -hex 32` makes one.",
        )
    return text.encode()
