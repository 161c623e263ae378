"""The difference between the desired state of Vault and its present state.

Nothing is written. Whatever has a name of jitvault's and is not jitvault's is refused here, before the first write.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from jitvault.documents.paths import NETWORKS
from jitvault.errors import WrongState
from jitvault.formats.time_window import format_duration, server_duration
from jitvault.model.read_limit import PREFIX, Quota, name_of, normalized_quota, wanted_quota
from jitvault.model.vault_access import ROLE_PREFIX, AccessPolicy
from jitvault.provision.desired import (
    AUDIT_DEVICE,
    KV_MOUNT,
    MARKER,
    MARKER_LINE,
    AuditedHeader,
    Group,
    Installation,
    Item,
    MarkedPolicy,
    Mount,
    NetworksDocument,
    RemovedRole,
    SigningKey,
    TokenRole,
    is_installation_id,
)
from jitvault.provision.live import Live, normal_role
from jitvault.provision.mounts import PlainKeys, Shortened
from jitvault.provision.worker_login import WorkerLogin

Action = Literal["create", "update", "keep", "delete"]
GROUP_METADATA = {"managed-by": "jitvault"}
_PATHS = re.compile(r'^path "([^"]+)"', re.MULTILINE)
_NOT_OURS = "Rename or remove it, then run `jitvault init` again. Nothing was changed."


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to create, to change, to keep or to delete.

    The lines of `detail` say what it will be, or what changes.
    """

    action: Action
    kind: str
    name: str
    detail: tuple[str, ...] = ()
    item: Item = field(kw_only=True, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps in their order.

    `missing` are notes on what is missing or left over that `init` does not correct. `in_use` says which rights that
    the steps take from the worker are needed for live tasks: then `init` changes nothing.
    """

    steps: tuple[Step, ...]
    missing: tuple[str, ...] = ()
    in_use: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.action != "keep")


def difference(items: Iterable[Item], live: Live) -> Plan:
    """Return what has to be done so that Vault has `items`.

    Raises WrongState for what is not jitvault's.
    """
    items = tuple(items)
    steps = (_step(item, live) for item in items)
    return Plan(tuple(step for step in steps if step is not None), tuple(_missing(items, live)))


def _step(item: Item, live: Live) -> Step | None:
    match item:
        case Mount():
            return _mount(item, live)
        case Installation() | NetworksDocument():
            return _document(item, live)
        case AccessPolicy():
            return _access_policy(item, live)
        case MarkedPolicy():
            return _marked_policy(item, live)
        case TokenRole() | RemovedRole():
            return _token_role(item, live)
        case Group():
            return _group(item, live)
        case SigningKey():
            return _signing_key(item, live)
        case AuditedHeader():
            return _audited_header(item, live)
        case PlainKeys() | Shortened() | Quota():
            return _of_engine(item, live)
        case WorkerLogin():
            return _worker_login(item, live)


def _of_engine(item: PlainKeys | Shortened | Quota, live: Live) -> Step | None:
    """Return the step for a setting of an administrator's own secrets engine."""
    match item:
        case PlainKeys():
            return _plain_keys(item, live)
        case Shortened():
            return _shorten(item, live)
        case Quota():
            return _quota(item, live)


def _mount(item: Mount, live: Live) -> Step:
    found = live.mounts.get(item.path)
    kind = "mount"
    name = f"{item.path}/"
    wanted = " ".join((item.type, *(f"{key} {value}" for key, value in item.options)))
    if found is None:
        return Step("create", kind, name, (wanted,), item=item)
    if found.get("description") != MARKER:
        raise _foreign(f"the mount {name}", f"its description is not {MARKER!r}")
    options = found.get("options") or {}
    if found.get("type") != item.type or any(options.get(key) != value for key, value in item.options):
        raise _foreign(f"the mount {name}", f"it is of type {found.get('type')}, expected {wanted}")
    return Step("keep", kind, name, item=item)


def _document(item: Installation | NetworksDocument, live: Live) -> Step:
    return _installation(item, live) if isinstance(item, Installation) else _networks(item, live)


def _installation(item: Installation, live: Live) -> Step:
    kind = "document"
    name = f"{KV_MOUNT}/installation"
    existed, found = live.installation()
    if is_installation_id(found):
        return Step("keep", kind, name, item=item)
    if existed:
        # a new id would make every valid task token look like one of another installation
        raise WrongState(
            f"{name} was deleted or changed: it holds no installation id",
            hint=f"Restore its first version: `bao kv rollback -version=1 {name}`, after `bao kv undelete`.",
        )
    return Step("create", kind, name, ("id: 32 random hex digits, made once",), item=item)


def _networks(item: NetworksDocument, live: Live) -> Step:
    document = live.document(NETWORKS)
    kind = "document"
    name = f"{KV_MOUNT}/{NETWORKS}"
    wanted = {network: list(cidrs) for network, cidrs in item.networks}
    if document is None:
        detail = tuple(f"{network}: {_shown(cidrs)}" for network, cidrs in wanted.items()) or ("no network yet",)
        return Step("create", kind, name, detail, item=item)
    found = document["networks"]
    every = sorted({*found, *wanted})
    detail = tuple(
        f"{network}: {_shown(found.get(network, []))} → {_shown(wanted.get(network, []))}"
        for network in every
        if found.get(network) != wanted.get(network)
    )
    return Step("update" if detail else "keep", kind, name, detail, item=item)


def _access_policy(item: AccessPolicy, live: Live) -> Step:
    found = live.policy(item.name)
    kind = "access policy"
    if found is None:
        return Step("create", kind, item.name, tuple(_PATHS.findall(item.text)[:1]), item=item)
    if found != item.text:
        raise WrongState(
            f"the policy {item.name} was changed: its name is not the hash of its text",
            hint="Find out in the audit log who changed it, delete that policy, then run `jitvault init` again.",
        )
    return Step("keep", kind, item.name, item=item)


def _marked_policy(item: MarkedPolicy, live: Live) -> Step:
    found = live.policy(item.name)
    kind = "policy"
    if found is None:
        paths = tuple(_PATHS.findall(item.text))
        return Step("create", kind, item.name, paths, item=item)
    if found.partition("\n")[0] != MARKER_LINE:
        raise _foreign(f"the policy {item.name}", f"its first line is not `{MARKER_LINE}`")
    if found == item.text:
        return Step("keep", kind, item.name, item=item)
    diff = difflib.unified_diff(found.splitlines(), item.text.splitlines(), "in Vault", "wanted", n=1, lineterm="")
    return Step("update", kind, item.name, tuple(diff), item=item)


def role_body(item: TokenRole) -> dict[str, Any]:
    """Return the whole token role as it is written.

    It is complete, so that a setting that was added in Vault is removed.
    """
    return normal_role({}) | {
        "orphan": True,
        "renewable": True,
        "token_type": "service",
        "token_no_default_policy": True,
        "allowed_policies_glob": ["jitvault-access-*"],
        "token_explicit_max_ttl": item.cap_s,
        "token_bound_cidrs": list(item.cidrs),
    }


def _token_role(item: TokenRole | RemovedRole, live: Live) -> Step:
    if isinstance(item, RemovedRole):
        return Step("delete", "token role", item.name, ("its network is removed",), item=item)
    found = live.role(item.name)
    wanted = normal_role(role_body(item))
    kind = "token role"
    if found is None:
        place = ", ".join(item.cidrs) or "anywhere"
        return Step("create", kind, item.name, (f"at most {item.cap_s} s, from {place}",), item=item)
    if KV_MOUNT not in live.mounts:
        # a role has no marker: without jitvault's mount, nothing shows that the role is jitvault's
        raise _foreign(f"the token role {item.name}", f"there is a role of this name and no mount {KV_MOUNT}/")
    other = tuple(changed(found, wanted))
    return Step("update" if other else "keep", kind, item.name, other, item=item)


def _group(item: Group, live: Live) -> Step:
    found = live.group(item.name)
    kind = "group"
    if found is None:
        return Step("create", kind, item.name, (f"policies: {item.policy}", "no members yet"), item=item)
    metadata = found.get("metadata") or {}
    if any(metadata.get(key) != value for key, value in GROUP_METADATA.items()):
        raise _foreign(f"the identity group {item.name}", "its metadata do not say managed-by=jitvault")
    if found.get("type") != "internal":
        raise _foreign(f"the identity group {item.name}", f"it is {found.get('type')}, expected internal")
    now = {"policies": sorted(found.get("policies") or ())}
    other = tuple(changed(now, {"policies": [item.policy]}))
    return Step("update" if other else "keep", kind, item.name, other, item=item)


def _signing_key(item: SigningKey, live: Live) -> Step:
    found = live.key(item.name)
    kind = "signing key"
    if found is None:
        return Step("create", kind, item.name, ("ed25519, not exportable",), item=item)
    wrong = [flag for flag in ("exportable", "allow_plaintext_backup", "imported_key", "derived") if found.get(flag)]
    if found.get("type") != "ed25519" or wrong:
        # none of these settings can be undone: another party may hold the private key
        facts = ", ".join((str(found.get("type")), *wrong))
        raise WrongState(
            f"the Transit key {item.name} cannot be trusted to sign: it is {facts}",
            hint="Find out in the audit log who did that, delete the key, then run `jitvault init` again.",
        )
    deletable = bool(found.get("deletion_allowed"))
    detail = ("deletion_allowed: true → false",) if deletable else ()
    return Step("update" if deletable else "keep", kind, item.name, detail, item=item)


def _audited_header(item: AuditedHeader, live: Live) -> Step:
    plain = live.header_is_plain(item.name)
    kind = "audited header"
    if plain is None:
        return Step("create", kind, item.name, ("shown in plain",), item=item)
    detail = () if plain else ("hmac: true → false",)
    return Step("keep" if plain else "update", kind, item.name, detail, item=item)


def _plain_keys(item: PlainKeys, live: Live) -> Step | None:
    """Return the step, or None where the mount is missing or of another type.

    `_missing` notes that.
    """
    if live.mounts.get(item.mount, {}).get("type") != item.engine:
        return None
    added = sorted(set(item.keys) - set(live.plain_response_keys(item.mount)))
    detail = tuple(f"audit_non_hmac_response_keys: add {key}" for key in added)
    return Step("update" if added else "keep", "mount tuning", f"{item.mount}/", detail, item=item)


def _shorten(item: Shortened, live: Live) -> Step | None:
    """Return the step, or None where the mount is missing or of another type.

    `_missing` notes that.
    """
    if live.mounts.get(item.mount, {}).get("type") != item.engine:
        return None
    kind = "engine configuration"
    too_long = too_long_in(item, live)
    detail = tuple(f"{field}: {now} → {format_duration(dict(item.longest)[field])}" for field, now in too_long.items())
    if not detail:
        return Step("keep", kind, item.path, item=item)
    return Step("update", kind, item.path, (*detail, item.effect), item=item)


def too_long_in(item: Shortened, live: Live) -> dict[str, object]:
    """Return the fields that exceed `item`'s limits, with present values.

    A field without a limit counts as well.
    """
    found = live.configuration(item.path)
    lives = {field: server_duration(found.get(field)) for field, _ in item.longest}
    return {
        field: found.get(field)
        for field, longest in item.longest
        if not (duration := lives[field]) or duration > longest
    }


def _quota(item: Quota, live: Live) -> Step | None:
    """Return the step, or None where the mount is missing or of another type.

    None also where an administrator limits the path already, since Vault accepts one quota for a path.
    """
    path = live.full_path(item.path)
    if live.mounts.get(item.mount, {}).get("type") != item.engine or live.limited_by_others(path):
        return None
    found = live.quotas.get(name_of(path))
    kind = "read limit"
    name = item.path
    if found is None:
        return Step("create", kind, name, (f"at most {item.rate} reads a second of one address",), item=item)
    lines = changed(normalized_quota(found), wanted_quota(item, path))
    other = tuple(f"{line} reads a second of one address" if line.startswith("rate: ") else line for line in lines)
    return Step("update" if other else "keep", kind, name, other, item=item)


def _worker_login(item: WorkerLogin, live: Live) -> Step:
    lines = live.changes_of(item)
    kind = "worker's AppRole"
    if lines is None:
        return Step("create", kind, item.name, (f"from {', '.join(item.cidrs) or 'anywhere'}",), item=item)
    return Step("update" if lines else "keep", kind, item.name, lines, item=item)


def _missing(items: tuple[Item, ...], live: Live) -> Iterator[str]:
    yield from _limits(items, live)
    for item in items:
        if not isinstance(item, PlainKeys):
            continue
        found = live.mounts.get(item.mount)
        if found is None:
            yield f"there is no secrets engine {item.mount}/ ({item.engine}), which templates use"
        elif found.get("type") != item.engine:
            yield f"the secrets engine {item.mount}/ is {found.get('type')}; templates expect {item.engine}"
    if AUDIT_DEVICE not in live.audit_devices:
        yield (
            f"there is no audit device {AUDIT_DEVICE}/: without it nothing can be granted or proven "
            "(docs/operations/audit-sources.md)"
        )
    known = {item.name for item in items if isinstance(item, TokenRole | RemovedRole)}
    for name in sorted(role for role in live.token_roles if role.startswith(ROLE_PREFIX) and role not in known):
        _, _, network = name.removeprefix(ROLE_PREFIX).partition("-")
        how = f"`jitvault init --remove-network {network}`" if network else f"`bao delete auth/token/roles/{name}`"
        yield f"the token role {name} belongs to no network: {how} deletes it"


def _limits(items: tuple[Item, ...], live: Live) -> Iterator[str]:
    """Yield notes about quotas of others, or that are no longer needed."""
    paths = {live.full_path(item.path) for item in items if isinstance(item, Quota)}
    for path in sorted(paths):
        if other := live.limited_by_others(path):
            yield f"the quota {other}, which is not jitvault's, limits {path}: `init` adds none of its own there"
    # quotas of another namespace belong to another installation
    mounts = tuple(live.full_path(f"{mount}/") for mount in live.mounts)
    for name, found in sorted(live.quotas.items()):
        path = str(found.get("path"))
        if name.startswith(PREFIX) and path.startswith(mounts) and path not in paths:
            yield (
                f"the quota {name} limits reads of {path}, and none is needed there: no template has the path, or "
                f"JITVAULT_TASKS_PER_SECOND is 0; `bao delete sys/quotas/rate-limit/{name}` removes it"
            )


def changed(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each field of `found` that differs: present → wanted."""
    for name, value in wanted.items():
        if found[name] != value:
            yield f"{name}: {_shown(found[name])} → {_shown(value)}"


def _shown(value: object) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _foreign(what: str, why: str) -> WrongState:
    return WrongState(f"{what} is not jitvault's: {why}", hint=_NOT_OURS)
