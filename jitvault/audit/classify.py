"""Classify an audit entry: return the observation that it gives, if any.

Shapes: docs/vault-facts.md, "Audit entries"; what makes a revocation look done: "Revocation".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any

from msgspec import structs

from jitvault.audit.audit_form import is_elided, is_hashed
from jitvault.audit.create_intent import asked
from jitvault.audit.entry import TARGET_NAMES, Auth, Entry, Request, Response
from jitvault.audit.observation import PLAIN, Kind, Observation, Place
from jitvault.formats.shorten import shorten
from jitvault.model.vault_access import ACCESS_POLICY, WORKER_POLICY

READING = frozenset({"read", "list", "help"})
_OF_A_TOKEN = frozenset(
    {Kind.UNWRAPPED, Kind.UNWRAP_REFUSED, Kind.REWRAPPED, Kind.CUBBYHOLE_READ, Kind.DENIED, Kind.REFUSED}
)
_CREATE = "auth/token/create/jitvault-"
_AUDIT_HASH = "sys/audit-hash/"
_AUDIT_DEVICES = "sys/audit/"
_DOCUMENTS = ("jitvault/data/requests/", "jitvault/data/decisions/", "jitvault/data/freezes/")
_PUBLISHED = ("jitvault/data/tasks/", "jitvault/metadata/tasks/")
_SIGNED = "jitvault-transit/sign/jitvault-receipts"
# The short paths are gone from OpenBao, and still exist in Vault.
_REVOKE_LEASE = re.compile(r"sys/(?:leases/)?revoke(?:/(?P<lease>.*)|$)", re.DOTALL)
_RENEW_LEASE = re.compile(r"sys/(?:leases/)?renew(?:/(?P<lease>.*)|$)", re.DOTALL)
# An error that consists of refusals alone: an error that an engine passes on may mention permissions, too. Blanks are
# matched in one place only, so that a long run of them is read once.
_DENIED = re.compile(r"(\d+ errors? occurred:)?(\s*(\*\s*)?(permission denied|invalid token))+\s*")
# An engine's framework answers this before any code of the engine runs. Some paths take every token or none, and their
# subpaths can look like a change of the engine.
_UNSUPPORTED = re.compile(r"(\d+ errors? occurred:)?(\s*(\*\s*)?unsupported (path|operation))+\s*")
# The expressions are applied to at most so much of a path and of an error. Clients choose both; a longer error is no
# plain refusal.
MAX_PATH = 4096
MAX_ERROR = 1024
_WARNING = 200
# The policy of every wrapping token; Vault lets no other token have it.
_WRAPPING_POLICY = "response-wrapping"
_PATH_END = 256


def may_matter(path: str, operation: str = "") -> bool:
    """Return whether a line can be an observation by its path and operation.

    All other lines can be one only by the token that acted. The answer is true for everything that `observe` looks
    at by path; a reader decodes only such lines in full.
    """
    if path.startswith(_PATHS):
        return True
    return operation not in READING and (path.startswith(_WRITTEN_PATHS) or _is_engine_hazard(path))


def may_matter_by_token(policies: Iterable[str]) -> bool:
    """Return whether a line can be an observation by the caller's policies.

    It can for a task token and for a wrapping token.
    """
    return any(policy.startswith(ACCESS_POLICY) or policy == _WRAPPING_POLICY for policy in policies)


def observe(entry: Entry, *, line: str, place: Place, namespace: str = "") -> Observation | None:
    """Return the observation that `entry` gives, or None.

    `namespace` is jitvault's own: the same path in another namespace is not jitvault's. Raises OverflowError for a
    time that UTC cannot hold.
    """
    whole, entry = entry, _shortened(entry)
    kind, subject = (Kind.UNWRAP_REFUSED, "") if _is_spent(entry) else _classify(entry)
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
        op=_op(request),
        remote=shorten(request.remote_address, 64),
        failed=_failed(entry),
        error=shorten(_error(whole), 255),
        token=shorten(_named_token(entry, kind), 80),
        alias=shorten(_derived_token(entry, kind), 80),
        detail=_detail(entry, kind),
    )


def _shortened(entry: Entry) -> Entry:
    """Cut the texts that clients can make long.

    This comes before any expression reads them. The text itself shows each cut.
    """
    request = entry.request
    if len(request.path) > MAX_PATH:
        # the end of the path is kept as well: the part that names an ACME request is there
        path = shorten(request.path, MAX_PATH - _PATH_END) + request.path[-_PATH_END:]
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
    return (not there or f"{here}/".startswith(f"{there}/")) and _is_hazard(entry.request)


def _is_namespace_free(entry: Entry, kind: Kind) -> bool:
    """Return whether the line is about a token that may act in any namespace.

    The holder of a token can send it to any namespace, and a wrapping can be opened by a token of another namespace
    that names the wrapping token in the body.
    """
    return kind in _OF_A_TOKEN or (kind is Kind.LEASE_ISSUED and _is_unwrap(entry))


def _classify(entry: Entry) -> tuple[Kind | None, str]:
    request, path = entry.request, entry.request.path
    data = request.data or {}
    if request.operation == "help":
        return _help_request(entry)
    if path.startswith(_AUDIT_HASH):
        return Kind.CANARY, _text(data.get("input")) if _is_hashed(entry.auth) else ""
    if path.startswith(_CREATE):
        wrap = entry.response.wrap_info if entry.response else None
        return Kind.TOKEN_CREATED, wrap.wrapped_accessor if wrap else ""
    if path in ("sys/wrapping/unwrap", "sys/wrapping/rewrap", "cubbyhole/response"):
        return _unwrap(entry)
    if act := _renewed_lease(entry) or _credential_act(path, data) or _renewed_by_name(entry):
        return act
    if _is_hazard(request) and not _denied(entry) and not _is_unprivileged(entry):
        return Kind.HAZARD, ""
    if path.startswith(_DOCUMENTS) and request.operation in ("create", "update") and entry.type == "response":
        return (Kind.WRITTEN, path.partition("/data/")[2]) if not _failed(entry) else (None, "")
    if entry.type == "response" and (act := _workers_act(entry)):
        return act
    if _is_task_token(entry.auth):
        return _task_act(entry)
    if entry.error and request.client_token and not (entry.auth and entry.auth.accessor):
        return Kind.REFUSED, ""
    if path in _REVOKE_BY_TOKEN:
        # the line shows whose token it was by the token's HMAC alone
        return Kind.TOKEN_REVOKED, ""
    return (Kind.OWN, "") if _op(request) else (None, "")


def _is_spent(entry: Entry) -> bool:
    """Return whether a request that it may not make used up a wrapping token.

    Vault refuses that request, and the wrapping token is used up.
    """
    return entry.auth is not None and _WRAPPING_POLICY in (entry.auth.policies or ()) and _denied(entry)


def _is_hashed(auth: Auth | None) -> bool:
    """Return whether the device shows accessors as HMACs.

    A device that shows them in plain links no line to a token of ours, so its canaries do not count.
    """
    return auth is None or not auth.accessor or is_hashed(auth.accessor)


def _help_request(entry: Entry) -> tuple[Kind | None, str]:
    """Classify a help request, which does nothing, whatever its path.

    Every caller may ask, for most paths without a policy.
    """
    if entry.auth and _is_task_token(entry.auth) and _denied(entry):
        return Kind.DENIED, entry.auth.accessor
    return None, ""


_OWN_ACTS = ("auth/token/revoke-self", "auth/token/renew-self")
_REVOKE_BY_TOKEN = ("auth/token/revoke", "auth/token/revoke-orphan")
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
        return kind, _text(data.get(key))
    for pattern, kind in ((_REVOKE_LEASE, Kind.LEASE_REVOKED), (_RENEW_LEASE, Kind.RENEWED)):
        if named := pattern.match(path):
            # a lease id in the body, which is shown as an HMAC, overrides the one in the path
            return kind, _text(data.get("lease_id")) or named["lease"] or ""
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
    if response.auth and response.auth.accessor and _is_task_token(response.auth):
        return Kind.RENEWED, response.auth.accessor
    named = _text((request.data or {}).get("token"))
    by_other = bool(entry.auth and entry.auth.accessor) and not _is_task_token(entry.auth)
    return (Kind.RENEWED, "") if named and by_other else None


def _unwrap(entry: Entry) -> tuple[Kind | None, str]:
    response = entry.response or Response()
    inner = response.auth
    if inner and inner.accessor and _is_task_token(inner):
        return Kind.UNWRAPPED, inner.accessor
    if entry.error:
        return Kind.UNWRAP_REFUSED, ""
    if response.secret and response.secret.lease_id:
        # a wrapped read shows its lease only when it is unwrapped
        return Kind.LEASE_ISSUED, response.secret.lease_id
    if _is_unwrap(entry) and response.wrap_info:
        # an unwrap with a wrapped answer looks like a rewrap in the line, and does the same
        return Kind.REWRAPPED, response.wrap_info.wrapped_accessor
    if entry.request.path == "cubbyhole/response" and entry.response:
        return Kind.CUBBYHOLE_READ, ""
    return None, ""


def _task_act(entry: Entry) -> tuple[Kind, str]:
    accessor = entry.auth.accessor if entry.auth else ""
    if entry.request.path == "auth/token/revoke-self":
        return Kind.TOKEN_REVOKED, accessor
    if _denied(entry):
        return Kind.DENIED, accessor
    if entry.request.path in ("auth/token/renew-self", "auth/token/renew"):
        return Kind.RENEWED, accessor
    lease = entry.response.secret.lease_id if entry.response and entry.response.secret else ""
    return (Kind.LEASE_ISSUED, lease) if lease else (Kind.USED, accessor)


def _is_task_token(auth: Auth | None) -> bool:
    """Return whether a token holds an access policy of jitvault's.

    Only tokens that were created through jitvault's roles do.
    """
    return any(p.startswith(ACCESS_POLICY) for p in (auth.policies or ())) if auth else False


_GLOBAL_HAZARDS = re.compile(
    r"sys/(leases/tidy|(leases/)?revoke-(force|prefix)/|mounts/|remount|audit/|storage/raft/snapshot)|auth/token/tidy"
)
# Paths of PKI that take an issuer away or make another one the default: Vault then answers a revocation with 204, and
# no CRL that anybody reads has the serial number (docs/vault-facts.md, "Certificates"). A role may have any name, so
# issuing through a role is no such path, `issue/config` included.
_ISSUER = (
    r"root/?$|root/(generate|rotate|replace)(/|$)|issuer/[^/]+/?$|issuers/(generate|import)/|intermediate/set-signed"
)
# Requests to an ACME server need no token: the server of a mount, of an issuer or of a role, whatever their names. No
# template's mount has a part `acme` in its name, so a path below such a part is nothing else.
_ACME = (
    r"acme/(directory|new-(nonce|account|order|eab)|revoke-cert|key-change|(account|authorization|challenge|order)s?/)"
)
_OF_ACME = re.compile(rf"/{_ACME}")
# PKI answers these paths to every token, whatever its policies: certificates, their status, an issuer's certificate and
# CRLs. Nothing below these paths changes anything, and a name in them may be any. No part before them begins a change,
# and no template's mount has a part `cert`, `ocsp` or `issuer`.
_OPEN_TO_ALL = re.compile(
    r"(?:(?!(?:config|roles|reset|rotate-[a-z]+|root|issuers?|intermediate)/)[^/]+/)+"
    r"(?:(?:cert|(?:unified-)?ocsp)/.|issuer/[^/]+/(?:json|der|pem|(?:unified-)?crl)(?:/|$))",
    re.DOTALL,
)
_OF_AN_ENGINE = re.compile(r"(?!sys/|auth/|identity/|cubbyhole/|jitvault/|jitvault-transit/)")
_ENGINE_HAZARDS = re.compile(
    rf"{_OF_AN_ENGINE.pattern}(?!.+/issue/[^/]+$).+?/((config|roles|reset|rotate-[a-z]+)(/|$)|{_ISSUER})"
)


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
    _AUDIT_DEVICES,
    "sys/storage/raft/snapshot",
    "auth/token/tidy",
    *_DOCUMENTS,
    *_PUBLISHED,
    _SIGNED,
)


def _workers_act(entry: Entry) -> tuple[Kind, str] | None:
    """Return what only the worker does: publish, unpublish, sign receipts."""
    path = entry.request.path
    if path.startswith(_PUBLISHED) and entry.request.operation not in READING:
        return Kind.OWN, path.split("/", 2)[2]
    if _is_signature(entry.request) and not _is_task_token(entry.auth):
        return Kind.OWN, ""
    return None


def _is_signature(request: Request) -> bool:
    return request.path.startswith(_SIGNED) and request.operation not in READING


def _is_hazard(request: Request) -> bool:
    """Return whether the act can make a revocation look done that was not.

    See docs/vault-facts.md, "Revocation".
    """
    if request.operation in READING:
        return False
    return bool(_GLOBAL_HAZARDS.match(request.path)) or _is_engine_hazard(request.path)


def _enables_device(request: Request) -> bool:
    """Return whether the request enables an audit device.

    Disabling one has another operation.
    """
    return request.path.startswith(_AUDIT_DEVICES) and request.operation in ("create", "update")


def _is_unprivileged(entry: Entry) -> bool:
    """Return whether an engine was asked without rights.

    Some paths take callers without a token, and none of those changes what a revocation does. A batch token has no
    accessor, but has policies. Vault's own line for a new audit device has neither.
    """
    has_rights = entry.auth is not None and bool(entry.auth.accessor or entry.auth.policies)
    return not has_rights and not _GLOBAL_HAZARDS.match(entry.request.path)


def _is_engine_hazard(path: str) -> bool:
    """Return whether a write to the path changes an engine's revocation.

    The path beyond the limit is not read, so a path of that length counts as a hazard wherever it could be one.
    """
    if len(path) >= MAX_PATH:
        found, acme = _OF_AN_ENGINE.match(path), _OF_ACME.search(path[-_PATH_END:])
    else:
        found, acme = _ENGINE_HAZARDS.match(path), _OF_ACME.search(path)
    return found is not None and not acme and not _OPEN_TO_ALL.match(path)


def _denied(entry: Entry) -> bool:
    """Return whether Vault itself refused, so that nothing was done."""
    return bool(_DENIED.fullmatch(entry.error))


def _failed(entry: Entry) -> bool:
    """Return whether the line shows that the act was not done.

    It shows an error, or a mere acceptance (202).
    """
    data = (entry.response.data if entry.response else None) or {}
    return bool(entry.error) or "error" in data or data.get("http_status_code") == 202


def _error(entry: Entry) -> str:
    data = (entry.response.data if entry.response else None) or {}
    return _text(data.get("error")) or entry.error


def _detail(entry: Entry, kind: Kind) -> dict[str, Any]:
    response = entry.response or Response()
    detail: dict[str, Any] = {}
    named = [key for key in TARGET_NAMES if key in (response.data or {})]
    if kind is Kind.LEASE_ISSUED and named:
        # plain because `init` tuned the mount so; a probe looks for this name
        detail["target_name"] = shorten(_text((response.data or {})[named[0]]), 255)
    if kind is Kind.USED and (entry.request.wrap_ttl or response.wrap_info):
        # a TTL below one second is 0 in the request line, and the answer is wrapped nevertheless
        detail["wrapped"] = True
    if kind is Kind.RENEWED and type(seconds := (entry.request.data or {}).get("increment")) is int:
        # plain only if it is a number, and only on OpenBao: the longest that the renewed token can live
        detail["increment_s"] = seconds
    if kind is Kind.RENEWED and response.auth and response.auth.token_ttl > 0:
        # the TTL that was really given; plain on both servers
        detail["ttl_s"] = response.auth.token_ttl
    if _denied(entry):
        detail["denied"] = True
    if _is_spent(entry):
        detail["spent"] = True
    if kind is Kind.HAZARD:
        detail |= _hazard_exemption(entry)
    if response.warnings:
        detail["warnings"] = [_beginning(_text(w)) for w in response.warnings[:3]]
    if entry.auth and entry.auth.entity_id:
        detail["entity"] = shorten(entry.auth.entity_id, 80)
    detail |= _signature_detail(entry, kind)
    detail |= _listing_detail(entry, kind)
    detail |= _worker_mark(entry, kind)
    if kind is Kind.TOKEN_CREATED:
        detail["asked"] = asked(entry.request.data or {}, entry.request.wrap_ttl)
    return detail


def _hazard_exemption(entry: Entry) -> dict[str, Any]:
    """Return what exempts an act from the hazards.

    `jitvault.lifecycle.confirmation.hazards` reads these details.
    """
    said = {"unsupported": _UNSUPPORTED.fullmatch(entry.error) is not None, "enables": _enables_device(entry.request)}
    return {name: True for name, holds in said.items() if holds}


def _signature_detail(entry: Entry, kind: Kind) -> dict[str, Any]:
    """Return the HMAC of what the worker's key signed, if anything."""
    if kind is not Kind.OWN or entry.type != "response" or not _is_signature(entry.request):
        return {}
    signed = _text((entry.request.data or {}).get("input"))
    if signed and not signed.startswith("hmac-"):
        # the mount was tuned to show the input in plain, so there is nothing to compare with an HMAC
        signed = PLAIN
    return {"signed": signed[:96], **_recovery_detail(entry)}


