"""What Vault answered, or did not: one value, or the error that says whether the act may have been done.

The kinds of failures are in `client`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from jitvault.errors import (
    JitvaultError,
    OutcomeUnknown,
    VaultBusy,
    VaultNotServing,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
)
from jitvault.vault.http_transport import Answer
from jitvault.vault.wire import NotSent, NotTrusted, ResponseLost, TooLong

READS = frozenset({"get", "list"})
"""The methods by which nothing is changed, unless a secrets engine makes a lease for one."""
_MAX_REASON = 200
# what Vault puts around an engine's own words
_NOISE = re.compile(r"1 error occurred:|resp: \(\*logical\.Response\)\(nil\) err: |\*")
# a standby's words while nobody is active: docs/vault-facts.md, "Several nodes"
_NOBODY_ACTIVE = "local node not active but active cluster node not found"
# what Vault says in these, and nobody else, says that nothing was done
_NOT_SERVING = (472, 473, 501, 503)
_REFUSALS = (400, 403, 404, 405, 413, *_NOT_SERVING)


def understood(address: str, method: str, path: str, answer: Answer) -> dict[str, Any]:
    """The answer, if it is one that Vault gives: something else may listen at its address. Raises what it means."""
    status = answer.status_code
    try:
        found = _json_object(answer)
    except RecursionError:
        # Vault keeps and gives whatever somebody wrote: the one who may write there must not stop who reads
        why = "is nested too deeply to be read"
        raise VaultRejected(f"what is at {path} {why}", status=status, reasons=(why,)) from None
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.ACCEPTED) and method not in READS:
        return {"http_status_code": status}
    if status == HTTPStatus.OK and _is_vaults(path, found):
        return found
    # what stands between says 503 also of a Vault that died in the middle of a request
    if status in _REFUSALS and not isinstance(found.get("errors"), list) and "request_id" not in found:
        raise _strange(address, method, path, status)
    if status == HTTPStatus.OK or status < 400:
        raise _strange(address, method, path, status)
    raise _translated(address, path, status, _reasons(found))


def too_long(path: str, most: int) -> VaultRejected:
    """What it means that there is more at a path than somebody wants to read of it."""
    why = f"is larger than {most // 1024} KiB and is not read"
    return VaultRejected(f"what is at {path} {why}", status=HTTPStatus.OK, reasons=(why,))


def unanswered(address: str, method: str, path: str, error: Exception) -> VaultUnavailable:
    """What it means that there was no answer."""
    if isinstance(error, NotTrusted):
        return VaultNotServing(
            f"there is no TLS with Vault at {address} that both sides believe",
            hint="Check VAULT_CACERT or VAULT_CAPATH, VAULT_TLS_SERVER_NAME, and the client's certificate if Vault "
            "asks for one.",
        )
    if isinstance(error, NotSent):
        return VaultNotServing(f"Vault at {address} does not answer ({error})")
    # of a read that was lost nothing can have been done
    lost = VaultUnavailable if method in READS else OutcomeUnknown
    # what else there is can repeat what was to be sent, a token for one
    why = str(error) if isinstance(error, ResponseLost | TooLong) else type(error).__name__
    return lost(f"the answer of Vault to {path} was lost ({why})")


def _translated(address: str, path: str, status: int, reasons: tuple[str, ...]) -> JitvaultError:
    said = "; ".join(reasons) or "no reason given"
    if status == HTTPStatus.FORBIDDEN:
        return VaultRefused(f"Vault refused {path}: {said}")
    # a body that was too large was not even read
    if status in (400, 404, 405, 413):
        return VaultRejected(f"Vault rejected {path}: {said}", status=status, reasons=reasons)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return VaultBusy(f"Vault at {address} takes no more requests for the moment (HTTP 429)")
    if status in _NOT_SERVING:
        why = "it is sealed or starting" if status == HTTPStatus.SERVICE_UNAVAILABLE else f"HTTP {status}"
        return VaultNotServing(f"Vault at {address} does not take requests: {why}", answers=True)
    if reasons == (_NOBODY_ACTIVE,):
        return VaultNotServing(f"Vault at {address} does not take requests: no node is active", answers=True)
    return OutcomeUnknown(f"Vault at {address} answered {path} with HTTP {status}: {said}")


def _strange(address: str, method: str, path: str, status: int) -> VaultUnavailable:
    message = f"what answers {path} at {address} is not Vault (HTTP {status})"
    if method in READS:
        return VaultUnavailable(message, hint="Check VAULT_ADDR, and what stands between here and Vault.")
    return OutcomeUnknown(message)


def _json_object(answer: Answer) -> dict[str, Any]:
    """The JSON object in an answer; empty for anything else."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_vaults(path: str, found: Mapping[str, Any]) -> bool:
    """Whether a 200 has what Vault's answers have: a request id, and something under it."""
    if path.startswith("sys/health") or path == "sys/seal-status":
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
    cleaned = (" ".join(_NOISE.sub(" ", str(r)).split()) for r in errors)
    return tuple(reason[:_MAX_REASON] for reason in cleaned if reason)
