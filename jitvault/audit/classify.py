"""Classify an audit entry: return the observation that it gives, if any.

Shapes: docs/vault-facts.md, "Audit entries"; what makes a revocation look done: "Revocation".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any

from msgspec import structs

from jitvault.audit.entry import Entry, Response
from jitvault.audit.entry_facts import (
    OF_WORKER_PATHS,
    REVOKE_BY_TOKEN,
    SIGNATURES,
    WRAPPING_POLICY,
    derived_token,
    error_of,
    has_failed,
    has_hashed_accessor,
    is_publication,
    is_refused,
    is_signature,
    is_spent,
    is_task_token,
    is_unwrap,
    named_token,
    operation_of,
    text_of,
)
from jitvault.audit.hazard_paths import (
    AUDIT_DEVICES,
    MAX_PATH,
    PATH_END,
    READING,
    is_engine_hazard,
    is_hazard,
    is_unprivileged,
)
from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.observation_detail import detail_of
from jitvault.documents.paths import document_at
from jitvault.formats.shorten import shorten
from jitvault.model.vault_access import ACCESS_POLICY

_OF_A_TOKEN = frozenset(
    {Kind.UNWRAPPED, Kind.UNWRAP_REFUSED, Kind.REWRAPPED, Kind.CUBBYHOLE_READ, Kind.DENIED, Kind.REFUSED}
)
_CREATE = "auth/token/create/jitvault-"
_AUDIT_HASH = "sys/audit-hash/"
_DOCUMENTS = ("jitvault/data/requests/", "jitvault/data/decisions/", "jitvault/data/freezes/")
# The short paths are gone from OpenBao, and still exist in Vault.
_REVOKE_LEASE = re.compile(r"sys/(?:leases/)?revoke(?:/(?P<lease>.*)|$)", re.DOTALL)
_RENEW_LEASE = re.compile(r"sys/(?:leases/)?renew(?:/(?P<lease>.*)|$)", re.DOTALL)
MAX_ERROR = 1024


def may_matter(path: str, operation: str = "") -> bool:
    """Return whether a line can be an observation by its path and operation.

    All other lines can be one only by the token that acted. The answer is true for everything that `observe` looks
    at by path; a reader decodes only such lines in full.
    """
    if path.startswith(_PATHS):
        return True
    return operation not in READING and (path.startswith(_WRITTEN_PATHS) or is_engine_hazard(path))


def may_matter_by_token(policies: Iterable[str]) -> bool:
    """Return whether a line can be an observation by the caller's policies.

    It can for a task token and for a wrapping token.
    """
    return any(policy.startswith(ACCESS_POLICY) or policy == WRAPPING_POLICY for policy in policies)


def observe(entry: Entry, *, line: str, place: Place, namespace: str = "") -> Observation | None:
    """Return the observation that `entry` gives, or None.

    `namespace` is jitvault's own: the same path in another namespace is not jitvault's. Raises OverflowError for a
    time that UTC cannot hold.
    """
    whole, entry = entry, _shortened(entry)
    kind, subject = (Kind.UNWRAP_REFUSED, "") if is_spent(entry) else _classify(entry)
    if kind is None or not (_is_in_our_namespace(entry, namespace) or _is_namespace_free(entry, kind)):
        return None
    request = entry.request
    return Observation(
        line=line,
        place=place,
        at=entry.time.astimezone(UTC),
        closing=entry.type == "response",
        kind=kind,
        request_id=shorten(request.id, 64),
        path=shorten(whole.request.path, 1024),
        subject=shorten(subject, 512),
        actor=shorten(entry.auth.accessor if entry.auth else "", 80),
        op=operation_of(request),
        remote=shorten(request.remote_address, 64),
        failed=has_failed(entry),
        error=shorten(error_of(whole), 255),
        token=shorten(named_token(entry, kind), 80),
        alias=shorten(derived_token(entry, kind), 80),
        detail=detail_of(entry, kind),
    )


def _shortened(entry: Entry) -> Entry:
    """Cut the texts that clients can make long.

    This comes before any expression reads them. The text itself shows each cut.
    """
    request = entry.request
    if len(request.path) > MAX_PATH:
        # the end of the path is kept as well: the part that names an ACME request is there
        path = shorten(request.path, MAX_PATH - PATH_END) + request.path[-PATH_END:]
        request = structs.replace(request, path=path)
    if request is entry.request and len(entry.error) <= MAX_ERROR:
        return entry
    return structs.replace(entry, request=request, error=shorten(entry.error, MAX_ERROR))


def _is_in_our_namespace(entry: Entry, namespace: str) -> bool:
    """Return whether the line is of jitvault's namespace.

    Audit devices belong to the root namespace, and so do canaries. A hazard in a namespace above jitvault's
    concerns it as well.
    """
    there = entry.request.namespace.path.strip("/") if entry.request.namespace else ""
    here = namespace.strip("/")
    if there == here:
        return True
    if not there and entry.request.path.startswith(_AUDIT_HASH):
        return True
    return (not there or f"{here}/".startswith(f"{there}/")) and is_hazard(entry.request)


def _is_namespace_free(entry: Entry, kind: Kind) -> bool:
    """Return whether the line is about a token that may act in any namespace.

    The holder of a token can send it to any namespace, and a wrapping can be opened by a token of another namespace
    that names the wrapping token in the body.
    """
    return kind in _OF_A_TOKEN or (kind is Kind.LEASE_ISSUED and is_unwrap(entry))


def _classify(entry: Entry) -> tuple[Kind | None, str]:
    request, path = entry.request, entry.request.path
    data = request.data or {}
    if request.operation == "help":
        return _help_request(entry)
    if path.startswith(_AUDIT_HASH):
        return Kind.CANARY, text_of(data.get("input")) if has_hashed_accessor(entry.auth) else ""
    if path.startswith(_CREATE):
        wrap = entry.response.wrap_info if entry.response else None
        return Kind.TOKEN_CREATED, wrap.wrapped_accessor if wrap else ""
    if path in ("sys/wrapping/unwrap", "sys/wrapping/rewrap", "cubbyhole/response"):
        return _unwrap(entry)
    if act := _renewed_lease(entry) or _credential_act(path, data) or _renewed_by_name(entry):
        return act
    if is_hazard(request) and not is_refused(entry) and not is_unprivileged(entry):
        return Kind.HAZARD, ""
    if path.startswith(_DOCUMENTS) and request.operation in ("create", "update") and entry.type == "response":
        return (Kind.WRITTEN, path.partition("/data/")[2]) if not has_failed(entry) else (None, "")
    if entry.type == "response" and (act := _workers_act(entry)):
        return act
    if is_task_token(entry.auth):
        return _task_act(entry)
    if entry.error and request.client_token and not (entry.auth and entry.auth.accessor):
        return Kind.REFUSED, ""
    if path in REVOKE_BY_TOKEN:
        # the line shows whose token it was by the token's HMAC alone
        return Kind.TOKEN_REVOKED, ""
    return (Kind.OWN, "") if operation_of(request) else (None, "")


def _help_request(entry: Entry) -> tuple[Kind | None, str]:
    """Classify a help request, which does nothing, whatever its path.

    Every caller may ask, for most paths without a policy.
    """
    if entry.auth and is_task_token(entry.auth) and is_refused(entry):
        return Kind.DENIED, entry.auth.accessor
    return None, ""


_BY_DATA = {
    "sys/leases/lookup": (Kind.LEASE_LOOKUP, "lease_id"),
    "auth/token/revoke-accessor": (Kind.TOKEN_REVOKED, "accessor"),
    "auth/token/lookup-accessor": (Kind.TOKEN_LOOKUP, "accessor"),
    "auth/token/renew-accessor": (Kind.RENEWED, "accessor"),
}


def _credential_act(path: str, data: Mapping[str, Any]) -> tuple[Kind, str] | None:
    """Return the act on a credential that the request names in path or data."""
    if path in _BY_DATA:
        kind, key = _BY_DATA[path]
        return kind, text_of(data.get(key))
    for pattern, kind in ((_REVOKE_LEASE, Kind.LEASE_REVOKED), (_RENEW_LEASE, Kind.RENEWED)):
        if named := pattern.match(path):
            # A lease id in the body, which is shown as an HMAC, overrides the one in the path. What is no text names
            # nobody; OpenBao 2.7.2 refuses it before it writes a line.
            is_overridden = data.get("lease_id") not in (None, "")
            return kind, text_of(data.get("lease_id")) if is_overridden else named["lease"] or ""
    return None


def _renewed_lease(entry: Entry) -> tuple[Kind, str] | None:
    """Return the renewal of a lease by the lease id in its answer.

    That id is plain, wherever the request named the lease.
    """
    secret = entry.response.secret if entry.response else None
    if secret and secret.lease_id and _RENEW_LEASE.match(entry.request.path):
        return Kind.RENEWED, secret.lease_id
    return None


def _renewed_by_name(entry: Entry) -> tuple[Kind, str] | None:
    """Return a renewal that names its token in the body.

    Its answer shows whose token it was; its request shows the token's HMAC alone.
    """
    request, response = entry.request, entry.response or Response()
    if request.path != "auth/token/renew":
        return None
    if response.auth and response.auth.accessor and is_task_token(response.auth):
        return Kind.RENEWED, response.auth.accessor
    named = text_of((request.data or {}).get("token"))
    by_other = bool(entry.auth and entry.auth.accessor) and not is_task_token(entry.auth)
    return (Kind.RENEWED, "") if named and by_other else None


def _unwrap(entry: Entry) -> tuple[Kind | None, str]:
    response = entry.response or Response()
    inner = response.auth
    if inner and inner.accessor and is_task_token(inner):
        return Kind.UNWRAPPED, inner.accessor
    if entry.error:
        return Kind.UNWRAP_REFUSED, ""
    if response.secret and response.secret.lease_id:
        # a wrapped read shows its lease only when it is unwrapped
        return Kind.LEASE_ISSUED, response.secret.lease_id
    if is_unwrap(entry) and response.wrap_info:
        # an unwrap with a wrapped answer looks like a rewrap in the line, and does the same
        return Kind.REWRAPPED, response.wrap_info.wrapped_accessor
    if entry.request.path == "cubbyhole/response" and entry.response:
        return Kind.CUBBYHOLE_READ, ""
    return None, ""


def _task_act(entry: Entry) -> tuple[Kind, str]:
    accessor = entry.auth.accessor if entry.auth else ""
    if entry.request.path == "auth/token/revoke-self":
        return Kind.TOKEN_REVOKED, accessor
    if is_refused(entry):
        return Kind.DENIED, accessor
    if entry.request.path in ("auth/token/renew-self", "auth/token/renew"):
        return Kind.RENEWED, accessor
    lease = entry.response.secret.lease_id if entry.response and entry.response.secret else ""
    return (Kind.LEASE_ISSUED, lease) if lease else (Kind.USED, accessor)


_PATHS = (
    _AUDIT_HASH,
    "sys/wrapping/unwrap",
    "sys/wrapping/rewrap",
    "cubbyhole/response",
    "sys/leases/",
    "sys/revoke",
    "sys/renew",
    "auth/token/revoke",
    "auth/token/lookup-accessor",
    "auth/token/renew",
    _CREATE,
)
# a read of these paths gives no observation
_WRITTEN_PATHS = (
    "sys/mounts/",
    "sys/remount",
    AUDIT_DEVICES,
    "sys/storage/raft/snapshot",
    "auth/token/tidy",
    *_DOCUMENTS,
    *OF_WORKER_PATHS,
    SIGNATURES,
)


def _workers_act(entry: Entry) -> tuple[Kind, str] | None:
    """Return what only the worker does: publish, deliver, sign receipts."""
    if is_publication(entry):
        return Kind.OWN, document_at(entry.request.path)
    if is_signature(entry.request) and not is_task_token(entry.auth):
        return Kind.OWN, ""
    return None
