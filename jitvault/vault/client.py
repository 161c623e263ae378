"""The one way to Vault: typed requests through hvac, with every failure translated.

What a caller needs to know of a failure is whether the act may have been done:

    VaultNotServing    not sent, or refused before anything was done (connection refused, sealed, 503, no active node)
    VaultUnavailable   a read whose answer was lost, or something that is not Vault
    OutcomeUnknown     sent, and the answer was lost or is a 500: docs/vault-facts.md, "Audit devices": a 500 can
                       mean that the act was done and only its audit line could not be written
    VaultRefused       403
    VaultRejected      400 or 404, with Vault's reasons

There is no automatic retry of what may have been done: the ledger retries, after it has looked. Three things were
surely not done and are sent again: what a rate limit kept out, for a moment; what a node did not take that is not the
active one any more, once, to the one that is (`Node`); what was refused because the worker's token is over, once, with
a new one (`Bearer`). A Vault error body never reaches a message unless it is one of Vault's own short reasons, since a
body can echo what was sent.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from hvac.adapters import Adapter, RawAdapter

from jitvault.errors import VaultBusy, VaultNotServing, VaultRefused, VaultRejected, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.vault.http_transport import Session
from jitvault.vault.responses import READS, too_long, unanswered, understood
from jitvault.vault.tls import Tls
from jitvault.vault.wire import NotSent, NotTrusted, ResponseLost, TooLong

OP_HEADER = "X-Jitvault-Op"
_CLOSING_TIMEOUT_S = 2
_BUSY_PATIENCE_S, _BUSY_PAUSE_S = 2.5, 0.25
# what stands in a path for itself
_PLAIN = "/:@!$&'()*+,;=~"


class Node(Protocol):
    """Which node of a cluster to speak to. Shared between threads."""

    def address(self) -> str:
        """Where the active node is, as far as that is known."""

    def lost(self, address: str) -> bool:
        """That one takes no requests: whether another one, or the same anew, is active now."""

    def doubt(self, address: str) -> None:
        """That one's answer was lost: look again before the next request."""


class Bearer(Protocol):
    """A token that is renewed and replaced. Shared between threads."""

    def token(self) -> Secret: ...

    def replaced(self, refused: Secret) -> bool:
        """That one was refused: whether there is another one now. False where it is valid and may not do this."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where Vault is and how to speak to it. A request is over after twice `timeout_s`, which stays below the ledger's
    claim of 30 s.

    Once `closing` says so, because this process is to end, no answer is waited for longer than 2 s.
    """

    address: str
    namespace: str | None = None
    tls: Tls = field(default_factory=Tls)
    timeout_s: int = 10
    closing: Callable[[], bool] | None = field(default=None, compare=False, repr=False)
    node: Node | None = field(default=None, compare=False, repr=False)
    """Where one of several nodes is to be spoken to; `address` otherwise."""
    hears: Callable[[str, float, float], None] | None = field(default=None, compare=False, repr=False)
    """Whom to tell the `Date` of each answer, with the monotonic times before its request and after it."""
    check: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    """Raises where nothing may be sent to this server; asked before each request."""

    @property
    def is_tls(self) -> bool:
        return urlsplit(self.address).scheme == "https"


