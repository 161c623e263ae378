"""How much a task's token may do before its task ends.

The worker writes these limits into the token's metadata, so that an agent without a Vault identity of its own knows
them from the moment of its unwrap. Tripwires compare what the token does with the revision and the worker's settings,
never with the metadata.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RENEWED_FOR_YOU = "renewed for you, do not renew"
_WORD = re.compile(r"reads=(\d{1,9}) denied=(\d{1,9})")


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """The limits of one task token.

    `reads` is how many credentials its templates allow together; `denied` is how many denied requests end the task.
    """

    reads: int
    denied: int

    def as_word(self) -> str:
        """Return the text for a task token's metadata."""
        return f"reads={self.reads} denied={self.denied}"

    @classmethod
    def of_word(cls, word: str) -> TokenLimits | None:
        """Parse what `as_word` wrote; None for any other text."""
        found = _WORD.fullmatch(word)
        return cls(int(found[1]), int(found[2])) if found else None

    def in_words(self) -> str:
        """Return what the agent may do, for people who read it in a hurry."""
        reads = f"{self.reads} read" if self.reads == 1 else f"{self.reads} reads"
        denied = "one denied request ends" if self.denied == 1 else f"{self.denied} denied requests end"
        return f"{reads}, one more ends the task; {RENEWED_FOR_YOU}; {denied} the task"


def reads_left_in_words(done: int, allowed: int) -> str:
    """Return how many reads are done, and what one too many does."""
    if done < allowed:
        return f"{done} of {allowed} done"
    return f"{done} of {allowed} done: that was the last one, and another one ends the task"
