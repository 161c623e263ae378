"""What the evidence of a check that holds says, for the verifier's own rules.

Evidence of another kind than a check needs proves nothing. What a target answered (check 6) is a text of its engine,
and nobody can derive it again, unless an issuer signed what it was read from (`issuer_answers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Literal

from jitvault.model.evidence import (
    Contiguous,
    Evidence,
    Expiry,
    Gap,
    Interval,
    Line,
    NoToken,
    Quiet,
    TargetAnswer,
)
from jitvault.model.proof_check import QUIET_N, TARGET_N, Check

QUIET_MS = 1000
Purpose = Literal["check", "listing", "alive"]
"""What a line is to show: what its check says, a listing of leases, or a look-up that found the credential alive."""
_KINDS: Mapping[int, tuple[type, ...]] = {
    1: (Line,),
    2: (Line, Expiry),
    3: (Line, Expiry),
    4: (Interval,),
    5: (Contiguous, Gap),
    TARGET_N: (TargetAnswer,),
    QUIET_N: (Quiet, NoToken),
}


def evidence_of(check: Check | None) -> Evidence | None:
    """Return the evidence of a check that holds; None where it does not hold, or shows nothing."""
    if check is None or not check.ok or not isinstance(check.evidence, _KINDS.get(check.n, ())):
        return None
    match check.evidence:
        case Contiguous(begin=begin, end=end):
            return check.evidence if begin < end else None
        case TargetAnswer(answer=answer):
            return check.evidence if answer.strip() else None
    return check.evidence


def time_of(evidence: Evidence | None) -> datetime | None:
    """Return the time of a line or of an expiry."""
    return evidence.at if isinstance(evidence, Line | Expiry) else None


def lines_in(evidence: Evidence | None) -> Iterator[tuple[Purpose, str, str]]:
    """Yield each line that evidence names: for what, the field that names it, and its SHA-256."""
    if isinstance(evidence, Line):
        yield "check", "sha256", evidence.sha256
    elif isinstance(evidence, Gap):
        yield "listing", "listing", evidence.listing
        if evidence.line:
            yield "alive", "line", evidence.line
