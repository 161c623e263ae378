"""The items that belong to jitvault alone: mounts, documents, policies, roles, groups and keys."""

from __future__ import annotations

import difflib
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jitvault.documents.paths import INBOX_MOUNT, NETWORKS
from jitvault.errors import VaultRejected, WrongState
from jitvault.model.vault_access import AccessPolicy
from jitvault.provision.item import Action, Item, Step, changed, shown
from jitvault.provision.live import Live, normal_role
from jitvault.provision.names import (
    INSTALLATION,
    KV_MOUNT,
    MARKER,
    MARKER_LINE,
    TRANSIT_MOUNT,
    is_installation_id,
)
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents

_GROUP_METADATA = {"managed-by": "jitvault"}
_PATHS = re.compile(r'^path "([^"]+)"', re.MULTILINE)
# durations as Vault answers them
_INBOX_LIFE = {"max_versions": 1, "delete_version_after": "10m0s", "cas_required": False}
_UPGRADE_WAIT_S = 10.0
_UPGRADING = "Upgrading from non-versioned to versioned data"


@dataclass(frozen=True, slots=True)
class Named(Item):
    """An item that people know by the name that it has in Vault."""

    name: str

    @property
    def label(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Mount(Item):
    """A secrets engine that belongs to jitvault. Its description is the marker."""

    kind = "mount"
    path: str
    type: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        return f"{self.path}/"

    def step(self, live: Live) -> Step:
        found = live.mounts.get(self.path)
        wanted = " ".join((self.type, *(f"{key} {value}" for key, value in self.options)))
        if found is None:
            return self.create(wanted)
        if found.get("description") != MARKER:
            raise self.foreign(f"its description is not {MARKER!r}")
        options = found.get("options") or {}
        if found.get("type") != self.type or any(options.get(key) != value for key, value in self.options):
            raise self.foreign(f"it is of type {found.get('type')}, expected {wanted}")
        return self.update()

    def carry_out(self, vault: Vault, action: Action) -> None:
        body = {"type": self.type, "description": MARKER, "options": dict(self.options)}
        vault.write(f"sys/mounts/{self.path}", body)


@dataclass(frozen=True, slots=True)
class InboxLife(Item):
    """How many versions Vault keeps of a document in an inbox, and for how long."""

    kind = "engine configuration"
    label = f"{INBOX_MOUNT}/config"

    def step(self, live: Live) -> Step:
        if INBOX_MOUNT not in live.mounts:
            return self.create("one version of each document, deleted after 10m0s")
        return self.update(changed(live.data(self.label) or {}, _INBOX_LIFE))

    def carry_out(self, vault: Vault, action: Action) -> None:
        _write_to_new(vault, self.label, _INBOX_LIFE)


def _write_to_new(vault: Vault, path: str, body: Mapping[str, Any]) -> None:
    """Write to a KV mount that may be new: it refuses writes for a moment after its creation."""
    deadline = time.monotonic() + _UPGRADE_WAIT_S
    while True:
        try:
            vault.write(path, body)
        except VaultRejected as error:
            upgrading = any(_UPGRADING in reason for reason in error.reasons)
            if not upgrading or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@dataclass(frozen=True, slots=True)
class Installation(Item):
    """The document with the installation's id, never changed once created."""

    kind = "document"
    label = f"{KV_MOUNT}/installation"

    def step(self, live: Live) -> Step:
        existed, found = live.installation()
        if is_installation_id(found):
            return self.update()
        if existed:
            # a new id would make every valid task token look like one of another installation
            raise WrongState(
                f"{self.label} was deleted or changed: it holds no installation id",
                hint=f"Restore its first version: `bao kv rollback -version=1 {self.label}`, after `bao kv undelete`.",
            )
        return self.create("id: 32 random hex digits, made once")

    def carry_out(self, vault: Vault, action: Action) -> None:
        # cas 0: where another `init` has written the document meanwhile, its id stays
        _write_to_new(vault, INSTALLATION, {"options": {"cas": 0}, "data": {"id": secrets.token_hex(16)}})


@dataclass(frozen=True, slots=True)
class NetworksDocument(Item):
    """The document with the named networks and their CIDRs, sorted."""

    kind = "document"
    networks: tuple[tuple[str, tuple[str, ...]], ...]

    label = f"{KV_MOUNT}/{NETWORKS}"

    @property
    def wanted(self) -> dict[str, list[str]]:
        return {network: list(cidrs) for network, cidrs in self.networks}

    def step(self, live: Live) -> Step:
        document = live.document(NETWORKS)
        wanted = self.wanted
        if document is None:
            lines = [f"{network}: {shown(cidrs)}" for network, cidrs in wanted.items()]
            return self.create(*(lines or ["no network yet"]))
        found = document["networks"]
        return self.update(
            f"{network}: {shown(found.get(network, []))} → {shown(wanted.get(network, []))}"
            for network in sorted({*found, *wanted})
            if found.get(network) != wanted.get(network)
        )

    def carry_out(self, vault: Vault, action: Action) -> None:
        """Write the networks beside the id that is in Vault by now."""
        _, installation = Live(vault).installation()
        Documents(vault).put(NETWORKS, {"installation": installation, "networks": self.wanted})


@dataclass(frozen=True, slots=True)
class TaskPolicy(Item):
    """The ACL policy of task tokens for one path. Its name is the hash of its text."""

    kind = "access policy"
    policy: AccessPolicy

    @property
    def label(self) -> str:
        return self.policy.name

    def step(self, live: Live) -> Step:
        found = live.policy(self.label)
        if found is None:
            return self.create(*_PATHS.findall(self.policy.text)[:1])
        if found != self.policy.text:
            raise WrongState(
                f"the policy {self.label} was changed: its name is not the hash of its text",
                hint="Find out in the audit log who changed it, delete that policy, then run `jitvault init` again.",
            )
        return self.update()

    def carry_out(self, vault: Vault, action: Action) -> None:
        vault.write(f"sys/policies/acl/{self.label}", {"policy": self.policy.text})


@dataclass(frozen=True, slots=True)
class MarkedPolicy(Named):
    """An ACL policy that begins with the marker line. Its text comes from the policy files."""

    kind = "policy"
    text: str

    def step(self, live: Live) -> Step:
        found = live.policy(self.name)
        if found is None:
            return self.create(*_PATHS.findall(self.text))
        if found.partition("\n")[0] != MARKER_LINE:
            raise self.foreign(f"its first line is not `{MARKER_LINE}`")
        wanted = self.text.splitlines()
        return self.update(difflib.unified_diff(found.splitlines(), wanted, "in Vault", "wanted", n=1, lineterm=""))

    def carry_out(self, vault: Vault, action: Action) -> None:
        vault.write(f"sys/policies/acl/{self.name}", {"policy": self.text})


@dataclass(frozen=True, slots=True)
class TokenRole(Named):
    """A token role for task tokens.

    They live at most `cap_s` seconds and are bound to `cidrs` (none: to no network).
    """

    kind = "token role"
    cap_s: int
    cidrs: tuple[str, ...]

    @property
    def body(self) -> dict[str, Any]:
        """The whole role as it is written, so that a setting that was added in Vault is removed."""
        return normal_role({}) | {
            "orphan": True,
            "renewable": True,
            "token_type": "service",
            "token_no_default_policy": True,
            "allowed_policies_glob": ["jitvault-access-*"],
            "token_explicit_max_ttl": self.cap_s,
            "token_bound_cidrs": list(self.cidrs),
        }

    def step(self, live: Live) -> Step:
        found = live.role(self.name)
        if found is None:
            return self.create(f"at most {self.cap_s} s, from {', '.join(self.cidrs) or 'anywhere'}")
        if KV_MOUNT not in live.mounts:
            # a role has no marker: without jitvault's mount, nothing shows that the role is jitvault's
            raise self.foreign(f"there is a role of this name and no mount {KV_MOUNT}/")
        return self.update(changed(found, normal_role(self.body)))

    def carry_out(self, vault: Vault, action: Action) -> None:
        vault.write(f"auth/token/roles/{self.name}", self.body)


@dataclass(frozen=True, slots=True)
class RemovedRole(Named):
    """A token role of a network that the administrator removes."""

    kind = "token role"

    def step(self, live: Live) -> Step:
        return Step("delete", self.kind, self.name, ("its network is removed",), item=self)

    def carry_out(self, vault: Vault, action: Action) -> None:
        vault.delete(f"auth/token/roles/{self.name}")


@dataclass(frozen=True, slots=True)
class Group(Named):
    """An identity group. Its members are managed by the administrator."""

    kind = "group"
    policy: str

    def step(self, live: Live) -> Step:
        found = live.group(self.name)
        if found is None:
            return self.create(f"policies: {self.policy}", "no members yet")
        metadata = found.get("metadata") or {}
        if any(metadata.get(key) != value for key, value in _GROUP_METADATA.items()):
            raise self.foreign("its metadata do not say managed-by=jitvault")
        if found.get("type") != "internal":
            raise self.foreign(f"it is {found.get('type')}, expected internal")
        now = {"policies": sorted(found.get("policies") or ())}
        return self.update(changed(now, {"policies": [self.policy]}))

    def carry_out(self, vault: Vault, action: Action) -> None:
        # without a member field, Vault keeps the members
        body: dict[str, Any] = {"policies": [self.policy]}
        if action == "create":
            body |= {"type": "internal", "metadata": _GROUP_METADATA}
        vault.write(f"identity/group/name/{self.name}", body)


@dataclass(frozen=True, slots=True)
class SigningKey(Named):
    """A Transit key (Ed25519) that can be neither exported nor deleted."""

    kind = "signing key"

    @property
    def _path(self) -> str:
        return f"{TRANSIT_MOUNT}/keys/{self.name}"

    def step(self, live: Live) -> Step:
        found = live.key(self.name)
        if found is None:
            return self.create("ed25519, not exportable")
        flags = ("exportable", "allow_plaintext_backup", "imported_key", "derived")
        wrong = [flag for flag in flags if found.get(flag)]
        if found.get("type") != "ed25519" or wrong:
            # none of these settings can be undone: another party may hold the private key
            facts = ", ".join((str(found.get("type")), *wrong))
            raise WrongState(
                f"the Transit key {self.name} cannot be trusted to sign: it is {facts}",
                hint="Find out in the audit log who did that, delete the key, then run `jitvault init` again.",
            )
        return self.update(["deletion_allowed: true → false"] * bool(found.get("deletion_allowed")))

    def carry_out(self, vault: Vault, action: Action) -> None:
        if action == "create":
            vault.write(self._path, {"type": "ed25519", "exportable": False, "allow_plaintext_backup": False})
        else:
            vault.write(f"{self._path}/config", {"deletion_allowed": False})


@dataclass(frozen=True, slots=True)
class AuditedHeader(Named):
    """A request header that audit lines contain in plain text."""

    kind = "audited header"

    def step(self, live: Live) -> Step:
        # audit devices, and their headers, belong to the root namespace
        answer = live.vault.at_root().read("sys/config/auditing/request-headers") or {}
        headers = answer.get("data", {}).get("headers") or {}
        found = {key.lower(): value for key, value in headers.items()}.get(self.name.lower())
        if found is None:
            return self.create("shown in plain")
        return self.update(["hmac: true → false"] * bool(found.get("hmac")))

    def carry_out(self, vault: Vault, action: Action) -> None:
        vault.at_root().write(f"sys/config/auditing/request-headers/{self.name}", {"hmac": False})
