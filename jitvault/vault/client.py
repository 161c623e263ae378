"""The only client of Vault: typed requests, with every failure translated.

An error says whether the act may have been done:

    VaultNotServing    not sent, or refused before anything was done (connection refused, sealed, 503, no active node)
    VaultBusy          429
    VaultUnavailable   the answer of a read was lost, or something answered that is not Vault
    OutcomeUnknown     sent, and the answer was lost or is a 500: docs/vault-facts.md, "Audit devices": a 500 can
                       mean that the act was done and only its audit line could not be written
    VaultRefused       403
    VaultRejected      400 or 404, with Vault's reasons

A request that may have been carried out is never retried here: the ledger retries, after it has looked. An act with an
operation id, and an unwrap, must not be carried out twice, and whatever stands between here and Vault can pass them on
and answer in Vault's place. So they are sent again, once and to the active node (`Node`), only where nothing left this
host; a 429, a 503 and a token that was over mean OutcomeUnknown. Every other request, also a look-up with an operation
id, is sent again after these three: for a moment where a rate limit rejected it; once where a node is not active any
more; once with a new token (`Bearer`) where the token has expired or was revoked. A body of Vault's never reaches a
message except for Vault's own short reasons, since a body can echo what was sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from hvac.adapters import Adapter, RawAdapter

from jitvault.backoff import doubled, jittered
from jitvault.errors import (
    OutcomeUnknown,
    VaultBusy,
    VaultNotServing,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
    WorkerRefused,
)
from jitvault.formats.secret import Secret
from jitvault.http.connection import NotSent, NotTrusted, ResponseLost, TooLong
from jitvault.vault.http_transport import Session
from jitvault.vault.responses import READS, too_long, unanswered, understood, unknown
from jitvault.vault.tls import Tls

OP_HEADER = "X-Jitvault-Op"
_CLOSING_TIMEOUT_S = 2
_BUSY_PATIENCE_S, _BUSY_PAUSE_S = 2.5, 0.25
# characters that are not escaped in a path
_PLAIN = "/:@!$&'()*+,;=~"


# OpenBao refuses a request that holds 1,000 strings
_PATHS_AT_ONCE = 500


class Node(Protocol):
    """Which node of a cluster to speak to; shared between threads."""

    def address(self) -> str:
        """Return the active node's address, as far as it is known."""

    def lost(self, address: str) -> bool:
        """Report a node that takes no requests.

        Returns whether another node is active now, or that node again.
        """

    def doubt(self, address: str) -> None:
        """Report a node whose answer was lost: look again before requests."""


class Bearer(Protocol):
    """A token that is renewed and replaced; shared between threads."""

    @property
    def is_worker(self) -> bool:
        """Whether it is the worker's."""

    def token(self) -> Secret:
        """Return the token for the next request."""

    def replaced(self, refused: Secret) -> bool:
        """Report a refused token; return whether there is another one.

        False where the token is valid and only may not do what was asked.
        """


@dataclass(frozen=True, slots=True)
class Connection:
    """Where Vault is and how to speak to it.

    A request takes at most twice `timeout_s`, which stays below the ledger's claim of 30 s. Once `closing` returns
    true, because this process is to end, no answer is waited for longer than 2 s.
    """

    address: str
    namespace: str | None = None
    tls: Tls = field(default_factory=Tls)
    timeout_s: int = 10
    closing: Callable[[], bool] | None = field(default=None, compare=False, repr=False)
    node: Node | None = field(default=None, compare=False, repr=False)
    """Says which of several nodes to speak to; without it, requests go to `address`."""
    hears: Callable[[str, float, float], None] | None = field(default=None, compare=False, repr=False)
    """Called with the `Date` of each answer and the monotonic times before its request and after the answer."""
    check: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    """Called before each request. Raises where nothing may be sent to this server."""

    @property
    def is_tls(self) -> bool:
        return urlsplit(self.address).scheme == "https"


