"""Whether the files allow that a token expired when a receipt says so.

Vault writes no line when a token expires. How long it lives at most is said by its look-ups and its renewals, and by
its role where there are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from jitvault.audit.observation import Kind, renewed_until
from jitvault.audit.trail import derived_tokens, done, owning_token
from jitvault.formats.shorten import one_line
from jitvault.model.vault_access import last_end
from jitvault.verification.audit_scan import Scan
from jitvault.verification.evidence import stated
from jitvault.verification.receipt import Credential


def expiry_problems(credential: Credential, found: Scan) -> Iterator[str]:
    """Yield where the files do not show that a token's time was over."""
    check = credential.check(2)
    told = stated(check) if check is not None and check.ok else None
    if told is None or not told.expired or told.at is None or credential.grant is None:
        return
    name = one_line(credential.name)
    last = _last_end(credential, credential.grant.role, found)
    if last is None:
        yield f"no line says how long {name} lived"
    elif told.at < last:
        yield f"{name} was not over at {told.at.isoformat()}: by the files it could live until {last.isoformat()}"
    if found.last is None or found.last < told.at:
        yield f"the files end before {told.at.isoformat()}, when the time of {name} is said to be over"


def _last_end(credential: Credential, role: str, found: Scan) -> datetime | None:
    """Return the latest end that lines of the token show, or its role."""
    derived = derived_tokens(found.observations)
    ends: list[datetime] = []
    created: datetime | None = None
    for seen in found.about:
        line = seen.observation
        if line is None or not done(line) or owning_token(line, derived) != credential.accessor:
            continue
        if line.kind is Kind.TOKEN_CREATED:
            created = line.at
        elif line.kind is Kind.TOKEN_LOOKUP and seen.until is not None:
            ends.append(seen.until)
        elif line.kind is Kind.RENEWED:
            # a renewal that does not say how long it gave can have given all that the role allows
            ends += filter(None, [renewed_until(line) or last_end(role, created)])
    return max(ends, default=last_end(role, created))
