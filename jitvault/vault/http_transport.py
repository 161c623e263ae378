"""What hvac sends through: one connection for each address, without layers above them.

A grant is thirty small requests, and what stands above a connection costs more than Vault does: pools, retries, hooks,
cookies, proxies and the environment are looked at for each, none of which a connection to Vault has.

A read follows a standby's redirect to the active node. A write does not. A standby also redirects when the active node
did what it was sent on, and only the answer was lost: sent again, the write would be done twice.
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

# a standby that forwards nothing sends on to the active node
_SENT_ON = (HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT)
_MOST_SENT_ON = 3
# each byte is waited for as long as the time-out says; all of a request together takes this many times that at most
_WHOLE = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """Any answer over HTTP. The body may hold a secret: it is never shown."""

    status_code: int
    body: bytes = field(repr=False)
    date: str = ""
    """When it was made, by the clock of whoever made it, as HTTP writes it."""

    @property
    def ok(self) -> bool:
        return self.status_code < 400

    def json(self) -> Any:
        """Raises ValueError for what is no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except ValueError:
            # what it does not take, such as a number without end, somebody may have written all the same
            return json.loads(self.body)


class Session:
    """As much of `requests.Session` as hvac's adapters use. Not shared between threads."""

    # hvac asks a session for these and would hand them back with each request
    verify = cert = proxies = None

    def __init__(self, *, context: ssl.SSLContext | None = None, server_name: str | None = None) -> None:
        """`context` is how https is spoken; `server_name` whom it is spoken with, where that is not the address."""
        self._context, self._server_name = context, server_name
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
        """Send it and read the whole answer, of `most` bytes. Raises NotSent, NotTrusted, Lost and TooLong, and
        ValueError for what cannot be sent.

        `once`: it must not be done twice, so a redirect raises Lost.
        """
        body, sent = _encoded(json), dict(headers)
        if body is not None:
            sent["Content-Type"] = "application/json"
        until = time.monotonic() + _WHOLE * timeout
        for _ in range(_MOST_SENT_ON):
            answer, elsewhere = self.send(method.upper(), url, sent, body, timeout, until, most=most)
            if not elsewhere or not allow_redirects:
                return answer
            if once:
                raise ResponseLost("a standby says that the active node is elsewhere, and may have done it there")
            url = _sent_on(url, elsewhere)
        raise NotSent("sent on too often")

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
        """Every request to Vault goes through here. Gives the answer, and where it is to be sent instead of here."""
        wire, path = self._wire(url, timeout, until)
        reply = wire.ask(method, path, headers, body, timeout, until, most=most)
        answer = Answer(reply.status, bytes(reply.body), reply.date)
        return answer, reply.location if reply.status in _SENT_ON else ""

    def close(self) -> None:
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    def _wire(self, url: str, timeout: float, until: float) -> tuple[Connection, str]:
        """A connection to whom the URL names, and what to ask for there."""
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
        """Raises NotSent for what is no address of a server."""
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
    """A host's name as the network knows it. Raises ValueError."""
    return host if host.isascii() else host.encode("idna").decode()


def _sent_on(url: str, elsewhere: str) -> str:
    """Where the active node is. What is sent holds a token and is meant for one path: raises NotTrusted where TLS would
    end there, and NotSent where something else would be asked for.
    """
    try:
        there = urljoin(url, elsewhere)
        before, after = urlsplit(url), urlsplit(there)
    except ValueError:
        raise NotSent("sent on to no address") from None
    if before.scheme == "https" and after.scheme != "https":
        raise NotTrusted("sent on to where there is no TLS")
    if (before.path, before.query) != (after.path, after.query):
        raise NotSent("sent on to something else")
    return there


def _encoded(body: Mapping[str, Any] | None) -> bytes | None:
    return None if body is None else json.dumps(body, allow_nan=False).encode()
