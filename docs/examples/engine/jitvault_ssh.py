"""Vault's ssh secrets engine with one-time passwords: an engine without a probe and without a trial.

A host that runs `vault-ssh-helper` asks Vault about each password, once. A password whose lease was revoked is gone
from Vault, and so is one that was used. An open session is another matter: no revocation ends it, and nothing here
looks. So a template says `confirm: audit`, and everything that shows an end says that no target was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jitvault.engines.interface import Engine, Read
from jitvault.errors import InvalidInput
from jitvault.model.template import TemplateBody
from jitvault.model.vault_access import Capability


class SshEngine(Engine):
    """The engine of `ssh/` mounts whose roles make one-time passwords."""

    name = "ssh"
    # the agent writes the host's address, which the template pins in `data`
    capability: Capability = "update"

    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        role = read(f"{mount}/roles/{_role_of(path)}")
        if role is None:
            raise InvalidInput(f"Vault has no role {mount}/roles/{_role_of(path)}")
        if role["data"].get("key_type") != "otp":
            raise InvalidInput(f"{mount}/roles/{_role_of(path)} makes no one-time passwords", hint="Set key_type=otp.")
        tuning = read(f"sys/mounts/{mount}/tune") or {}
        lives_s = (tuning.get("data") or {}).get("default_lease_ttl")
        # "role" is where jitvault looks for the longest life of a lease
        return {"role": {**role["data"], "default_ttl": lives_s, "max_ttl": lives_s}}

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        return (f"{mount}/roles/{_role_of(path)}", f"sys/mounts/{mount}/tune")

    def check_template(self, spec: TemplateBody, snapshot: Mapping[str, Any] | None = None) -> None:
        if "ip" not in spec.data:
            raise InvalidInput("an ssh template pins the host", hint="Add `ip` to spec.data.")
        if snapshot is not None and not 0 < snapshot["role"]["default_ttl"] <= spec.ttl.total_seconds():
            raise InvalidInput(
                "a password's lease lives as long as the mount says, and that is longer than the template's ttl",
                hint=f"vault secrets tune -default-lease-ttl={spec.ttl.total_seconds():.0f}s {spec.mount}/",
            )


def _role_of(path: str) -> str:
    kind, _, role = path.partition("/")
    if kind != "creds" or not role or "/" in role:
        raise InvalidInput(f"an ssh template's path is creds/<role>, not {path}")
    return role
