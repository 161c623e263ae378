"""The HTTP session that hvac sends through: one connection per address.

A grant is thirty small requests, and the layers above a connection cost more than Vault does: pools, retries, hooks,
cookies, proxies and the environment are consulted for each request, and a connection to Vault has none of them.

A read follows a standby's redirect to the active node. A write does not: a standby also redirects when the active node
did carry out the forwarded request and only the answer was lost. Sent again, the write would be done twice.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec

from jitvault.vault.wire import MOST, Connection, NotSent, NotTrusted, Place, ResponseLost, connected

# a standby that forwards nothing redirects to the active node
_REDIRECTS = (HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT)
_MOST_REDIRECTS = 3
# The time-out is for each wait; a whole request takes at most this many times the time-out.
_WHOLE_REQUEST = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """Any answer over HTTP.

    The body may hold a secret and is left out of `repr`.
    """

    status_code: int
    body: bytes = field(repr=False)
    date: str = ""
    """When the answer was made, by the clock of the answering server, in HTTP's form."""

    @property
    def ok(self) -> bool:
        return self.status_code < 400

    def json(self) -> Any:
        """Return the decoded body. Raises ValueError for what is no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except ValueError:
            # msgspec refuses some of what the standard library takes, such as Infinity; a document may contain it.
            return json.loads(self.body)


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
        self._wires: dict[str, Connection] = {}

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
        until = time.monotonic() + _WHOLE_REQUEST * timeout
        for _ in range(_MOST_REDIRECTS):
            answer, location = self.send(method.upper(), url, sent_headers, body, timeout, until, most=most)
            if not location or not allow_redirects:
                return answer
            if once:
                raise ResponseLost("a standby says that the active node is elsewhere, and may have done it there")
            url = _redirected(url, location)
        raise NotSent("it redirects too often")

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float,
        until: float,
        *,
        most: int = MOST,
    ) -> tuple[Answer, str]:
        """Send one request; return its answer and the location of a redirect.

        Every request to Vault goes through here. The location is "" where there is no redirect.
        """
        wire, path = self._wire(url, timeout, until)
        reply = wire.ask(method, path, headers, body, timeout, until, most=most)
        answer = Answer(reply.status, bytes(reply.body), reply.date)
        return answer, reply.location if reply.status in _REDIRECTS else ""

    def close(self) -> None:
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    def _wire(self, url: str, timeout: float, until: float) -> tuple[Connection, str]:
        """Return an open connection to the URL's host, and the path to request."""
        scheme, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        base = f"{scheme}://{authority}"
        wire = self._wires.get(base)
        if wire is None or not (wire.is_open and wire.is_silent()):
            if wire is not None:
                self._wires.pop(base).close()
            wire = self._wires[base] = connected(self._place(base), timeout, until)
        return wire, slash + path or "/"

    def _place(self, base: str) -> Place:
        """Return the server that a URL names.

        Raises NotSent for what is no server's address.
        """
        try:
            parts = urlsplit(base)
            host, port = _ascii(parts.hostname or ""), parts.port
        except ValueError:
            raise NotSent("no such address") from None
        if parts.scheme not in ("http", "https") or not host or "@" in base:
            raise NotSent("no such address")
        if parts.scheme == "http":
            return Place(host, port or 80, None, None)
        return Place(host, port or 443, self._context or ssl.create_default_context(), self._server_name)


def _ascii(host: str) -> str:
    """Return a host's name as DNS knows it. Raises ValueError."""
    return host if host.isascii() else host.encode("idna").decode()


def _redirected(url: str, location: str) -> str:
    """Return the redirect's target.

    A request holds a token and is meant for one path: raises NotTrusted where the target has no TLS, and NotSent where
    it is another path.
    """
    try:
        target = urljoin(url, location)
        before = urlsplit(url)
        after = urlsplit(target)
    except ValueError:
        raise NotSent("it redirects to no valid address") from None
    if before.scheme == "https" and after.scheme != "https":
        raise NotTrusted("it redirects to where there is no TLS")
    if (before.path, before.query) != (after.path, after.query):
        raise NotSent("it redirects to another path")
    return target


def _encoded(body: Mapping[str, Any] | None) -> bytes | None:
    return None if body is None else json.dumps(body, allow_nan=False).encode()
