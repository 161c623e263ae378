"""Turn Vault's answer, or its absence, into a value or an error.

The error says whether the act may have been done. The kinds of failures are in `client`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NoReturn

from jitvault.errors import (
    JitvaultError,
    OutcomeUnknown,
    VaultBusy,
    VaultNotServing,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
)
from jitvault.http.connection import Answer, BadRedirect, NotSent, NotTrusted, ResponseLost, TooLong

READS = frozenset({"get", "list"})
"""The methods that change nothing, except that a secrets engine may issue a lease for a GET."""
_MAX_REASON = 200
# what Vault adds to an engine's own message
_NOISE = re.compile(r"1 error occurred:|resp: \(\*logical\.Response\)\(nil\) err: |\*")
# where an answer has its content
_OBJECTS = ("data", "auth", "wrap_info")
# the message of Vault and OpenBao for a path below which nothing is mounted
_NO_ENGINE = "no handler for route"
_NOT_PROVISIONED = "This Vault is not provisioned yet: an administrator runs `jitvault init`."
_NOT_ENABLED = "Is it enabled, and is VAULT_ADDR the Vault that is meant? `bao secrets list` shows what there is."
_MADE_BY_INIT = frozenset({"jitvault", "jitvault-inbox", "jitvault-transit"})
# a standby's message while no node is active: docs/vault-facts.md, "Several nodes"
_NOBODY_ACTIVE = "local node not active but active cluster node not found"
# where Vault itself answers with one of these, nothing was done
_NOT_SERVING = (472, 473, 501, 503)
_REFUSALS = (400, 403, 404, 405, 413, 429, *_NOT_SERVING)


class Fields(dict[str, Any]):
    """An object in Vault's answer; a field that it lacks is an error.

    The error is that of a lost answer: what answers in Vault's place may leave out what Vault never does.
    """

    def __init__(self, found: Mapping[str, Any], missing: Callable[[str], VaultUnavailable]) -> None:
        super().__init__(found)
        self._missing = missing

    def __missing__(self, name: str) -> NoReturn:
        raise self._missing(name)


def understood(address: str, method: str, path: str, answer: Answer, *, once: bool = False) -> Fields:
    """Return the body of an answer, if Vault gave it.

    Something else may listen at Vault's address, or pass requests on and answer in Vault's form. So nothing that asks
    for the request to be sent again says what became of one that must not be done twice (`once`). Raises the error
    that the answer means.
    """
    status = answer.status_code
    try:
        found = _json_object(answer)
    except RecursionError:
        if method not in READS:
            raise _not_vault(address, method, path, status) from None
        # Vault stores whatever was written. A writer must not be able to stop the readers.
        why = "is nested too deeply to be read"
        raise VaultRejected(f"what is at {path} {why}", status=status, reasons=(why,)) from None
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.ACCEPTED) and method not in READS:
        return _fields(address, method, path, {"http_status_code": status})
    if status == HTTPStatus.OK and _is_vaults(path, found):
        return _fields(address, method, path, found)
    # a proxy in between answers 503 also for a Vault that died in the middle of a request, and 429 for its own limits
    if status in _REFUSALS and not isinstance(found.get("errors"), list) and "request_id" not in found:
        raise _not_vault(address, method, path, status)
    if status == HTTPStatus.OK or status < 400:
        raise _not_vault(address, method, path, status)
    error = _translated(address, method, path, status, _reasons(found))
    raise unknown(method, str(error)) if once and isinstance(error, VaultBusy | VaultNotServing) else error


def _fields(address: str, method: str, path: str, found: Mapping[str, Any]) -> Fields:
    """Return an answer and its objects; what is null there is missing."""

    def missing(name: str) -> VaultUnavailable:
        return unknown(method, f"the answer of Vault at {address} to {path} has no {name}")

    objects = {name: Fields(found[name], missing) for name in _OBJECTS if isinstance(found.get(name), dict)}
    rest = {name: value for name, value in found.items() if name not in _OBJECTS or value is not None}
    return Fields({**rest, **objects}, missing)


def unknown(method: str, message: str) -> VaultUnavailable:
    """Return the error for a request that may have been carried out.

    A read changes nothing, whatever became of it.
    """
    return (VaultUnavailable if method in READS else OutcomeUnknown)(message)


def too_long(path: str, most: int) -> VaultRejected:
    """Return the error for an answer longer than the caller wants to read."""
    why = f"is larger than {most // 1024} KiB and is not read"
    return VaultRejected(f"what is at {path} {why}", status=HTTPStatus.OK, reasons=(why,))


def unanswered(address: str, method: str, path: str, error: Exception, *, once: bool = False) -> VaultUnavailable:
    """Return the error for a request that was not answered.

    `once` as in `understood`.
    """
    if isinstance(error, NotTrusted):
        message = f"there is no TLS with Vault at {address}: one side does not trust the other's certificate"
        if once and error.left:
            return unknown(method, message)
        return VaultNotServing(
            message,
            hint="Check VAULT_CACERT or VAULT_CAPATH, VAULT_TLS_SERVER_NAME, and the client's certificate if Vault "
            "asks for one.",
        )
    if isinstance(error, BadRedirect):
        return VaultNotServing(
            f"the server at {address} redirects {error}",
            hint="Set VAULT_ADDR to Vault's own address, without a path, and check any proxy between here and Vault.",
        )
    if isinstance(error, NotSent):
        return VaultNotServing(f"Vault at {address} does not answer ({error})")
    # the message of any other error can repeat what was to be sent, such as a token
    why = str(error) if isinstance(error, ResponseLost | TooLong) else type(error).__name__
    return unknown(method, f"the answer of Vault to {path} was lost ({why})")


def _translated(address: str, method: str, path: str, status: int, reasons: tuple[str, ...]) -> JitvaultError:
    """Return the error for one of Vault's own answers."""
    reason = "; ".join(reasons) or "no reason given"
    if status == HTTPStatus.FORBIDDEN:
        return VaultRefused(f"Vault refused {path}: {reason}", method=method, path=path)
    if status == HTTPStatus.NOT_FOUND and any(each.startswith(_NO_ENGINE) for each in reasons):
        mount, _, _ = path.partition("/")
        return VaultRejected(
            f"nothing is mounted at {path}",
            status=status,
            reasons=reasons,
            hint=_NOT_PROVISIONED if mount in _MADE_BY_INIT else _NOT_ENABLED,
        )
    # 413: a body that was too large was not even read
    if status in (400, 404, 405, 413):
        return VaultRejected(f"Vault rejected {path}: {reason}", status=status, reasons=reasons)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return VaultBusy(f"Vault at {address} takes no more requests for the moment (HTTP 429)")
    if status in _NOT_SERVING:
        why = "it is sealed or starting" if status == HTTPStatus.SERVICE_UNAVAILABLE else f"HTTP {status}"
        return VaultNotServing(f"Vault at {address} does not take requests: {why}", answers=True)
    if reasons == (_NOBODY_ACTIVE,):
        return VaultNotServing(f"Vault at {address} does not take requests: no node is active", answers=True)
    return OutcomeUnknown(f"Vault at {address} answered {path} with HTTP {status}: {reason}")


