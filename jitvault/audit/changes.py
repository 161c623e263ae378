"""Say which facts an audit line may change.

A fact is the answer to a read that a worker keeps as long as the audit stream shows no change of it (`vault/facts.py`).
What a fact depends on is named by places: those of a read, by its path, and those of a write, by its line. A fact may
have changed where both have one in common. A write changes something from its request's line on; what it changed is
there once its response's line is. A write that Vault itself refused changes nothing.

Changes are derived from lines alone, in the process that keeps the facts, and are never stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jitvault.audit.entry import Auth, Entry
from jitvault.audit.entry_facts import is_refused, is_task_token, operation_of
from jitvault.audit.hazard_paths import AUDIT_DEVICES, READING, is_engine_hazard
from jitvault.documents.paths import DECISIONS, MOUNT, vault_path

EVERYTHING = ""
"""The place that every fact has."""
_IDENTITY, _EXTERNAL_GROUPS = "identity/", "identity/ of external groups"
_POLICIES = "sys/policies/"
_ROLES = "auth/token/roles/"
KEYS = "jitvault-transit/"
"""The place of all signing keys."""
DOCUMENTS, _LISTS = f"{MOUNT}/data/", f"{MOUNT}/metadata/"
_DECISIONS, _DECIDERS = vault_path("data", DECISIONS), vault_path("metadata", DECISIONS)
_LOGIN, _TOKENS = "auth/", "auth/token/"
_RENEWALS = "auth/token/renew"
_SECOND_FACTOR = "sys/mfa/"
_ENTITIES = ("identity/entity/id/", "identity/entity/name/")
_GROUPS = "identity/group/name/"
# requests that only ask, or act on tokens and leases
_ASKS_IDENTITY = ("identity/lookup/", "identity/oidc/")
_ASKS_SYSTEM = (
    *("sys/audit-hash/", "sys/capabilities", "sys/control-group/", "sys/leases/", _SECOND_FACTOR, "sys/renew"),
    *("sys/revoke", "sys/tools/", "sys/wrapping/"),
)
_USES_KEYS = tuple(
    f"{KEYS}{use}"
    for use in ("sign/", "verify/", "hmac/", "hash", "random", "encrypt/", "decrypt/", "datakey/", "rewrap/")
)


@dataclass(frozen=True, slots=True)
class Change:
    """What one line may change: whatever has one of these places.

    `request_id` joins the lines of a request and its response; `closing` tells the response. `op` is the operation id
    that the request has, which anyone may have written there.
    """

    places: tuple[str, ...]
    request_id: str
    closing: bool
    op: str = ""


def may_change(path: str, operation: str = "") -> bool:
    """Return whether a line can be a change by its path and operation.

    A reader decodes only such lines in full.
    """
    if path.startswith(_LOGIN) and not path.startswith(_TOKENS):
        return True
    if path.startswith((_RENEWALS, _SECOND_FACTOR)):
        return True
    return operation not in READING and bool(_written_places(path))


def change_of(entry: Entry, namespace: str = "") -> Change | None:
    """Return what the line may change, None where it changes no fact.

    `namespace` is jitvault's own: writes in it and in those above it count.
    """
    if is_refused(entry) or not _concerns(entry, namespace):
        return None
    places = _places_of_login(entry) or _places_of_write(entry)
    if not places:
        return None
    return Change(places, entry.request.id, entry.type == "response", operation_of(entry.request))


def places_of(path: str, answer: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the places of the fact that a read of `path` gave; none for an answer that is no fact.

    Facts are entities and groups, ACL policies, token roles, signing keys, an engine's roles and connections, and
    documents, but for decisions. What ends by time alone is none: no line shows that end. That nothing is there, None,
    is a fact for documents alone: an entity or a role can come to be in more ways than lines show.
    """
    if answer is None and not path.startswith((DOCUMENTS, _LISTS)):
        return ()
    data = (answer or {}).get("data") or {}
    if path.startswith(_ENTITIES):
        return EVERYTHING, _IDENTITY, _entity(str(data.get("id")))
    if path.startswith(_GROUPS):
        # the members of an external group change by logins
        changes_by_login = () if data.get("type") == "internal" else (_EXTERNAL_GROUPS,)
        return EVERYTHING, _IDENTITY, *changes_by_login
    place = _place_of_read(path)
    ends_by_itself = bool((data.get("metadata") or {}).get("deletion_time")) if isinstance(data, dict) else False
    return () if place is None or ends_by_itself else (EVERYTHING, place)