class Vault:
    """One identity's connection to Vault; not shared between threads."""

    def __init__(self, connection: Connection, token: Secret | Bearer | None) -> None:
        self.connection = connection
        self.has_token = token is not None
        self._token = token
        self._stamp = self._tls_stamp()
        self._adapter = self._connected()

    def _connected(self) -> Adapter[Any]:
        is_tls = self.connection.is_tls
        self._session = Session(**(self.connection.tls.options() if is_tls else {}))
        session: Any = self._session
        # RawAdapter, because answers are checked whole in `responses`: JSONAdapter returns any JSON as if it were
        # Vault's. No hvac.Client around the adapter: it would read the environment for what it was not given.
        return RawAdapter(
            base_uri=self.connection.address,
            namespace=self.connection.namespace,
            timeout=self.connection.timeout_s,
            session=session,
        )

    def with_token(self, token: Secret) -> Vault:
        """Return a client of the server with another token."""
        return Vault(self.connection, token)

    def at_root(self) -> Vault:
        """Return a client with the current identity in the root namespace."""
        if self.connection.namespace is None:
            return self
        return Vault(replace(self.connection, namespace=None), self._token)

    @property
    def lost_connections(self) -> int:
        """How many connections the server closed or did not open, since certificates last changed."""
        return self._session.lost

    def close(self) -> None:
        self._adapter.close()

    def _tls_stamp(self) -> tuple[int, ...]:
        return self.connection.tls.stamp() if self.connection.is_tls else ()

    def read(
        self, path: str, *, op: str | None = None, most: int | None = None, query: str = ""
    ) -> dict[str, Any] | None:
        """Return the answer to a GET, None where Vault has nothing there (404).

        An answer of more than `most` bytes is not read to its end: raises VaultRejected with the status 200.
        """
        # a secrets engine may issue a lease for it
        return self._or_none("get", path, op=op, most=most, query=query, once=op is not None)

    def list(self, path: str, *, op: str | None = None) -> list[str]:
        """Return the keys below `path`, empty where there are none."""
        answer = self._or_none("list", path, op=op)
        return [str(key) for key in (answer or {}).get("data", {}).get("keys", [])]

    def write(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        op: str | None = None,
        wrap_ttl_s: int | None = None,
        method: str = "put",
        once: bool = False,
    ) -> dict[str, Any]:
        """Return the answer to a PUT, empty for 204.

        `op` is the operation id that the audit stream will show. With it, or with `once`, the request is never sent
        again once it left.
        """
        return self._request(method, path, body=body or {}, op=op, wrap_ttl_s=wrap_ttl_s, once=once or op is not None)

    def ask(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        op: str | None = None,
        is_lookup: bool = False,
        about: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return the data in the answer to a PUT that asks for something.

        `is_lookup` says that nothing is done, so that the request may be sent again in spite of its operation id.
        `about` are fields that the answer repeats from the request. Raises OutcomeUnknown for an answer without data,
        or about something else: it is not one to this request.
        """
        answer = self._request("put", path, body=body, op=op, once=op is not None and not is_lookup)
        data: dict[str, Any] = answer["data"]
        if any(data[name] != value for name, value in (about or {}).items()):
            raise OutcomeUnknown(f"Vault at {self.connection.address} answered {path} about something else")
        return data

    def capabilities(self, paths: Sequence[str]) -> dict[str, Sequence[str]]:
        """Return what this client's own token may do at each path."""
        found: dict[str, Sequence[str]] = {}
        for n in range(0, len(paths), _PATHS_AT_ONCE):
            asked = paths[n : n + _PATHS_AT_ONCE]
            answer = self.ask("sys/capabilities-self", {"paths": list(asked)})
            found |= {path: answer.get(path) or () for path in asked}
        return found

    def delete(self, path: str, *, op: str | None = None) -> None:
        self._request("delete", path, op=op, once=op is not None)

    def health(self) -> dict[str, Any]:
        """Return what `sys/health` says, in every state. Raises VaultUnavailable."""
        # every state is asked to answer 200, because the status code only repeats what the body says
        return self._request("get", "sys/health", query="?standbyok=true&sealedcode=200&uninitcode=200")

    def seal_status(self) -> dict[str, Any]:
        """Return what `sys/seal-status` says; it needs no token."""
        return self._request("get", "sys/seal-status")

    def leader(self) -> dict[str, Any]:
        """Return what `sys/leader` says: `is_self`, and `leader_address` if any."""
        return self._request("get", "sys/leader")

    def _or_none(
        self,
        method: str,
        path: str,
        *,
        op: str | None = None,
        most: int | None = None,
        query: str = "",
        once: bool = False,
    ) -> dict[str, Any] | None:
        try:
            return self._request(method, path, op=op, most=most, query=query, once=once)
        except VaultRejected as error:
            if error.status == HTTPStatus.NOT_FOUND and not error.reasons:
                return None
            raise

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        op: str | None = None,
        wrap_ttl_s: int | None = None,
        query: str = "",
        most: int | None = None,
        once: bool = False,
    ) -> dict[str, Any]:
        # every character of a name is a part of the name
        url = f"/v1/{quote(path, safe=_PLAIN)}{query}"
        deadline = time.monotonic() + _BUSY_PATIENCE_S
        busy = 0
        moved = renewed = False
        if self.connection.check:
            self.connection.check()
        while True:
            address = self._address()
            token = self._own_token()
            self._prepare(address, token)
            try:
                return self._request_once(
                    address, method, path, url, body=body, op=op, wrap_ttl_s=wrap_ttl_s, most=most, once=once
                )
            except VaultBusy:
                pause_s = doubled(_BUSY_PAUSE_S, busy, _BUSY_PATIENCE_S)
                if time.monotonic() + pause_s > deadline:
                    raise
                time.sleep(jittered(pause_s))
                busy += 1
            except VaultUnavailable as error:
                if moved or not self._is_elsewhere(address, error):
                    raise
                moved = True
            except VaultRefused as error:
                if renewed or not self._has_another(token, error):
                    raise self._of_whom(error) from None
                if once:
                    raise unknown(method, f"{error}: this token was over, and another was taken") from None
                renewed = True

    def _address(self) -> str:
        node = self.connection.node
        return node.address() if node else self.connection.address

    def _own_token(self) -> Secret | None:
        if self._token is None or isinstance(self._token, Secret):
            return self._token
        return self._token.token()

    def _is_elsewhere(self, address: str, error: VaultUnavailable) -> bool:
        """Return whether another node can take a request that was not done."""
        node = self.connection.node
        if node is None:
            return False
        if not isinstance(error, VaultNotServing):
            node.doubt(address)
            return False
        return node.lost(address)

    def _has_another(self, refused: Secret | None, error: VaultRefused) -> bool:
        """Return whether the refused token is over and was replaced."""
        if refused is None or refused is self._token or isinstance(error, VaultRejected):
            return False
        return not isinstance(self._token, Secret | None) and self._token.replaced(refused)

    def _of_whom(self, error: VaultRefused) -> VaultRefused:
        """Return the refusal as one of the worker's, if it is."""
        if isinstance(self._token, Secret | None) or not self._token.is_worker or isinstance(error, VaultRejected):
            return error
        return WorkerRefused(f"{error}, to the worker", method=error.method, path=error.path)

    def _prepare(self, address: str, token: Secret | None) -> None:
        """Set address and token; connect anew where certificates changed."""
        stamp = self._tls_stamp()
        if self._stamp != stamp:
            self._adapter.close()
            self._adapter = self._connected()
            self._stamp = stamp
        self._adapter.base_uri = address
        self._adapter.token = token.reveal() if token else ""

    def _request_once(
        self,
        address: str,
        method: str,
        path: str,
        url: str,
        *,
        body: Mapping[str, Any] | None,
        op: str | None,
        wrap_ttl_s: int | None,
        most: int | None,
        once: bool,
    ) -> dict[str, Any]:
        headers = {OP_HEADER: op} if op else {}
        # An operation id is for one act: a second act under it would count as a thief's.
        kwargs: dict[str, Any] = {"once": once or method not in READS}
        if body is not None:
            kwargs["json"] = dict(body)
        if wrap_ttl_s is not None:
            kwargs["wrap_ttl"] = f"{wrap_ttl_s}s"
        if most is not None:
            kwargs["most"] = most
        if self.connection.closing and self.connection.closing():
            kwargs["timeout"] = min(self.connection.timeout_s, _CLOSING_TIMEOUT_S)
        sent = time.monotonic()
        try:
            answer = self._adapter.request(method, url, headers=headers, raise_exception=False, **kwargs)
        except TooLong as error:
            if most is not None:
                raise too_long(path, most) from None
            raise unanswered(address, method, path, error, once=once) from None
        except (NotSent, NotTrusted, ResponseLost, ValueError) as error:
            raise unanswered(address, method, path, error, once=once) from None
        if self.connection.hears:
            self.connection.hears(answer.date, sent, time.monotonic())
        return understood(address, method, path, answer, once=once)
