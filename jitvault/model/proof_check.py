"""One numbered check of a proof: its name, its result and its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NAMES = {
    1: "issued",
    2: "revocation_answered",
    3: "lookup_says_gone",
    4: "nothing_in_between",
    5: "stream_trusted",
    6: "target_refuses",
    7: "quiet",
}


TARGET_N = 6
"""The check that the target itself answers."""


NOT_ASKED = "revoked at Vault; the target was not asked"
"""What is said of an end that rests on the audit stream alone, where another one is called proven."""


QUIET_N = 7
"""The check that passes by time alone."""


_PERMANENT_ENDING = "nothing makes up for that"


def permanent_evidence(what: str) -> str:
    """Return evidence that marks a failed check as one that can never pass.

    The ledger stores a check's evidence, but no flag of its own for this, so `Check.permanent` reads the mark again.
    """
    return f"{what}: {_PERMANENT_ENDING}"


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check of a proof.

    `evidence` names the lines or answers that the result rests on, or says what is missing.
    """

    n: int
    ok: bool
    evidence: str

    @classmethod
    def failed_for_good(cls, n: int, what: str) -> Check:
        """Return a failed check that can never pass because of `what`."""
        return cls(n, ok=False, evidence=permanent_evidence(what))

    @property
    def permanent(self) -> bool:
        """Return whether the check failed and can never pass any more."""
        return not self.ok and self.evidence.endswith(_PERMANENT_ENDING)

    def as_json(self) -> dict[str, Any]:
        return {"n": self.n, "name": NAMES[self.n], "ok": self.ok, "evidence": self.evidence}
