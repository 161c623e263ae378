"""What one line of the audit stream says, as far as jitvault cares: `jitvault.audit.classify` makes it.

A line becomes at most one observation. Its `subject` is the credential that it is about: a lease id, or
the HMAC of a token's accessor; its `actor` is the HMAC of the accessor of the token that acted. Neither
metadata nor headers identify anybody, since a client can choose both: they are kept to be shown.

Some lines show no accessor of ours and yet are about a task: an unwrap, a read of what is wrapped, a token that
Vault does not know any more. They name a token by its HMAC (`token`), and an earlier line said which task token
that HMAC stands for (`alias`): `jitvault.audit.token_links` joins the two.
Shapes: docs/vault-facts.md, "Audit entries".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

PLAIN = "plain"
"""Of a value that is not shown as an HMAC, in a line's detail."""


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
    for the task token from now on: its wrapping token, the token itself, or the wrapping of what it read. HashiCorp
    Vault keeps a token in another form than it gives out: the request line of what a token did has that form.
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

    @property
    def wrapping(self) -> str:
        """The HMAC of the wrapping token in which a token got what it read."""
        return self.alias if self.kind is Kind.USED and self.closing else ""


# Vault's own longest; what is more says nothing
_LONGEST_S = 10 * 366 * 24 * 3600


def renewed_until(line: Observation) -> datetime | None:
    """The latest time, by Vault's clock, up to which a renewal can have let a credential live; None where that is not
    known, and for any other line.

    An answer says how long that was. What was asked for is the most that it can have been, and stands in the line on
    OpenBao alone; an increment of nothing is the longest that Vault may give (docs/vault-facts.md, "Renewals").
    """
    seconds = line.detail.get("ttl_s") or line.detail.get("increment_s", 0)
    return line.at + timedelta(seconds=seconds) if line.kind is Kind.RENEWED and 0 < seconds <= _LONGEST_S else None


_RESTORES = frozenset({"sys/storage/raft/snapshot", "sys/storage/raft/snapshot-force"})


def restores(lines: Sequence[Observation]) -> Iterator[Observation]:
    """The lines that say that a snapshot of Vault was put back."""
    return (o for o in lines if o.kind is Kind.HAZARD and o.path in _RESTORES and o.closing and not o.failed)
