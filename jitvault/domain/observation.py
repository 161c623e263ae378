"""What one line of the audit stream says, as far as jitvault cares.

A line becomes at most one observation. Its `subject` is the credential that it is about: a lease id, or
the HMAC of a token's accessor; its `actor` is the HMAC of the accessor of the token that acted. Neither
metadata nor headers identify anybody, since a client can choose both: they are kept to be shown.

Some lines show no accessor of ours and yet are about a task: an unwrap, a read of what is wrapped, a token that
Vault does not know any more. They name a token by its HMAC (`token`), and an earlier line said which task token
that HMAC stands for (`alias`): `jitvault.domain.linking` joins the two.
Shapes: docs/vault-facts.md, "Audit entries".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec

ACCESS_POLICY = "jitvault-access-"
READING = frozenset({"read", "list", "help"})
_CREATE = "auth/token/create/jitvault-"
_AUDIT_HASH = "sys/audit-hash/"
_PAPERS = ("jitvault/data/requests/", "jitvault/data/decisions/")
# the short ones are gone from OpenBao and still there in Vault
_REVOKE_LEASE = re.compile(r"sys/(?:leases/)?revoke(?:/(?P<lease>.*)|$)", re.DOTALL)
_RENEW_LEASE = re.compile(r"sys/(?:leases/)?renew(?:/(?P<lease>.*)|$)", re.DOTALL)
# nothing but refusals: an error that an engine passes on may speak of permissions, too
_DENIED = re.compile(r"(\d+ errors? occurred:)?(\s*\*?\s*(permission denied|invalid token))+\s*")


class Kind(StrEnum):
    CANARY = "canary"
    TOKEN_CREATED = "token_created"  # noqa: S105 - not a password
    UNWRAPPED = "unwrapped"
    UNWRAP_REFUSED = "unwrap_refused"
    REWRAPPED = "rewrapped"
    CUBBYHOLE_READ = "cubbyhole_read"
    LEASE_ISSUED = "lease_issued"
    USED = "used"
    DENIED = "denied"
    REFUSED = "refused"
    RENEWED = "renewed"
    LEASE_REVOKED = "lease_revoked"
    LEASE_LOOKUP = "lease_lookup"
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - not a password
    TOKEN_LOOKUP = "token_lookup"  # noqa: S105 - not a password
    HAZARD = "hazard"
    WRITTEN = "written"
    OWN = "own"


class _Auth(msgspec.Struct, frozen=True):
    accessor: str = ""
    client_token: str = ""
    policies: list[str] | None = None
    metadata: dict[str, Any] | None = None
    entity_id: str = ""


class _Namespace(msgspec.Struct, frozen=True):
    path: str = ""


class _Request(msgspec.Struct, frozen=True):
    id: str = ""
    operation: str = ""
    path: str = ""
    client_token: str = ""
    data: dict[str, Any] | None = None
    headers: dict[str, list[str]] | None = None
    remote_address: str = ""
    namespace: _Namespace | None = None


class _WrapInfo(msgspec.Struct, frozen=True):
    token: str = ""
    wrapped_accessor: str = ""


class _SecretInfo(msgspec.Struct, frozen=True):
    lease_id: str = ""


class _Response(msgspec.Struct, frozen=True):
    auth: _Auth | None = None
    data: dict[str, Any] | None = None
    wrap_info: _WrapInfo | None = None
    secret: _SecretInfo | None = None
    warnings: list[str] | None = None


class Entry(msgspec.Struct, frozen=True):
    """One audit line, by the keys that are used; Vault adds others, which are ignored."""

    time: Annotated[datetime, msgspec.Meta(tz=True)]
    type: str
    auth: _Auth | None = None
    request: _Request = msgspec.field(default_factory=_Request)
    response: _Response | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line stands: byte `offset` of the `epoch`-th contiguous stretch that was read of `source`."""

    source: str
    epoch: int
    offset: int


@dataclass(frozen=True, slots=True)
class Observation:
    """One audit line that matters. `failed` is true when it shows an error or was not carried out.

    `line` is the SHA-256 of the line's bytes; `at` is Vault's time, UTC; `closing` tells a response from
    a request; `error` is the HMAC of the error text where Vault only shows that. `token` is the HMAC of the
    token that the line names, where no accessor says whose it is. `alias` is the HMAC of a token that stands
    for the task token from now on: its wrapping token, the token itself, or the wrapping of what it read.
    """

    line: str
    place: Place
    at: datetime
    closing: bool
    kind: Kind
    request_id: str
    path: str
    subject: str
    actor: str
    op: str
    remote: str
    failed: bool
    error: str
    token: str
    alias: str
    detail: Mapping[str, Any]

    @property
    def stands_for(self) -> str:
        """The HMAC of the accessor of the task token that `alias` stands for."""
        return self.actor if self.kind in (Kind.USED, Kind.LEASE_ISSUED) else self.subject