def _worker_mark(entry: Entry, kind: Kind) -> dict[str, Any]:
    """Return whether the worker's policy allowed the act.

    A thief of the worker's login credentials has a token of their own, with that policy.
    """
    if kind in (Kind.CANARY, Kind.TOKEN_CREATED):
        return _recovery_detail(entry)
    is_marked = kind is Kind.RENEWED or entry.request.path.startswith(_PUBLISHED)
    return {"worker": True} if is_marked and _is_workers(entry) else {}


def _listing_detail(entry: Entry, kind: Kind) -> dict[str, Any]:
    """Return whether our own listing's line does not show what was listed."""
    elided = kind is Kind.OWN and entry.request.operation == "list" and entry.type == "response"
    return {"elided": True} if elided and is_elided(entry.response.data if entry.response else None) else {}


def _recovery_detail(entry: Entry) -> dict[str, Any]:
    """Return what shows a rebuilt ledger that the line is the worker's.

    That is Vault's own statement of the policies, and the HMACs of the ids that the worker puts into a task token's
    metadata.
    """
    if not _is_workers(entry):
        return {}
    meta = (entry.request.data or {}).get("meta")
    named = meta if isinstance(meta, dict) else {}
    ids = {name: shorten(_text(named.get(f"jitvault_{name}")), 128) for name in ("task", "grant")}
    return {"worker": True, **{name: value for name, value in ids.items() if value}}


