"""One numbered check of a proof: its name, its result and its evidence.

`jitvault.lifecycle.record.check_words` says in words what the evidence is.
"""

from __future__ import annotations

from msgspec import Struct

from jitvault.model.evidence import Evidence, Missing

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


class Check(Struct, frozen=True, forbid_unknown_fields=True):
    """One numbered check of a proof, as the ledger, the published copy and the receipt have it.

    `evidence` is what the result rests on, or what is missing.
    """

    n: int
    ok: bool
    evidence: Evidence

    @property
    def name(self) -> str:
        return NAMES[self.n]

    @property
    def permanent(self) -> bool:
        """Return whether the check failed and can never pass any more."""
        return not self.ok and isinstance(self.evidence, Missing) and self.evidence.for_good
