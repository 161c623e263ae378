"""Carry out the steps of a plan.

An interrupted run leaves complete steps behind, and the next plan has the rest.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from jitvault.documents.paths import NETWORKS
from jitvault.errors import VaultRejected
from jitvault.formats.time_window import format_duration
from jitvault.model.read_limit import Quota, name_of, quota_body
from jitvault.model.vault_access import AccessPolicy
from jitvault.provision import worker_login
from jitvault.provision.desired import (
    INSTALLATION,
    MARKER,
    TRANSIT_MOUNT,
    AuditedHeader,
    Group,
    Installation,
    MarkedPolicy,
    Mount,
    NetworksDocument,
    RemovedRole,
    SigningKey,
    TokenRole,
)
from jitvault.provision.live import Live
from jitvault.provision.mounts import PlainKeys, Shortened
from jitvault.provision.plan import GROUP_METADATA, Step, role_body, too_long_in
from jitvault.provision.worker_login import WorkerLogin
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents

_UPGRADE_WAIT_S = 10.0
_UPGRADING = "Upgrading from non-versioned to versioned data"


def carry_out(vault: Vault, step: Step) -> None:
    """Carry out one step. Raises what `Vault.write` raises."""
    match step.item:
        case Mount() as mount:
            body: dict[str, Any] = {"type": mount.type, "description": MARKER}
            vault.write(f"sys/mounts/{mount.path}", body | {"options": dict(mount.options)})
        case Installation() | NetworksDocument() as document:
            _write_document(vault, document)
        case AccessPolicy() | MarkedPolicy() as policy:
            vault.write(f"sys/policies/acl/{policy.name}", {"policy": policy.text})
        case TokenRole() | RemovedRole() as role:
            _write_role(vault, role)
        case Group() as group:
            _write_group(vault, group, step)
        case SigningKey() as key:
            _write_key(vault, key, step)
        case AuditedHeader() as header:
            # audit devices belong to the root namespace
            vault.at_root().write(f"sys/config/auditing/request-headers/{header.name}", {"hmac": False})
        case PlainKeys() as plain:
            # read again, so that keys which others need on this mount stay
            keys = sorted({*Live(vault).plain_response_keys(plain.mount), *plain.keys})
            vault.write(f"sys/mounts/{plain.mount}/tune", {"audit_non_hmac_response_keys": keys}, method="post")
        case Shortened() as shortened:
            # only these fields: Vault keeps the fields that a write leaves out
            longest = dict(shortened.longest)
            too_long = too_long_in(shortened, Live(vault))
            vault.write(shortened.path, {field: format_duration(longest[field]) for field in too_long})
            vault.read(shortened.renew)
        case Quota() as quota:
            path = Live(vault).full_path(quota.path)
            vault.at_root().write(f"sys/quotas/rate-limit/{name_of(path)}", quota_body(quota, path))
        case WorkerLogin() as login:
            worker_login.write(vault, login)


def _write_role(vault: Vault, role: TokenRole | RemovedRole) -> None:
    path = f"auth/token/roles/{role.name}"
    if isinstance(role, RemovedRole):
        vault.delete(path)
    else:
        vault.write(path, role_body(role))


def _write_document(vault: Vault, item: Installation | NetworksDocument) -> None:
    """Write the installation's id, or its networks.

    The networks name the id that is in Vault by now.
    """
    if isinstance(item, Installation):
        # cas 0: where another `init` has written the document meanwhile, its id stays
        _write_new_kv(vault, INSTALLATION, {"options": {"cas": 0}, "data": {"id": secrets.token_hex(16)}})
        return
    _, installation = Live(vault).installation()
    networks = {name: list(cidrs) for name, cidrs in item.networks}
    Documents(vault).put(NETWORKS, {"installation": installation, "networks": networks})


def _write_group(vault: Vault, group: Group, step: Step) -> None:
    # without a member field, Vault keeps the members
    body: dict[str, Any] = {"policies": [group.policy]}
    if step.action == "create":
        body |= {"type": "internal", "metadata": GROUP_METADATA}
    vault.write(f"identity/group/name/{group.name}", body)


def _write_key(vault: Vault, key: SigningKey, step: Step) -> None:
    path = f"{TRANSIT_MOUNT}/keys/{key.name}"
    if step.action == "create":
        vault.write(path, {"type": "ed25519", "exportable": False, "allow_plaintext_backup": False})
    else:
        vault.write(f"{path}/config", {"deletion_allowed": False})


def _write_new_kv(vault: Vault, path: str, body: Mapping[str, Any]) -> None:
    """Write to a KV mount that may be new.

    Such a mount refuses writes for a moment after its creation.
    """
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
