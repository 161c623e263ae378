"""Observations: what one line of the audit stream shows to jitvault.

`jitvault.audit.classify` makes at most one observation of a line. The `subject` is the credential that the line is
about: a lease id, or the HMAC of a token's accessor. The `actor` is the HMAC of the accessor of the token that
acted. Metadata and headers identify nobody, since a client can choose both: they are only kept for display.

Some lines show no accessor of ours and yet are about a task: an unwrap, a read of a wrapping, a token that Vault
does not know any more. They name a token by its HMAC (`token`), and an earlier line said from which task token the
token with that HMAC was derived (`alias`): `jitvault.audit.trail` joins the two.

Shapes: docs/vault-facts.md, "Audit entries".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

PLAIN = "plain"
"""Stands in a line's detail for a value that the device shows in plain instead of as an HMAC."""


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


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a line in its stream.

    The line begins at byte `offset` of segment `epoch` of `source`. A gap in what was read begins a new segment; a
    rotated file does not.
    """

    source: str
    epoch: int
    offset: int


@dataclass(frozen=True, slots=True)
class Observation:
    """One audit line that matters.

    `line` is the SHA-256 of the line's bytes; `at` is Vault's time, UTC; `closing` tells a response from a request.
    `failed` is true if the line shows an error, or that the act was not carried out. `error` is the error text, or
    its HMAC if Vault shows only that. `token` is the HMAC of the token that the line names, if no accessor says
    whose it is. `alias` is the HMAC of a derived token, which belongs to the task token from this line on: its
    wrapping token, the token itself, or the wrapping of what it read. HashiCorp Vault stores a token in another
    form than it issues: the request line of an act of the token has the stored form.
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
        """The accessor HMAC of the task token that `alias` was derived from."""
        return self.actor if self.kind in (Kind.USED, Kind.LEASE_ISSUED) else self.subject

    @property
    def wrapping(self) -> str:
        """The HMAC of the wrapping token in which a token got what it read."""
        return self.alias if self.kind is Kind.USED and self.closing else ""


# The longest TTL that Vault itself gives; a larger number says nothing.
_LONGEST_S = 10 * 366 * 24 * 3600


def renewed_until(line: Observation) -> datetime | None:
    """Return the latest time up to which a renewal can have extended a lease.

    The time is by Vault's clock. The result is None if the time is unknown, and for a line that is no renewal or that
    Vault denied. An answer shows the TTL that was given. The increment that was requested bounds it, and is shown in
    the line on OpenBao alone; an increment of nothing is the longest that Vault may give (docs/vault-facts.md,
    "Renewals").
    """
    seconds = line.detail.get("ttl_s") or line.detail.get("increment_s", 0)
    is_renewal = line.kind is Kind.RENEWED and "denied" not in line.detail
    return line.at + timedelta(seconds=seconds) if is_renewal and 0 < seconds <= _LONGEST_S else None


_RESTORES = frozenset({"sys/storage/raft/snapshot", "sys/storage/raft/snapshot-force"})


def restores(lines: Sequence[Observation]) -> Iterator[Observation]:
    """Return the lines that show that a snapshot of Vault was restored."""
    return (o for o in lines if o.kind is Kind.HAZARD and o.path in _RESTORES and o.closing and not o.failed)


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