class Vault:
    """One identity's connection. Not shared between threads."""

    def __init__(self, connection: Connection, token: Secret | Bearer | None) -> None:
        self.connection = connection
        self.has_token = token is not None
        self._token = token
        self._stamp = self._tls_stamp()
        self._adapter = self._connected()

    def _connected(self) -> Adapter[Any]:
        is_tls = self.connection.is_tls
        session: Any = Session(**(self.connection.tls.options() if is_tls else {}))
        # answers are looked at here, whole: JSONAdapter gives anything that is JSON as if it were Vault's; and a client
        # around the adapter would look into the environment for what it was not given
        return RawAdapter(
            base_uri=self.connection.address,
            namespace=self.connection.namespace,
            timeout=self.connection.timeout_s,
            session=session,
        )

    def with_token(self, token: Secret) -> Vault:
        """The same Vault as somebody else."""
        return Vault(self.connection, token)

    def at_root(self) -> Vault:
        """The same identity in the root namespace."""
        return (
            self if self.connection.namespace is None else Vault(replace(self.connection, namespace=None), self._token)
        )

    def close(self) -> None:
        self._adapter.close()

    def _tls_stamp(self) -> tuple[int, ...]:
        return self.connection.tls.stamp() if self.connection.is_tls else ()

    def read(
        self, path: str, *, op: str | None = None, most: int | None = None, query: str = ""
    ) -> dict[str, Any] | None:
        """The answer of a GET, or None where Vault has nothing there (404).

        An answer of more than `most` bytes is not read to its end: raises VaultRejected with the status 200.
        """
        return self._or_none("get", path, op=op, most=most, query=query)

    def list(self, path: str, *, op: str | None = None) -> list[str]:
        """The keys below `path`, empty where there is nothing."""
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
    ) -> dict[str, Any]:
        """The answer of a PUT; empty for 204. `op` is the operation id that the audit stream will show."""
        return self._request(method, path, body=body or {}, op=op, wrap_ttl_s=wrap_ttl_s)

    def delete(self, path: str, *, op: str | None = None) -> None:
        self._request("delete", path, op=op)

    def health(self) -> dict[str, Any]:
        """What `sys/health` says, whatever the state. Raises VaultUnavailable when nothing sensible answers."""
        # the status code only repeats what the body says, so every state is asked to answer 200
        return self._request("get", "sys/health", query="?standbyok=true&sealedcode=200&uninitcode=200")

    def seal_status(self) -> dict[str, Any]:
        """What `sys/seal-status` says to anybody, whatever the state."""
        return self._request("get", "sys/seal-status")

    def leader(self) -> dict[str, Any]:
        """What `sys/leader` says: `is_self`, and `leader_address` where there is one."""
        return self._request("get", "sys/leader")

    def _or_none(
        self, method: str, path: str, *, op: str | None = None, most: int | None = None, query: str = ""
    ) -> dict[str, Any] | None:
        try:
            return self._request(method, path, op=op, most=most, query=query)
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
    ) -> dict[str, Any]:
        # whatever stands in a name is part of that name, as it is
        url = f"/v1/{quote(path, safe=_PLAIN)}{query}"
        deadline, pause_s = time.monotonic() + _BUSY_PATIENCE_S, _BUSY_PAUSE_S
        moved = renewed = False
        if self.connection.check:
            self.connection.check()
        while True:
            address, token = self._address(), self._own_token()
            self._prepare(address, token)
            try:
                return self._request_once(
                    address, method, path, url, body=body, op=op, wrap_ttl_s=wrap_ttl_s, most=most
                )
            except VaultBusy:
                if time.monotonic() + pause_s > deadline:
                    raise
                time.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
                pause_s *= 2
            except VaultUnavailable as error:
                if moved or not self._is_elsewhere(address, error):
                    raise
                moved = True
            except VaultRefused as error:
                if renewed or not self._has_another(token, error):
                    raise
                renewed = True

    def _address(self) -> str:
        node = self.connection.node
        return node.address() if node else self.connection.address

    def _own_token(self) -> Secret | None:
        return self._token if self._token is None or isinstance(self._token, Secret) else self._token.token()

    def _is_elsewhere(self, address: str, error: VaultUnavailable) -> bool:
        """Whether what was surely not done at `address` can be sent to another node."""
        node = self.connection.node
        if node is None:
            return False
        if not isinstance(error, VaultNotServing):
            node.doubt(address)
            return False
        return node.lost(address)

    def _has_another(self, refused: Secret | None, error: VaultRefused) -> bool:
        """Whether the worker has another token now, since the one that was refused is over."""
        if refused is None or refused is self._token or isinstance(error, VaultRejected):
            return False
        return not isinstance(self._token, Secret | None) and self._token.replaced(refused)

    def _prepare(self, address: str, token: Secret | None) -> None:
        """Who asks, and whom; with new connections where the certificates were replaced."""
        if self._stamp != (stamp := self._tls_stamp()):
            self._adapter.close()
            self._stamp, self._adapter = stamp, self._connected()
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
    ) -> dict[str, Any]:
        headers = {OP_HEADER: op} if op else {}
        # two acts under one operation id are a thief's
        kwargs: dict[str, Any] = {"once": op is not None or method not in READS}
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
            raise unanswered(address, method, path, error) from None
        except (NotSent, NotTrusted, ResponseLost, ValueError) as error:
            raise unanswered(address, method, path, error) from None
        if self.connection.hears:
            self.connection.hears(answer.date, sent, time.monotonic())
        return understood(address, method, path, answer)
