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


QUIET_N = 7
"""The check that passes by time alone."""


LASTING = "nothing makes up for that"
"""How the evidence of a check ends that can never pass any more."""


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check of a proof.

    `evidence` names the lines or answers that the result rests on, or says what is missing.
    """

    n: int
    ok: bool
    evidence: str

    def as_json(self) -> dict[str, Any]:
        return {"n": self.n, "name": NAMES[self.n], "ok": self.ok, "evidence": self.evidence}
