"""A lease as the audit stream shows its issue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from jitvault.audit.observation import Kind, Observation

# How Vault names a token's own lease. A wrapping token is listed below the path at which it was created, and the
# content of the wrapping has a lease of its own.
_TOKEN_LEASE = re.compile(r"h[0-9a-f]{64}(\.\w+)?")


@dataclass(frozen=True, slots=True)
class Issued:
    """A lease that a line shows as issued.

    `path` is where it was read. `target_name` is its name at the target (a login's name, a certificate's serial
    number), by which a probe can ask about it; None if no line shows the name.
    """

    lease_id: str
    path: str
    target_name: str | None
    at: datetime


def issued(line: Observation) -> Issued | None:
    """Return the lease that a line shows as issued, or None."""
    if line.kind is not Kind.LEASE_ISSUED or not line.closing:
        return None
    name = line.detail.get("target_name")
    return Issued(
        lease_id=line.subject,
        # an unwrap shows a lease that was read at another path; the lease id begins with that path
        path=line.subject.rpartition("/")[0] if line.path.startswith("sys/wrapping/") else line.path,
        target_name=name if name and not name.startswith("hmac-") else None,
        at=line.at,
    )


def is_token_lease(lease_id: str) -> bool:
    """Return whether a lease is a token's own."""
    return _TOKEN_LEASE.fullmatch(lease_id.rpartition("/")[2]) is not None
