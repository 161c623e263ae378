"""A lease as the audit stream shows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jitvault.domain.observation import Kind, Observation


@dataclass(frozen=True, slots=True)
class Issued:
    """`path` is where it was read; `username` is the login that a probe looks for, None where no line shows it."""

    lease_id: str
    path: str
    username: str | None
    at: datetime


def issued(line: Observation) -> Issued | None:
    """The lease that a line shows as issued, or None."""
    if line.kind is not Kind.LEASE_ISSUED or not line.closing:
        return None
    username = line.detail.get("username")
    return Issued(
        lease_id=line.subject,
        # an unwrap shows the lease of what was read elsewhere; its id begins with that path
        path=line.subject.rpartition("/")[0] if line.path.startswith("sys/wrapping/") else line.path,
        username=username if username and not username.startswith("hmac-") else None,
        at=line.at,
    )