def may_matter(path: str, operation: str = "") -> bool:
    """Whether a line can be an observation for what was done where. Others are for the token that acted.

    It says yes to everything that `observe` looks at by path; a reader decodes only such lines in full.
    """
    if path.startswith(_PATHS):
        return True
    return operation not in READING and (path.startswith(_WRITTEN_PATHS) or _ENGINE_HAZARDS.match(path) is not None)


def may_matter_by_token(policies: Iterable[str]) -> bool:
    """Whether a line can be an observation for the policies of the token that acted: those of a task's token."""
    return any(policy.startswith(ACCESS_POLICY) for policy in policies)


def observe(entry: Entry, *, line: str, place: Place, namespace: str = "") -> Observation | None:
    """The observation that `entry` gives, or None where it is nothing of ours.

    `namespace` is jitvault's own: the same path in another one is something else. Raises OverflowError for a time
    that UTC cannot hold.
    """
    if not _is_here(entry, namespace):
        return None
    kind, subject = _classify(entry)
    if kind is None:
        return None
    request = entry.request
    return Observation(
        line=line,
        place=place,
        at=entry.time.astimezone(UTC),
        closing=entry.type == "response",
        kind=kind,
        request_id=request.id,
        path=request.path,
        subject=subject,
        actor=entry.auth.accessor if entry.auth else "",
        op=_op(request),
        remote=request.remote_address,
        failed=_failed(entry),
        error=_error(entry),
        token=_named_token(entry, kind),
        alias=_alias(entry, kind),
        detail=_detail(entry, kind),
    )


def _is_here(entry: Entry, namespace: str) -> bool:
    """Whether the line is of our namespace.

    Audit devices belong to the root namespace, and so do canaries. What happens above ours concerns us when it is a
    hazard.
    """
    there = entry.request.namespace.path.strip("/") if entry.request.namespace else ""
    here = namespace.strip("/")
    if there == here:
        return True
    if not there and entry.request.path.startswith(_AUDIT_HASH):
        return True
    return (not there or f"{here}/".startswith(f"{there}/")) and _is_hazard(entry.request)


def _classify(entry: Entry) -> tuple[Kind | None, str]:
    request, path = entry.request, entry.request.path
    data = request.data or {}
    if path.startswith(_AUDIT_HASH):
        return Kind.CANARY, _text(data.get("input"))
    if path.startswith(_CREATE):
        wrap = entry.response.wrap_info if entry.response else None
        return Kind.TOKEN_CREATED, wrap.wrapped_accessor if wrap else ""
    if path in ("sys/wrapping/unwrap", "sys/wrapping/rewrap", "cubbyhole/response"):
        return _unwrap(entry)
    if act := _credential_act(path, data):
        return act
    if _is_hazard(request) and not _denied(entry):
        return Kind.HAZARD, ""
    if path.startswith(_PAPERS) and request.operation in ("create", "update") and entry.type == "response":
        return (Kind.WRITTEN, path.partition("/data/")[2]) if not _failed(entry) else (None, "")
    if _is_task_token(entry.auth):
        return _task_act(entry)
    if entry.error and request.client_token and not (entry.auth and entry.auth.accessor):
        return Kind.REFUSED, ""
    return (Kind.OWN, "") if _op(request) else (None, "")


_BY_DATA = {
    "sys/leases/lookup": (Kind.LEASE_LOOKUP, "lease_id"),
    "auth/token/revoke-accessor": (Kind.TOKEN_REVOKED, "accessor"),
    "auth/token/lookup-accessor": (Kind.TOKEN_LOOKUP, "accessor"),
    "auth/token/renew-accessor": (Kind.RENEWED, "accessor"),
}


def _credential_act(path: str, data: Mapping[str, Any]) -> tuple[Kind, str] | None:
    """What was done to a credential that the request names in its path or its data."""
    if path in _BY_DATA:
        kind, key = _BY_DATA[path]
        return kind, _text(data.get(key))
    for pattern, kind in ((_REVOKE_LEASE, Kind.LEASE_REVOKED), (_RENEW_LEASE, Kind.RENEWED)):
        if named := pattern.match(path):
            # a lease id in the body, which is shown as an HMAC, overrides the one in the path
            return kind, _text(data.get("lease_id")) or named["lease"] or ""
    return None