def _is_workers(entry: Entry) -> bool:
    """Return whether the caller's token holds the worker's policy.

    Vault itself states the policies.
    """
    return entry.auth is not None and WORKER_POLICY in (entry.auth.policies or ())


def _named_token(entry: Entry, kind: Kind) -> str:
    """Return the HMAC of the token that a line is about.

    This is for lines without an accessor of ours.
    """
    if _is_spent(entry):
        return _sent_token(entry)
    if kind in (Kind.UNWRAPPED, Kind.UNWRAP_REFUSED, Kind.REWRAPPED) or _is_unwrap(entry):
        # a caller that unwraps for another one names the wrapping token in the body
        return _text((entry.request.data or {}).get("token")) or _sent_token(entry)
    if kind is Kind.RENEWED or entry.request.path in _REVOKE_BY_TOKEN:
        return _text((entry.request.data or {}).get("token"))
    return _sent_token(entry) if kind in (Kind.CUBBYHOLE_READ, Kind.REFUSED) else ""


def _sent_token(entry: Entry) -> str:
    """Return the HMAC of the header's token, in the form that Vault issued.

    `auth.client_token` has that form on both servers, also if the header has a JWT with the wrapping token in it.
    For a token that Vault does not know there is only `request.client_token`.
    """
    return (entry.auth.client_token if entry.auth else "") or entry.request.client_token


