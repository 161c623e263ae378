"""What `init` makes in Vault, by name, and how it is known to be jitvault's."""

from __future__ import annotations

import re

from jitvault.policy.decision import SECURITY

MARKER = "managed by jitvault"
MARKER_LINE = f"# {MARKER}"
KV_MOUNT = "jitvault"
TRANSIT_MOUNT = "jitvault-transit"
INSTALLATION = f"{KV_MOUNT}/data/installation"
AUDIT_DEVICE = "jitvault"
AUDITED_HEADER = "X-Jitvault-Op"
ROLES = ("operator", "approver", "agent", "auditor")
# the security group approves as well: the shipped policies require a second group where risk is high
GROUPS = {**{f"jitvault-{role}s": f"jitvault-{role}" for role in ROLES}, SECURITY: "jitvault-approver"}

_INSTALLATION_ID = re.compile(r"[0-9a-f]{32}")


def is_installation_id(found: object) -> bool:
    """Return whether this is an id as `init` makes it."""
    return isinstance(found, str) and _INSTALLATION_ID.fullmatch(found) is not None
