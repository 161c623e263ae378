"""What hvac sends through: the standard library's connections, one for each address, without layers above them.

A grant is thirty small requests, and what stands above a connection costs more than Vault does: pools, retries, hooks,
cookies, proxies and the environment are looked at for each, none of which a connection to Vault has. Measured on the
same server, processor time of a request under hvac: 0.80 ms with requests, 0.33 ms with urllib3, 0.20 ms with this.

It says in which of three ways there is no answer, since that is what a caller has to know: `NotSent`, `NotTrusted`,
`Lost`. Nothing is sent twice, but to where a standby says that the active node is.
"""

from __future__ import annotations

import json
import select
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urljoin, urlsplit

# a standby that forwards nothing sends on to the active node
_SENT_ON = (HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT)
_MOST_SENT_ON = 3


class NotSent(Exception):
    """No byte of the request was sent: there is no connection."""


class NotTrusted(Exception):
    """Not sent either: one of the two sides does not believe the other's certificate."""


class Lost(Exception):
    """It may have been sent, and there is no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Any answer over HTTP. The body may hold a secret: it is never shown."""

    status_code: int
    body: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        return self.status_code < 400

    def json(self) -> Any:
        """Raises ValueError for what is no JSON."""
        return json.loads(self.body)


class Session:
    """As much of `requests.Session` as hvac's adapters use. Not shared between threads."""

    # hvac asks a session for these and would hand them back with each request
    verify = cert = proxies = None

    def __init__(self, *, context: ssl.SSLContext | None = None, server_name: str | None = None) -> None:
        """`context` is how https is spoken; `server_name` whom it is spoken with, where that is not the address."""
        self._context, self._server_name = context, server_name
        self._open: dict[str, HTTPConnection] = {}

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout: float,
        json: Mapping[str, Any] | None = None,
        allow_redirects: bool = True,
        **_unused: Any,
    ) -> Answer:
        """Send it and read the whole answer. Raises NotSent, NotTrusted and Lost, and ValueError for such a body."""
        body, sent = _encoded(json), dict(headers)
        if body is not None:
            sent["Content-Type"] = "application/json"
        for _ in range(_MOST_SENT_ON):
            answer, elsewhere = self.send(method.upper(), url, sent, body, timeout)
            if elsewhere is None or not allow_redirects:
                return answer
            url = _sent_on(url, elsewhere)
        raise NotSent("sent on too often")

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout: float
    ) -> tuple[Answer, str | None]:
        """Every request to Vault goes through here. Gives the answer, and where it is to be sent instead of here."""
        base, path = _parts(url)
        connection, is_new = self._connected(base, timeout)
        try:
            # who hangs up early has mostly said why: that a certificate is refused, or too much was sent
            with suppress(ConnectionError, ssl.SSLError):
                connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = Answer(answer.status, answer.read())
        except (OSError, HTTPException) as error:
            connection.close()
            if is_new and _is_alert(error):
                # with TLS 1.3 the other side judges our certificate after we have judged its own
                raise NotTrusted(_why(error)) from None
            raise Lost(_why(error)) from None
        except BaseException:
            # whatever stopped it, the rest of an answer must not be taken for the next one
            connection.close()
            raise
        return found, answer.getheader("Location") if answer.status in _SENT_ON else None

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()
        self._open.clear()

    def _connected(self, base: str, timeout: float) -> tuple[HTTPConnection, bool]:
        """An open connection to `base`, and whether it was just opened. Raises NotSent and NotTrusted."""
        connection = self._open.get(base)
        if connection is None:
            connection = self._open[base] = self._connection(base)
        connection.timeout = timeout
        if connection.sock is not None and not _is_over(connection):
            connection.sock.settimeout(timeout)
            return connection, False
        connection.close()
        try:
            connection.connect()
        except ssl.SSLError as error:
            connection.close()
            raise NotTrusted(_why(error)) from None
        # a name that cannot be one is not even looked for
        except (OSError, UnicodeError) as error:
            connection.close()
            raise NotSent(_why(error)) from None
        return connection, True

    def _connection(self, base: str) -> HTTPConnection:
        parts = urlsplit(base)
        if parts.scheme == "http":
            return HTTPConnection(parts.hostname or "", parts.port)
        return _Named(parts.hostname or "", parts.port, context=self._context, server_name=self._server_name)


class _Named(HTTPSConnection):
    """HTTPS with whoever shows a certificate made out to `server_name`."""

    def __init__(self, host: str, port: int | None, *, context: ssl.SSLContext | None, server_name: str | None) -> None:
        self._ours = context or ssl.create_default_context()
        super().__init__(host, port, context=self._ours)
        self._server_name = server_name

    def connect(self) -> None:
        HTTPConnection.connect(self)
        self.sock = self._ours.wrap_socket(self.sock, server_hostname=self._server_name or self.host)


def _is_over(connection: HTTPConnection) -> bool:
    """Whether the other side has closed it, or has said something that nobody asked for."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _is_alert(error: Exception) -> bool:
    return isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")


def _why(error: Exception) -> str:
    """The system's own words, or the kind of failure: nothing that the other side sent is repeated."""
    return getattr(error, "strerror", None) or type(error).__name__


def _parts(url: str) -> tuple[str, str]:
    """Whom to connect to, and what to ask for. Raises NotSent for what is no address of a server."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise NotSent("no such address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise NotSent("no such address")
    path = parts.path or "/"
    return f"{parts.scheme}://{parts.netloc}", f"{path}?{parts.query}" if parts.query else path


def _sent_on(url: str, elsewhere: str) -> str:
    """Where the active node is. Raises NotTrusted where TLS would end there: what is sent holds a token."""
    there = urljoin(url, elsewhere)
    if url.startswith("https://") and not there.startswith("https://"):
        raise NotTrusted("sent on to where there is no TLS")
    return there


def _encoded(body: Mapping[str, Any] | None) -> bytes | None:
    return None if body is None else json.dumps(body, allow_nan=False).encode()
