"""Short requests to a target that need not be trusted.

What is fetched is signed, or it is no evidence. No redirect is followed, no proxy and no environment is used, and
no answer is read beyond its bounds.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

from jitvault.errors import NotConfirmed

_TIMEOUT_S = 5
_CHUNK = 64 * 1024


class Web:
    """HTTP and HTTPS with bounds.

    `ca` is the PEM of a private CA, None for the system's CAs. All requests together have `within_s` seconds,
    counted from the creation of this object.
    """

    def __init__(self, ca: object, *, within_s: float) -> None:
        self._ca = ca
        self._until = time.monotonic() + within_s

    def get(self, url: str, *, at_most: int) -> bytes:
        """Return the body at `url`.

        Raises NotConfirmed for an answer other than 200, and for more than `at_most` bytes.
        """
        return self._request("GET", url, None, {}, at_most)

    def post(self, url: str, body: bytes, *, kind: str, at_most: int) -> bytes:
        """Return the answer to `body` of media type `kind`.

        Raises NotConfirmed, as `get`.
        """
        return self._request("POST", url, body, {"Content-Type": kind}, at_most)

    def _request(self, method: str, url: str, body: bytes | None, headers: dict[str, str], at_most: int) -> bytes:
        left = self._until - time.monotonic()
        if left <= 0:
            raise NotConfirmed("the target takes too long to answer")
        try:
            connection, path = self._connection(url, min(left, _TIMEOUT_S))
        except (OSError, ValueError) as error:
            # the URL is not repeated: it can contain a password
            raise NotConfirmed(f"the probe's URL or its CA cannot be used ({type(error).__name__})") from None
        shown = f"{connection.host}:{connection.port}{path}"
        # the time-out is for each byte, and a header can come byte by byte
        cut = threading.Timer(left, _cut, (connection,))
        cut.daemon = True
        cut.start()
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise NotConfirmed(f"{shown} answered with HTTP {answer.status}")
            return self._bounded(answer, shown, at_most)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotConfirmed(f"{shown} could not be asked ({type(error).__name__})") from None
        finally:
            cut.cancel()
            connection.close()

    def _connection(self, url: str, timeout: float) -> tuple[http.client.HTTPConnection, str]:
        """Return a connection, not opened yet, and the path to request.

        Raises ValueError or OSError.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None or "@" in parts.netloc or parts.query:
            raise ValueError("expected http[s]://host[:port]/path")
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout), parts.path
        context = ssl.create_default_context(cadata=str(self._ca) if self._ca else None)
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=context), parts.path

    def _bounded(self, answer: http.client.HTTPResponse, shown: str, at_most: int) -> bytes:
        """Return the body, unless it is too long or comes too slowly."""
        found = bytearray()
        while chunk := answer.read1(_CHUNK):
            found += chunk
            if len(found) > at_most:
                raise NotConfirmed(f"{shown} answered with more than {at_most} bytes")
            if time.monotonic() > self._until:
                break
        if time.monotonic() > self._until:
            # a header that was cut off looks like a complete one
            raise NotConfirmed(f"{shown} takes too long to answer")
        if answer.length:
            raise NotConfirmed(f"{shown} answered with less than it announced")
        return bytes(found)


def _cut(connection: http.client.HTTPConnection) -> None:
    """End a connection from another thread."""
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)
