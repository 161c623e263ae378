"""Vault through hvac alone, or urllib3 alone: what the same work costs without jitvault, and without hvac.

Everything is done with the root token, for which Vault checks no policy, through a token role and a policy of
this module's own: nothing here looks like jitvault's own credentials in the audit stream. Both make the bare side
faster or leave it as it is, never slower.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import hvac
import requests
import urllib3
from hvac.exceptions import InvalidRequest

from benchmarks.measure import milliseconds
from benchmarks.meter import Request

CREDENTIAL = "database/creds/app-readonly"
_ROLE = "bench"
_POLICY = f'path "{CREDENTIAL}" {{\n  capabilities = ["read"]\n}}\n'
_CREATE = "auth/token/create/"


class Urllib3:
    """As much of an hvac adapter as is used here, by urllib3 on one connection."""

    def __init__(self, address: str, token: str) -> None:
        parts = urlsplit(address)
        self._pool = urllib3.HTTPConnectionPool(parts.hostname or "", parts.port, maxsize=1, timeout=10, retries=False)
        self._headers = {"X-Vault-Token": token, "X-Vault-Request": "true"}

    def request(
        self, method: str, path: str, *, raise_exception: bool = True, wrap_ttl: str | None = None, **body: Any
    ) -> Any:
        headers = {**self._headers, **({"X-Vault-Wrap-TTL": wrap_ttl} if wrap_ttl else {})}
        answer = self._pool.request(method, path, headers=headers, **body)
        found = json.loads(answer.data) if answer.data else None
        if answer.status >= 400 and raise_exception:
            raise (InvalidRequest if answer.status == 400 else RuntimeError)(f"{method} {path}: {found}")
        return found

    def close(self) -> None:
        self._pool.close()


class Bare:
    """One hvac client on one connection, as lean as jitvault's own; or what `by` makes."""

    def __init__(self, address: str, root_token: str, by: Callable[[str, str], Any] | None = None) -> None:
        self._address = address
        self._root_token = root_token
        self._root = (by or _adapter)(address, root_token)
        self._numbers = itertools.count()
        self._send("PUT", f"sys/policies/acl/{_ROLE}", {"policy": _POLICY})
        body = {"orphan": True, "renewable": True, "token_no_default_policy": True, "allowed_policies": [_ROLE]}
        self._send("PUT", f"auth/token/roles/{_ROLE}", body)

    def replay(self, sent: Sequence[Request]) -> float:
        """Send the same requests again, one after the other; the milliseconds that takes.

        Only the create goes through another token role. Documents are written again with the same content.
        """

        def again() -> None:
            for request in sent:
                self.again(request)

        return milliseconds(again)

    def again(self, request: Request) -> Any:
        """Send one of them; gives its answer."""
        path, body = request.path, request.body
        if path.startswith(_CREATE):
            path, body = _CREATE + _ROLE, {**body, "policies": [_ROLE]}
        return self._send(request.method, path, body, wrap_ttl=request.wrap_ttl)

    def grant(self) -> float:
        """The three requests that a grant cannot do without; the milliseconds they take.

        A wrapped create, the look-up of what was made, and an inbox document that vanishes by itself.
        """
        inbox = f"bench/{next(self._numbers)}"
        return milliseconds(lambda: self.give(inbox))

    def give(self, inbox: str) -> Mapping[str, Any]:
        """The same for the document at `inbox` below the mount; gives what Vault says of the wrapping."""
        made = self._send("PUT", _CREATE + _ROLE, {"policies": [_ROLE], "ttl": "900s"}, wrap_ttl="120s")
        wrap: Mapping[str, Any] = made["wrap_info"]
        self._send("PUT", "auth/token/lookup-accessor", {"accessor": wrap["wrapped_accessor"]})
        self._send("PUT", f"jitvault-inbox/data/{inbox}", {"data": {"wrapping": [{"token": wrap["token"]}]}})
        return wrap

    def revoke(self) -> float:
        """Revoke a token by accessor, revoke its one PostgreSQL lease synchronously, look the lease up.

        The token and the lease are made before the milliseconds are counted, like a task's are.
        """
        auth = self._send("PUT", _CREATE + _ROLE, {"policies": [_ROLE], "ttl": "900s"})["auth"]
        holder = _adapter(self._address, auth["client_token"])
        lease = holder.request("GET", f"/v1/{CREDENTIAL}")["lease_id"]
        holder.close()
        return milliseconds(lambda: self.take_back(auth["accessor"], lease))

    def take_back(self, accessor: str, lease: str) -> None:
        """Three requests: the token, its lease, and that Vault does not have the lease any more."""
        self._send("PUT", "auth/token/revoke-accessor", {"accessor": accessor})
        self._send("PUT", f"sys/leases/revoke/{lease}", {"sync": True})
        with suppress(InvalidRequest):
            self._send("PUT", "sys/leases/lookup", {"lease_id": lease})
            raise RuntimeError("a lease that was revoked is still there")

    def check_gone(self, accessor: str) -> None:
        """One request: that Vault does not have the token any more."""
        with suppress(InvalidRequest):
            self._send("PUT", "auth/token/lookup-accessor", {"accessor": accessor})
            raise RuntimeError("a token that was revoked is still there")

    def leases(self, count: int) -> list[str]:
        """So many PostgreSQL leases of one token that lives on."""
        return [self._send("GET", CREDENTIAL)["lease_id"] for _ in range(count)]

    def revoker(self) -> Callable[[str], None]:
        """Revokes one lease synchronously, on a connection of its own."""
        own = _adapter(self._address, self._root_token)

        def revoke(lease: str) -> None:
            own.request("PUT", f"/v1/sys/leases/revoke/{lease}", json={"sync": True})

        return revoke

    def _send(self, method: str, path: str, body: Any = None, *, wrap_ttl: str | None = None) -> Any:
        options: dict[str, Any] = {} if body is None else {"json": body}
        found = wrap_ttl is not None or method not in ("GET", "LIST")
        # what is not there (404) is an answer like any other for a read
        return self._root.request(method, f"/v1/{path}", raise_exception=found, wrap_ttl=wrap_ttl, **options)


def _adapter(address: str, token: str) -> Any:
    session = requests.Session()
    # hvac's own session looks for proxies and .netrc at each request
    session.trust_env = False
    return hvac.Client(url=address, token=token, timeout=10, session=session).adapter