def _is_unwrap(entry: Entry) -> bool:
    return entry.request.path.startswith("sys/wrapping/")


def _derived_token(entry: Entry, kind: Kind) -> str:
    """Return the HMAC of a derived token, or "".

    The token belongs to a task's token from this line on.
    """
    response = entry.response or Response()
    if entry.type == "request":
        return _stored_form(entry, kind)
    if kind is Kind.UNWRAPPED:
        return response.auth.client_token if response.auth else ""
    wrapped = kind in (Kind.TOKEN_CREATED, Kind.REWRAPPED, Kind.USED) and not _failed(entry)
    return response.wrap_info.token if response.wrap_info and wrapped else ""


def _stored_form(entry: Entry, kind: Kind) -> str:
    """Return the HMAC of a task token in HashiCorp Vault's stored form.

    The result is empty if both forms are equal. Later lines can name the token in the stored form alone: a use
    after its end, and a revocation that names it in the body.
    """
    auth = entry.auth or Auth()
    own = kind in (Kind.USED, Kind.DENIED) or entry.request.path in _OWN_ACTS
    kept = entry.request.client_token
    return kept if own and auth.client_token and kept != auth.client_token and _is_task_token(auth) else ""


def _op(request: Request) -> str:
    found = (request.headers or {}).get("x-jitvault-op") or [""]
    return found[0][:64]


def _beginning(text: str) -> str:
    return text if len(text) <= _WARNING else text[: _WARNING - 1] + "…"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