def _not_vault(address: str, method: str, path: str, status: int) -> VaultUnavailable:
    """Return the error for an answer that Vault cannot have given."""
    message = f"what answers {path} at {address} is not Vault (HTTP {status})"
    if method in READS:
        return VaultUnavailable(message, hint="Check VAULT_ADDR, and any proxy between here and Vault.")
    return OutcomeUnknown(message)


def _json_object(answer: Answer) -> dict[str, Any]:
    """Return the JSON object in an answer, empty for anything else."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_vaults(path: str, found: Mapping[str, Any]) -> bool:
    """Return whether the body of a 200 has the form of Vault's answers.

    A request id, and something with it.
    """
    if path.startswith("sys/health") or path == "sys/seal-status":
        return "sealed" in found
    if path == "sys/leader":
        return "ha_enabled" in found
    inside = [found.get(name) for name in _OBJECTS]
    # the answer to a lease renewal has only the lease's id
    is_bare = bool(found.get("warnings") or found.get("lease_id"))
    return "request_id" in found and (any(isinstance(i, dict) for i in inside) or is_bare)


def _reasons(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return Vault's own reasons, one bounded line each.

    Nothing else of the body is returned.
    """
    errors = found.get("errors")
    if not isinstance(errors, list):
        return ()
    cleaned = (" ".join(_NOISE.sub(" ", str(r)).split()) for r in errors)
    return tuple(reason[:_MAX_REASON] for reason in cleaned if reason)
