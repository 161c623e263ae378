"""Whether the files allow that a token expired when a receipt says so.

Vault writes no line when a token expires. How long it lives at most is said by its look-ups and its renewals, and by
its role where there are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from jitvault.audit.observation import Kind, renewed_until
from jitvault.audit.trail import derived_tokens, done, owning_token
from jitvault.formats.rfc3339 import rfc3339
from jitvault.model.evidence import Expiry
from jitvault.model.vault_access import last_end
from jitvault.verification.audit_scan import Scan
from jitvault.verification.outcome import Problem
from jitvault.verification.receipt import Credential


def expiry_problems(credential: Credential, scan: Scan) -> Iterator[Problem]:
    """Yield what contradicts that a token's time was over.

    That is a token without its creation and look-ups, a later end in the files, or files that end before.
    """
    over_at, life = _over_at(credential), _life(credential, scan)
    if over_at is None:
        return
    name, at = credential.name, (credential.at(2, "evidence", "at"),)
    if life.last is None:
        yield Problem(f"no line says how long {name} lived", at)
    elif over_at < life.last and life.is_from_lines:
        until = rfc3339(life.last)
        yield Problem(f"{name} was not over at {rfc3339(over_at)}: by the files it could live until {until}", at)
    if scan.last is None or scan.last < over_at:
        yield Problem(f"the files end before {rfc3339(over_at)}, when the time of {name} is said to be over", at)


def unshown_expiry(credential: Credential, scan: Scan) -> Iterator[str]:
    """Yield that only a token's role bounds its life, where that bound is later than the end that is said.

    The creation does not say how long the token lives. Where the worker died right after it, there is no look-up.
    """
    over_at, life = _over_at(credential), _life(credential, scan)
    if over_at is not None and life.last is not None and over_at < life.last and not life.is_from_lines:
        yield (
            f"no line says whether {credential.name} was over at {rfc3339(over_at)}; its role allows it "
            f"until {rfc3339(life.last)}"
        )


def _over_at(credential: Credential) -> datetime | None:
    """Return when a token is said to have expired, None for all others."""
    end = credential.evidence(2)
    return end.at if isinstance(end, Expiry) and credential.grant is not None else None


@dataclass(frozen=True, slots=True)
class _Life:
    """The latest end that lines of a token show, or else its role allows."""

    last: datetime | None
    is_from_lines: bool


def _life(credential: Credential, scan: Scan) -> _Life:
    role = credential.grant.role if credential.grant is not None else ""
    derived = derived_tokens(scan.observations)
    ends: list[datetime] = []
    created: datetime | None = None
    for scanned in scan.about:
        line = scanned.observation
        if line is None or not done(line) or owning_token(line, derived) != credential.accessor:
            continue
        if line.kind is Kind.TOKEN_CREATED:
            created = line.at
        elif line.kind is Kind.TOKEN_LOOKUP and scanned.until is not None:
            ends.append(scanned.until)
        elif line.kind is Kind.RENEWED:
            # a renewal that does not say how long it gave can have given all that the role allows
            ends += filter(None, [renewed_until(line) or last_end(role, created)])
    return _Life(max(ends, default=last_end(role, created)), is_from_lines=bool(ends))
