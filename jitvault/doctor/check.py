"""Checks of `jitvault doctor`, and the abilities that depend on them.

The abilities are to grant access, to revoke it and to prove its end. A check that could not be made is `skipped`, never
`ok`. Each ability needs all its checks: one that failed makes it a no, and one that was skipped leaves it unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from jitvault.errors import JitvaultError
from jitvault.formats.plural import listed

T = TypeVar("T")


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


class Ability(StrEnum):
    GRANT = "grant"
    REVOKE = "revoke"
    PROVE = "prove"


EVERYTHING = frozenset(Ability)


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    `seen` is what was found, `mend` what to do about it where it is not ok.
    """

    about: About
    status: Status
    seen: str
    mend: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "area": self.about.area,
            "name": self.about.name,
            "status": self.status.value,
            "seen": self.seen,
            "mend": self.mend,
            "needed_to": sorted(self.about.needed_to),
        }


@dataclass(frozen=True, slots=True)
class About:
    """What is checked.

    `needed_to` are the abilities that are missing while the check fails; `error` gives the exit code then. `covered_by`
    is a check that looks at the same by other means: where that one was made, this one leaves no ability unknown if it
    is skipped.
    """

    area: str
    name: str
    error: type[JitvaultError]
    needed_to: frozenset[Ability] = frozenset()
    covered_by: About | None = None

    def ok(self, seen: str) -> Check:
        return Check(self, Status.OK, seen)

    def warn(self, seen: str, mend: str) -> Check:
        return Check(self, Status.WARN, seen, mend)

    def fail(self, seen: str, mend: str) -> Check:
        return Check(self, Status.FAIL, seen, mend)

    def judged(self, wrong: Sequence[str], mend: str, fine: str) -> Check:
        """Return a failure that lists what is wrong, or `fine` where nothing is."""
        return self.fail(listed(wrong), mend) if wrong else self.ok(fine)

    def skipped(self, unknown: Unknown) -> Check:
        return Check(self, Status.SKIPPED, unknown.why, unknown.mend)

    def named(self, name: str) -> About:
        """Return this subject with another name, for one of several checks."""
        return replace(self, name=name)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why a fact could not be read, and what reading it takes (`mend`)."""

    why: str
    mend: str


Known: TypeAlias = T | Unknown


def can(checks: Iterable[Check]) -> dict[Ability, bool | None]:
    """Return for each ability whether it is there.

    False where a check failed that it needs, None where one was skipped and nothing else looked at the same. An ability
    without any check is None as well.
    """
    found: dict[Ability, bool | None] = {}
    checks = tuple(checks)
    made = {check.about for check in checks if check.status is not Status.SKIPPED}
    for ability in Ability:
        needed = [check for check in checks if ability in check.about.needed_to]
        unknown = any(check.status is Status.SKIPPED and check.about.covered_by not in made for check in needed)
        failed = any(check.status is Status.FAIL for check in needed)
        if failed:
            found[ability] = False
        elif unknown or not needed:
            found[ability] = None
        else:
            found[ability] = True
    return found


def first_failure(checks: Iterable[Check]) -> Check | None:
    """Return the first failed check, which gives the exit code.

    Each area depends on those before it.
    """
    return next((check for check in checks if check.status is Status.FAIL), None)


def counts(checks: Iterable[Check]) -> dict[str, int]:
    """Return how many checks have each status."""
    states = [check.status for check in checks]
    return {status.value: states.count(status) for status in Status}