def _place_of_read(path: str) -> str | None:
    if path.startswith(("sys/policies/acl/", _ROLES, f"{KEYS}keys/")):
        return next(place for place in (_POLICIES, _ROLES, KEYS) if path.startswith(place))
    if path.startswith((_DECISIONS, _DECIDERS)) and path != _DECIDERS:
        # what was decided is read anew each time, and only who has decided is a fact
        return None
    if path.startswith(_LISTS):
        return f"{MOUNT}/{path.removeprefix(_LISTS)}" if path.endswith("/") else None
    return document_place(path) if path.startswith(DOCUMENTS) else _engine(path)


def _places_of_login(entry: Entry) -> tuple[str, ...]:
    """Return what a login or a token's renewal may change: its entity's external groups, and these."""
    path, response = entry.request.path, entry.response
    if response is None or not path.startswith((_LOGIN, _SECOND_FACTOR)):
        return ()
    if path.startswith(_TOKENS) and not path.startswith(_RENEWALS):
        return ()
    if response.wrap_info is not None and response.wrap_info.wrapped_accessor:
        # whose login it was does not show
        return (_IDENTITY,)
    auth = response.auth or Auth()
    # a batch token has no accessor
    if not (auth.entity_id or auth.accessor) or is_task_token(auth):
        return ()
    return _EXTERNAL_GROUPS, _entity(auth.entity_id)


def _places_of_write(entry: Entry) -> tuple[str, ...]:
    path, auth = entry.request.path, entry.auth
    # Vault's own line for a new audit device has no caller; nobody else changes anything without a token
    has_rights = auth is not None and bool(auth.accessor or auth.policies)
    if entry.request.operation in READING or not (has_rights or path.startswith(AUDIT_DEVICES)):
        return ()
    return _written_places(path)


def _written_places(path: str) -> tuple[str, ...]:
    """Return the places that a write to `path` changes, none where it changes no fact."""
    if path.startswith(f"{MOUNT}/"):
        return _with_folders(document_place(path))
    place = _written_place(path)
    return () if place is None else (place,)


def _written_place(path: str) -> str | None:
    if path.startswith("identity/"):
        return None if path.startswith(_ASKS_IDENTITY) else _IDENTITY
    if path.startswith(("sys/policies/", "sys/policy/")):
        return _POLICIES
    if path.startswith("sys/"):
        # mounts and their options, devices, namespaces, plug-ins, restores, seals, and whatever else there may be
        return None if path.startswith(_ASKS_SYSTEM) else EVERYTHING
    if path.startswith(_LOGIN):
        return _ROLES if path.startswith(_ROLES) else None
    if path.startswith(KEYS):
        return None if path.startswith(_USES_KEYS) else KEYS
    return _engine(path) if is_engine_hazard(path) else None


def document_place(path: str) -> str:
    """Return the place of a document, by its path in any part of KV.

    What names no document may change all: `jitvault/config` says how long versions stay.
    """
    # Vault deletes a document also where a slash follows its path
    document = path.removeprefix(f"{MOUNT}/").partition("/")[2].rstrip("/")
    return f"{MOUNT}/{document}" if document else EVERYTHING


def _with_folders(place: str) -> tuple[str, ...]:
    """Return the places of a document and of each list that it is in, or below which it is."""
    return place, *(place[: n + 1] for n, letter in enumerate(place) if letter == "/")


def _engine(path: str) -> str | None:
    """Return the place of an engine's configuration; None for what is none.

    What a write changes at such a path, a read there shows. A mount's name may have several parts, and the first one
    stands for all mounts below it.
    """
    return path.partition("/")[0] + "/" if is_engine_hazard(path) else None


def _entity(entity_id: str) -> str:
    return f"{_IDENTITY}entity/id/{entity_id}"


def _concerns(entry: Entry, namespace: str) -> bool:
    there = entry.request.namespace.path.strip("/") if entry.request.namespace else ""
    return not there or f"{namespace.strip('/')}/".startswith(f"{there}/")