def _unwrap(entry: Entry) -> tuple[Kind | None, str]:
    response = entry.response or _Response()
    inner = response.auth
    if inner and inner.accessor and _is_task_token(inner):
        return Kind.UNWRAPPED, inner.accessor
    if entry.error:
        return Kind.UNWRAP_REFUSED, ""
    if response.secret and response.secret.lease_id:
        # what a token read in a wrapping shows its lease only when it is unwrapped
        return Kind.LEASE_ISSUED, response.secret.lease_id
    if entry.request.path == "sys/wrapping/rewrap" and response.wrap_info:
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


def _is_task_token(auth: _Auth | None) -> bool:
    """Whether a token holds one of our access policies: only tokens made through our roles do."""
    return any(p.startswith(ACCESS_POLICY) for p in (auth.policies or ())) if auth else False


_GLOBAL_HAZARDS = re.compile(
    r"sys/(leases/tidy|(leases/)?revoke-(force|prefix)/|mounts/|remount|audit/|storage/raft/snapshot)|auth/token/tidy"
)
_ENGINE_HAZARDS = re.compile(
    r"^(?!sys/|auth/|identity/|jitvault/|jitvault-transit/).+?/(config|roles|reset|rotate-[a-z]+)(/|$)"
)


_PATHS = (
    _AUDIT_HASH,
    "sys/wrapping/unwrap",
    "sys/wrapping/rewrap",
    "cubbyhole/response",
    "sys/leases/",
    "sys/revoke",
    "sys/renew",
    "auth/token/revoke-accessor",
    "auth/token/lookup-accessor",
    "auth/token/renew-accessor",
    _CREATE,
)
# nothing follows from a look at these
_WRITTEN_PATHS = (
    "sys/mounts/",
    "sys/remount",
    "sys/audit/",
    "sys/storage/raft/snapshot",
    "auth/token/tidy",
    *_PAPERS,
)


def _is_hazard(request: _Request) -> bool:
    """Whether the act can make a revocation look done that was not (docs/vault-facts.md, "Revocation")."""
    if request.operation in READING:
        return False
    return bool(_GLOBAL_HAZARDS.match(request.path) or _ENGINE_HAZARDS.match(request.path))


def _denied(entry: Entry) -> bool:
    """Whether Vault itself refused the request, so that nothing was done."""
    return bool(_DENIED.fullmatch(entry.error))


def _failed(entry: Entry) -> bool:
    """Whether the line shows that the act was not done: an error, or a mere acceptance (202)."""
    data = (entry.response.data if entry.response else None) or {}
    return bool(entry.error) or "error" in data or data.get("http_status_code") == 202


def _error(entry: Entry) -> str:
    data = (entry.response.data if entry.response else None) or {}
    return _text(data.get("error")) or entry.error


def _detail(entry: Entry, kind: Kind) -> dict[str, Any]:
    response = entry.response or _Response()
    detail: dict[str, Any] = {}
    if kind is Kind.LEASE_ISSUED and "username" in (response.data or {}):
        # plain because `init` tuned the mount so; a probe looks for this name
        detail["username"] = _text((response.data or {})["username"])
    if _denied(entry):
        detail["denied"] = True
    if response.warnings:
        detail["warnings"] = [_text(w)[:200] for w in response.warnings[:3]]
    if entry.auth and entry.auth.entity_id:
        detail["entity"] = entry.auth.entity_id
    return detail


def _named_token(entry: Entry, kind: Kind) -> str:
    """The HMAC of the token that a line without an accessor of ours is about."""
    if kind in (Kind.UNWRAPPED, Kind.UNWRAP_REFUSED, Kind.REWRAPPED) or _is_unwrap(entry):
        # who unwraps for somebody else names the wrapping token in the body
        return _text((entry.request.data or {}).get("token")) or entry.request.client_token
    return entry.request.client_token if kind in (Kind.CUBBYHOLE_READ, Kind.REFUSED) else ""


def _is_unwrap(entry: Entry) -> bool:
    return entry.request.path.startswith("sys/wrapping/")


def _alias(entry: Entry, kind: Kind) -> str:
    """The HMAC of a token that stands for a task's token from this line on."""
    response = entry.response or _Response()
    if kind is Kind.UNWRAPPED:
        return response.auth.client_token if response.auth else ""
    wrapped = kind in (Kind.TOKEN_CREATED, Kind.REWRAPPED, Kind.USED) and not _failed(entry)
    return response.wrap_info.token if response.wrap_info and wrapped else ""


def _op(request: _Request) -> str:
    found = (request.headers or {}).get("x-jitvault-op") or [""]
    return found[0][:64]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
