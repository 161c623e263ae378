"""A socket on which a whole request has one time limit.

A socket's own time-out begins again with each byte, so a server that sends one byte a second could hold a request for
ever.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from errno import ECONNABORTED

# more than a TLS record, so that no decrypted bytes stay behind in the TLS library, where `poll` does not see them
_READ_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """How long a request may take.

    `each_s` bounds each wait in seconds, `until` the whole request, by the monotonic clock.
    """

    each_s: float
    until: float

    def remaining_s(self) -> float:
        """Return how long the next wait may take, in seconds.

        Raises TimeoutError once `until` has passed.
        """
        remaining_s = self.until - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        return min(remaining_s, self.each_s)


def open_socket(host: str, port: int, limit: TimeLimit) -> socket.socket:
    """Return a TCP socket to the first address of `host` that answers.

    Raises OSError, and UnicodeError for what cannot be a host's name.
    """
    failure = OSError("no such address")
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            opened = socket.create_connection((str(address[0]), port), limit.remaining_s())
        except OSError as error:
            failure = error
        else:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return opened
    raise failure


class DeadlineSocket:
    """An open socket, which knows whether a request may have been carried out."""

    def __init__(self, opened: socket.socket, limit: TimeLimit) -> None:
        self.tls_version = opened.version() if isinstance(opened, ssl.SSLSocket) else None
        self._opened = opened
        self.begin(limit)

    def begin(self, limit: TimeLimit) -> None:
        """Begin another request, whose waits end by `limit`."""
        self._limit = limit
        self.may_have_sent = False

    @property
    def is_silent(self) -> bool:
        """Whether the server neither sent anything unasked nor closed the connection."""
        poller = select.poll()
        poller.register(self._opened, select.POLLIN)
        return not poller.poll(0)

    def check_silent(self) -> None:
        """Raise ConnectionError where the server spoke before it was asked.

        Or where it closed the connection. A TLS record without data, such as the tickets that a server sends after the
        handshake, is no word of it: it is read here, and nothing comes of it.
        """
        self._opened.settimeout(0)
        with suppress(BlockingIOError, ssl.SSLWantReadError):
            came = self._opened.recv(1)
            raise ConnectionError(ECONNABORTED, "it spoke before it was asked" if came else "it closed the connection")

    def sendall(self, data: bytes) -> None:
        # TLS may have sent a part of what it could not send whole
        self.may_have_sent = self.tls_version is not None
        rest = memoryview(data)
        while rest:
            self._opened.settimeout(self._limit.remaining_s())
            count = self._opened.send(rest)
            self.may_have_sent = True
            rest = rest[count:]

    def receive(self) -> bytes:
        """Wait for bytes and return them; empty once the server closed the connection."""
        self._opened.settimeout(self._limit.remaining_s())
        return self._opened.recv(_READ_SIZE)

    def shut(self) -> None:
        """Close the connection."""
        self._opened.close()
