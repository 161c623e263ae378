"""OpenBao's `http` audit device: one POST for each line.

The device waits for the answer and does not send a line again, so 2xx means that the line is on the disk. OpenBao
spreads its lines over many short connections, so a sender is a peer's address here, and its lines are in one file
in the order in which they were answered. A body becomes part of that file whole or not at all: until it is complete
it is kept apart, in memory while it is short.
"""

from __future__ import annotations

from threading import Event

from jitvault.audit.files.spool import Spool
from jitvault.audit.receivers.http_endpoint import Endpoint
from jitvault.audit.receivers.http_senders import Senders
from jitvault.audit.receivers.http_server import HttpServer
from jitvault.audit.receivers.receiver import POLL_S, Notices
from jitvault.errors import UsageError


class HttpReceiver:
    """The receiver behind an HTTP server.

    Implements `jitvault.audit.receivers.receiver.Receiver`.
    """

    def __init__(self, endpoint: Endpoint, spool: Spool, notices: Notices, *, max_connections: int) -> None:
        """Listen. Raises UsageError if that is not possible."""
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        scheme = "https" if endpoint.tls else "http"
        try:
            senders = Senders(spool, max_connections, vouched=endpoint.bearer is not None)
            self._server = HttpServer(endpoint, senders, notices, max_connections)
        except OSError as error:
            where = f"{scheme}://{host}:{endpoint.port}"
            raise UsageError(f"{where} cannot be used to listen on: {error.strerror or error}") from None
        self.listening = f"{scheme}://{host}:{self._server.server_address[1]}{endpoint.path}"

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
