"""Short requests to a target that need not be trusted.

What is fetched is signed, or it is no evidence. No redirect is followed, no proxy and no environment is used, and
no answer is read beyond its bounds.
"""

from __future__ import annotations

import ssl
import time
from contextlib import closing
from http import HTTPStatus
from urllib.parse import urlsplit

from jitvault.errors import NotConfirmed
from jitvault.http.connection import NoAnswer, ServerAddress, TooLong, connect
from jitvault.http.deadline_socket import TimeLimit

_TIMEOUT_S = 5


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
        try:
            server, path = self._target(url)
        except (OSError, ValueError, NoAnswer) as error:
            # the URL is not repeated: it can contain a password
            raise NotConfirmed(f"the probe's URL or its CA cannot be used ({type(error).__name__})") from None
        shown = f"{server.host}:{server.port}{path}"
        try:
            limit = TimeLimit(_TIMEOUT_S, self._until)
            with closing(connect(server, limit)) as connection:
                answer = connection.ask(method, path, headers, body, limit, most=at_most)
        except TooLong:
            raise NotConfirmed(f"{shown} answered with more than {at_most} bytes") from None
        except (NoAnswer, ValueError) as error:
            raise NotConfirmed(f"{shown} could not be asked: {error}") from None
        if answer.status_code != HTTPStatus.OK:
            raise NotConfirmed(f"{shown} answered with HTTP {answer.status_code}")
        return answer.body

    def _target(self, url: str) -> tuple[ServerAddress, str]:
        """Return the server and the path that a URL names.

        Raises NoAnswer, OSError and ValueError.
        """
        # without a CA of the probe's, the system's are asked
        context = ssl.create_default_context(cadata=str(self._ca)) if self._ca else None
        server = ServerAddress.of(url, context)
        parts = urlsplit(url)
        if parts.query:
            raise ValueError("expected http[s]://host[:port]/path")
        return server, parts.path or "/"
