"""What a verification checked, with what result, and what it cannot check."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Checked:
    """One thing that was checked.

    `seen` says in words what was compared. `problems` says what does not hold; empty where everything does.
    """

    name: str
    seen: str
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "holds": self.holds, "seen": self.seen, "problems": list(self.problems)}


@dataclass(slots=True)
class Outcome:
    """The result of a verification.

    `told` is what the receipt says that nobody should overlook, such as findings. `not_checked` says in words what the
    inputs cannot show.
    """

    checked: list[Checked] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Return whether everything that was checked holds."""
        return bool(self.checked) and all(one.holds for one in self.checked)

    @property
    def problems(self) -> list[str]:
        """Return everything that does not hold, in the order of the checks."""
        return [problem for one in self.checked for problem in one.problems]
