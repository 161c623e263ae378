"""What a verification checked, with what result, and what it cannot check."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Basis(StrEnum):
    """Whether a result was derived again, or is the word of whoever signed the receipt."""

    REDERIVED = "rederived"
    ATTESTED = "attested"


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not hold, in words, and the JSON pointers of the values that contradict each other."""

    text: str
    places: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.text} (at {', '.join(self.places)})"

    def as_json(self) -> dict[str, Any]:
        return {"text": self.text, "places": list(self.places)}


@dataclass(frozen=True, slots=True)
class Checked:
    """One check.

    `seen` says in words what was found where everything holds. `problems` says what does not hold; empty where
    everything does. `why_not_made` says why the check could not be made; empty where it was. `read` says which files it
    rests on.
    """

    name: str
    seen: str
    problems: tuple[Problem, ...] = ()
    why_not_made: str = ""
    read: str = ""
    basis: Basis = Basis.REDERIVED

    @property
    def holds(self) -> bool | None:
        """Whether the check holds; None where it could not be made."""
        if self.problems:
            return False
        return None if self.why_not_made else True

    def as_json(self) -> dict[str, Any]:
        seen = {True: self.seen, None: self.why_not_made, False: self.read}[self.holds]
        problems = [problem.as_json() for problem in self.problems]
        return {"name": self.name, "holds": self.holds, "basis": self.basis, "seen": seen, "problems": problems}


@dataclass(slots=True)
class Outcome:
    """The result of a verification.

    `remarks` is what the receipt says that nobody should overlook, such as findings. `not_checked` says in words what
    these inputs cannot show, whatever the checks say; a check that lacks its input is `not_made`. `attested` has the
    JSON pointers of what is the word of whoever signed the receipt, with these inputs.
    """

    checked: list[Checked] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    attested: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool | None:
        """Whether every check holds.

        None where none fails, and one could not be made.
        """
        results = {one.holds for one in self.checked}
        if False in results or not results:
            return False
        return None if None in results else True

    @property
    def problems(self) -> list[Problem]:
        """Return everything that does not hold, in the order of the checks."""
        return [problem for one in self.checked for problem in one.problems]

    @property
    def not_made(self) -> list[Checked]:
        """Return the checks that could not be made."""
        return [one for one in self.checked if one.holds is None]
