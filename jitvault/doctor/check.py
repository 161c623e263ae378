"""One check of a check-up, and what all of them together say: can access be granted, revoked and proven here?

A check that could not be made is `skipped`, never `ok`. What grants, revokes or proves needs all its checks: one that
failed is a no, and one that was skipped leaves it unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from jitvault.errors import JitvaultError

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
    """What was `seen` of one thing, and what to do about it (`mend`) where it is not ok."""

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
    """What is checked. `needed_to` is what cannot be done while it fails; `error` gives the exit code then.

    What `only_admins` can look at leaves nothing unknown where none of them asks: the worker's own work shows it, late.
    """

    area: str
    name: str
    error: type[JitvaultError]
    needed_to: frozenset[Ability] = frozenset()
    only_admins: bool = False

    def ok(self, seen: str) -> Check:
        return Check(self, Status.OK, seen)

    def warn(self, seen: str, mend: str) -> Check:
        return Check(self, Status.WARN, seen, mend)

    def fail(self, seen: str, mend: str) -> Check:
        return Check(self, Status.FAIL, seen, mend)

    def skipped(self, unknown: Unknown) -> Check:
        return Check(self, Status.SKIPPED, unknown.why, unknown.mend)

    def named(self, name: str) -> About:
        """The same about one of several."""
        return replace(self, name=name)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why something could not be looked at, and what it takes."""

    why: str
    mend: str


Known: TypeAlias = T | Unknown


def can(checks: Iterable[Check]) -> dict[Ability, bool | None]:
    """Whether each ability is there: False where a check that it needs failed, None where one could not be made."""
    found: dict[Ability, bool | None] = {}
    checks = tuple(checks)
    for ability in Ability:
        needed = [check for check in checks if ability in check.about.needed_to]
        unknown = any(check.status is Status.SKIPPED and not check.about.only_admins for check in needed)
        failed = any(check.status is Status.FAIL for check in needed)
        found[ability] = False if failed else None if unknown or not needed else True
    return found


def first_failure(checks: Iterable[Check]) -> Check | None:
    """The failed check that the exit code tells of: the areas stand in the order in which one rests on the other."""
    return next((check for check in checks if check.status is Status.FAIL), None)


def counts(checks: Iterable[Check]) -> dict[str, int]:
    """How many checks have each status."""
    states = [check.status for check in checks]
    return {status.value: states.count(status) for status in Status}


def listed(names: Iterable[str], most: int = 3) -> str:
    """Some of `names`, and how many there are besides."""
    names = tuple(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
