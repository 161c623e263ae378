"""A wire to PostgreSQL that can be cut at one moment: before its server hears of a commit, or before its answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Literal

from sqlalchemy.engine import make_url

Cut = Literal["before", "after"]


class Wire:
    """Forwards every connection to a server on this machine. `cut` arms it for the next COMMIT of any of them."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._cut: Cut | None = None
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def cut(self, when: Cut) -> None:
        self._cut = when

    def close(self) -> None:
        # whoever waits in accept is told by it, and not by closing alone
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError), closing(client), closing(server):
            while data := client.recv(65536):
                when = self._cut if b"COMMIT\0" in data else None
                if when is not None:
                    self._cut, self.cuts = None, self.cuts + 1
                    # nothing of the answer gets back
                    client.shutdown(socket.SHUT_RDWR)
                if when != "before":
                    server.sendall(data)
                if when is not None:
                    # what is sent is still read there
                    server.shutdown(socket.SHUT_WR)
                    while server.recv(65536):
                        pass
                    return

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def wired(url: str) -> Iterator[tuple[Wire, str]]:
    """A wire to the server of `url`, and the URL of the same database by it."""
    there = make_url(url)
    wire = Wire(there.port or 5432)
    try:
        yield wire, there.set(port=wire.port).render_as_string(hide_password=False)
    finally:
        wire.close()
