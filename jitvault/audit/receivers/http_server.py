"""The HTTP server of `receive_http`, with a bound on its threads.

Nobody waits behind untrusted peers. Each connection gets a thread at once, and if there are too many, one is
dropped: one that has not requested anything yet, or, without a bearer, the one that is least likely to be Vault's.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from threading import BoundedSemaphore, Event, Lock
from typing import Any

from jitvault.audit.receivers.http_endpoint import Endpoint
from jitvault.audit.receivers.http_requests import Handler, Refused, shut
from jitvault.audit.receivers.http_senders import Senders
from jitvault.audit.receivers.peers import Guest, first_to_go, peer_at
from jitvault.audit.receivers.receiver import DRAIN_S, POLL_S, Notices

_STRANGER_S = 2.0
_SILENT_PLACES = 64
# Threads of connections that were dropped and are about to end.
_LEAVING = 64


@dataclass(slots=True)
class _Connection(Guest):
    """A connection of the HTTP server.

    `asked`: it has made a request that we answer. `dropped`: it was ended, and its thread is about to notice.
    """

    asked: bool = False
    dropped: bool = False


class HttpServer(ThreadingHTTPServer):
    """A thread for each connection.

    Silent connections have few places, for a short time.
    """

    request_queue_size = 1024
    block_on_close = False

    def __init__(self, endpoint: Endpoint, senders: Senders, notices: Notices, max_connections: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        self.endpoint = endpoint
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
        if self.endpoint.tls:
            # the connection's thread does the handshake: here it would keep all others waiting
            connection = self.endpoint.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
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
