"""The one way to Vault: typed requests through hvac, with every failure translated.

What a caller needs to know of a failure is whether the act may have been done:

    VaultUnavailable   not sent, or refused before anything was done (connection refused, sealed, 429, 503)
    OutcomeUnknown     sent, and the answer was lost or is a 500: docs/vault-facts.md, "Audit devices": a 500 can
                       mean that the act was done and only its audit line could not be written
    VaultRefused       403
    VaultRejected      400 or 404, with Vault's reasons

There is no automatic retry of what may have been done: the ledger retries, after it has looked. What a rate limit kept
out was not done, and is sent again for a moment. A Vault error body never reaches a
message unless it is one of Vault's own short reasons, since a body can echo what was sent.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import hvac
import requests
from hvac.adapters import RawAdapter

from jitvault.domain.secret import Secret
from jitvault.errors import (
    JitvaultError,
    OutcomeUnknown,
    VaultBusy,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
)

OP_HEADER = "X-Jitvault-Op"
_MAX_REASON = 200
_LEADER_TIMEOUT_S = 3
_CLOSING_TIMEOUT_S = 2
_BUSY_PATIENCE_S, _BUSY_PAUSE_S = 2.5, 0.25


@dataclass(frozen=True, slots=True)
class Connection:
    """Where Vault is and how to speak to it. `timeout_s` stays below the ledger's claim of 30 s.

    Once `closing` says so, because this process is to end, no answer is waited for longer than 2 s.
    """

    address: str
    namespace: str | None = None
    ca_file: str | None = None
    timeout_s: int = 10
    closing: Callable[[], bool] | None = None


def at_active_node(connection: Connection) -> Connection:
    """The same Vault at the address of its active node; unchanged where that cannot be found out or reached.

    A standby may answer reads itself: a moment late, and in an audit file of its own (docs/vault-facts.md, "Several
    nodes"). Vault names the address, as it does when it redirects; one with less protection than ours is not taken.
    """
    address = _leader(connection)
    if address is None or urlsplit(address).scheme != urlsplit(connection.address).scheme:
        return connection
    there = replace(connection, address=address)
    return there if _leader(there) == address else connection


def _leader(connection: Connection) -> str | None:
    """Where the node at `connection` says the active node is; None where it does not say so."""
    nobody = Vault(replace(connection, namespace=None, timeout_s=_LEADER_TIMEOUT_S), None)
    try:
        found = nobody.leader()
    except JitvaultError:
        return None
    finally:
        nobody.close()
    address = found.get("leader_address")
    if found.get("is_self") or not isinstance(address, str):
        return connection.address
    return address.rstrip("/") or None


class Vault:
    """One identity's connection. Not shared between threads."""

    def __init__(self, connection: Connection, token: Secret | None) -> None:
        session = requests.Session()
        session.verify = connection.ca_file or True
        session.trust_env = False
        self.connection = connection
        self.has_token = token is not None
        self._token = token
        self._adapter = hvac.Client(
            url=connection.address,
            # hvac takes None as "look into the environment and the home directory"
            token=token.reveal() if token else "",
            verify=connection.ca_file or True,
            namespace=connection.namespace,
            timeout=connection.timeout_s,
            session=session,
            # answers are looked at here, whole: JSONAdapter gives anything that is JSON as if it were Vault's
            adapter=RawAdapter,
        ).adapter

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

    def read(self, path: str, *, op: str | None = None) -> dict[str, Any] | None:
        """The answer of a GET, or None where Vault has nothing there (404)."""
        return self._or_none("get", path, op=op)

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
        params = "standbyok=true&sealedcode=200&uninitcode=200"
        return self._request("get", f"sys/health?{params}")

    def leader(self) -> dict[str, Any]:
        """What `sys/leader` says: `is_self`, and `leader_address` where there is one."""
        return self._request("get", "sys/leader")

    def _or_none(self, method: str, path: str, *, op: str | None = None) -> dict[str, Any] | None:
        try:
            return self._request(method, path, op=op)
        except VaultRejected as error:
            if error.status == requests.codes.not_found and not error.reasons:
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
    ) -> dict[str, Any]:
        deadline, pause_s = time.monotonic() + _BUSY_PATIENCE_S, _BUSY_PAUSE_S
        while True:
            try:
                return self._request_once(method, path, body=body, op=op, wrap_ttl_s=wrap_ttl_s)
            except VaultBusy:
                if time.monotonic() + pause_s > deadline:
                    raise
            time.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
            pause_s *= 2

    def _request_once(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        op: str | None,
        wrap_ttl_s: int | None,
    ) -> dict[str, Any]:
        headers = {OP_HEADER: op} if op else {}
        kwargs: dict[str, Any] = {} if body is None else {"json": dict(body)}
        if wrap_ttl_s is not None:
            kwargs["wrap_ttl"] = f"{wrap_ttl_s}s"
        if self.connection.closing and self.connection.closing():
            kwargs["timeout"] = min(self.connection.timeout_s, _CLOSING_TIMEOUT_S)
        try:
            answer = self._adapter.request(method, f"/v1/{path}", headers=headers, raise_exception=False, **kwargs)
        except (
            requests.ConnectTimeout,
            requests.exceptions.SSLError,
            requests.exceptions.InvalidURL,
        ) as error:
            raise self._down(error) from None
        except requests.ConnectionError as error:
            raise self._down(error) if _never_sent(error) else self._lost(method, path, error) from None
        except (requests.RequestException, ValueError) as error:
            raise self._lost(method, path, error) from None
        return self._understood(method, path, answer)

    def _understood(self, method: str, path: str, answer: requests.Response) -> dict[str, Any]:
        """The answer, if it is one that Vault gives: something else may listen at its address."""
        status, found = answer.status_code, _json_object(answer)
        if status in (requests.codes.no_content, requests.codes.accepted) and method not in ("get", "list"):
            return {"http_status_code": status}
        if status == requests.codes.ok and _is_vaults(path, found):
            return found
        if status in (400, 403, 404, 405) and not isinstance(found.get("errors"), list) and "request_id" not in found:
            raise self._strange(method, path, status)
        if status == requests.codes.ok or status < 400:
            raise self._strange(method, path, status)
        raise self._translated(path, status, _reasons(found))

    def _translated(self, path: str, status: int, reasons: tuple[str, ...]) -> JitvaultError:
        said = "; ".join(reasons) or "no reason given"
        if status == requests.codes.forbidden:
            return VaultRefused(f"Vault refused {path}: {said}")
        if status in (400, 404, 405):
            return VaultRejected(f"Vault rejected {path}: {said}", status=status, reasons=reasons)
        if status == requests.codes.too_many_requests:
            return VaultBusy(f"Vault at {self.connection.address} takes no more requests for the moment (HTTP 429)")
        if status in (472, 473, 501, 503):
            why = "it is sealed or starting" if status == requests.codes.unavailable else f"HTTP {status}"
            return VaultUnavailable(f"Vault at {self.connection.address} does not take requests: {why}")
        return OutcomeUnknown(f"Vault at {self.connection.address} answered {path} with HTTP {status}: {said}")

    def _strange(self, method: str, path: str, status: int) -> VaultUnavailable:
        message = f"what answers {path} at {self.connection.address} is not Vault (HTTP {status})"
        if method in ("get", "list"):
            return VaultUnavailable(message, hint="Check VAULT_ADDR, and what stands between here and Vault.")
        return OutcomeUnknown(message)

    def _down(self, error: Exception) -> VaultUnavailable:
        return VaultUnavailable(f"Vault at {self.connection.address} does not answer ({type(error).__name__})")

    def _lost(self, method: str, path: str, error: Exception) -> VaultUnavailable:
        """Of a read that was lost nothing can have been done."""
        kind = VaultUnavailable if method in ("get", "list") else OutcomeUnknown
        return kind(f"the answer of Vault to {path} was lost ({type(error).__name__})")


def _never_sent(error: requests.ConnectionError) -> bool:
    """Whether the connection itself failed, so that no byte of the request was sent."""
    return "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error)


def _json_object(answer: requests.Response) -> dict[str, Any]:
    """The JSON object in an answer; empty for anything else."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_vaults(path: str, found: Mapping[str, Any]) -> bool:
    """Whether a 200 has what Vault's answers have: a request id, and something under it."""
    if path.startswith("sys/health"):
        return "sealed" in found
    if path == "sys/leader":
        return "ha_enabled" in found
    inside = (found.get("data"), found.get("auth"), found.get("wrap_info"))
    # a renewed lease's answer has nothing under it but the lease
    said = bool(found.get("warnings") or found.get("lease_id"))
    return "request_id" in found and (any(isinstance(i, dict) for i in inside) or said)


def _reasons(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Vault's own reasons, one line and a bounded length each; nothing else of the body."""
    errors = found.get("errors")
    if not isinstance(errors, list):
        return ()
    cleaned = (" ".join(str(r).replace("1 error occurred:", "").replace("*", " ").split()) for r in errors)
    return tuple(reason[:_MAX_REASON] for reason in cleaned if reason)
