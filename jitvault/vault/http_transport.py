"""The HTTP session that hvac sends through: one connection per address.

No proxy and no password of the environment is used, and no request is sent again.

A read follows a standby's redirect to the active node. A write does not: a standby also redirects when the active node
did carry out the forwarded request and only the answer was lost. Sent again, the write would be done twice.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from jitvault.http.connection import (
    MOST,
    Answer,
    BadRedirect,
    NoAnswer,
    NotTrusted,
    OpenConnection,
    ResponseLost,
    ServerAddress,
    connect,
)
from jitvault.http.deadline_socket import TimeLimit

_MOST_REDIRECTS = 3
# The time-out is for each wait; a whole request takes at most this many times the time-out.
_WHOLE_REQUEST = 2


class Session:
    """As much of `requests.Session` as hvac's adapters use.

    Not shared between threads.
    """

    # hvac reads these from a session and would pass them back with each request
    verify = cert = proxies = None

    def __init__(self, *, context: ssl.SSLContext | None = None, server_name: str | None = None) -> None:
        """Keep the TLS context, and the server's name where it is not the address."""
        self._context = context
        self._server_name = server_name
        self._connections: dict[str, OpenConnection] = {}
        self.lost = 0
        """How many connections could not be opened, gave no answer, or were closed by the server."""

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout: float,
        json: Mapping[str, Any] | None = None,
        allow_redirects: bool = True,
        most: int = MOST,
        once: bool = False,
        **_unused: Any,
    ) -> Answer:
        """Send a request and return the whole answer, of at most `most` bytes.

        With `once` the request must not be carried out twice, so a redirect raises ResponseLost. Raises NotSent,
        NotTrusted, ResponseLost and TooLong, and ValueError for what cannot be sent.
        """
        body = _encoded(json)
        sent_headers = dict(headers)
        if body is not None:
            sent_headers["Content-Type"] = "application/json"
        limit = TimeLimit(timeout, time.monotonic() + _WHOLE_REQUEST * timeout)
        for _ in range(_MOST_REDIRECTS):
            answer = self.send(method.upper(), url, sent_headers, body, limit, most=most)
            if not answer.redirect or not allow_redirects:
                return answer
            if once:
                raise ResponseLost("a standby says that the active node is elsewhere, and may have done it there")
            url = _redirected(url, answer.redirect)
        raise BadRedirect("too often")

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        limit: TimeLimit,
        *,
        most: int = MOST,
    ) -> Answer:
        """Send one request and return its answer, which may be a redirect.

        Every request to Vault goes through here.
        """
        scheme, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        try:
            connection = self._connection(f"{scheme}://{authority}", limit)
            return connection.ask(method, slash + path or "/", headers, body, limit, most=most)
        except NoAnswer:
            self.lost += 1
            raise

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _connection(self, base: str, limit: TimeLimit) -> OpenConnection:
        """Return an open connection to the server that `base` names.

        Raises NotSent and NotTrusted.
        """
        known = self._connections.get(base)
        if known is not None:
            if known.is_usable():
                return known
            self.lost += known.was_left
            self._connections.pop(base).close()
        made = connect(ServerAddress.of(base, self._context, self._server_name), limit)
        self._connections[base] = made
        return made


def _redirected(url: str, location: str) -> str:
    """Return the redirect's target.

    A request holds a token and is meant for one path: raises NotTrusted where the target has no TLS, and
    BadRedirect where it is another path.
    """
    try:
        target = urljoin(url, location)
        before = urlsplit(url)
        after = urlsplit(target)
    except ValueError:
        raise BadRedirect("to no valid address") from None
    if before.scheme == "https" and after.scheme != "https":
        raise NotTrusted("it redirects to where there is no TLS")
    if (before.path, before.query) != (after.path, after.query):
        raise BadRedirect("to another path")
    return target


def _encoded(body: Mapping[str, Any] | None) -> bytes | None:
    return None if body is None else json.dumps(body, allow_nan=False).encode()
