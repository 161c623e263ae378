"""Results of a template's check: its steps, and the outcome for one path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jitvault.documents.template_check import Basis

STEPS = {
    1: "name_shown",
    2: "leased",
    3: "ttl_within",
    4: "probe_rights",
    5: "used",
    6: "probe_sees_it",
    7: "revoked",
    8: "session_ended",
    9: "login_refused",
    10: "probe_sees_end",
    11: "unchanged",
    12: "no_foreign_code",
    13: "bounded",
    14: "servers_named",
    15: "sleeper_ended",
    16: "lock_outlasted",
    17: "owner_dropped",
    18: "many_ended",
    19: "as_asked",
    20: "no_vault_login",
}
INSPECTED = range(12, 15)
"""The steps that inspect what a target, and Vault's connection to it, allow."""
RESISTED = range(15, 19)
"""The steps in which a credential resists its revocation."""
PROBED = (10, 1, 4, 6)
"""The steps that need an engine's probe; the first of them speaks for all where it has none."""
TRIED = (5, 8, 9, *INSPECTED, *RESISTED, 19)
"""The steps that need an engine's trial, likewise."""


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a step: `evidence`, and `mend`, what to do about it.

    `is_remark` marks evidence that an administrator has to read although the step is ok.
    """

    ok: bool
    evidence: str
    mend: str = ""
    is_remark: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One numbered step of a check.

    `evidence` says what was seen, `mend` what to do about it where the step is not ok. `is_remark` marks evidence that
    an administrator has to read although the step is ok.
    """

    n: int
    ok: bool
    evidence: str
    mend: str
    is_remark: bool = False

    @property
    def name(self) -> str:
        return STEPS[self.n]

    def as_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "name": self.name,
            "ok": self.ok,
            "evidence": self.evidence,
            "mend": self.mend,
            "remark": self.is_remark,
        }


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What a check issued and could not revoke.

    `commands` end it; an administrator types them in Vault or at the target.
    """

    what: str
    commands: tuple[str, ...] = ()

    @classmethod
    def lease(cls, lease_id: str) -> LeftBehind:
        """Return a lease that Vault could not revoke."""
        return cls(f"lease {lease_id}", (f"bao lease revoke -sync {lease_id}",))

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of checking one path.

    `left_behind` is what could not be revoked, so that an administrator has to do it. `ended` are the leases that
    the check issued and revoked.
    """

    path: str
    with_: Mapping[str, str]
    basis: Basis
    steps: tuple[Step, ...]
    left_behind: tuple[LeftBehind, ...]
    ms: int
    ended: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return [step.n for step in self.steps if step.ok] == sorted(STEPS) and not self.left_behind

    @property
    def remarks(self) -> tuple[str, ...]:
        return tuple(f"{s.name}: {s.evidence}" for s in self.steps if s.ok and s.is_remark)

    @property
    def failed(self) -> tuple[str, ...]:
        missing = () if {step.n for step in self.steps} == set(STEPS) else ("it did not come to its end",)
        return (*(f"{s.name}: {s.evidence}" for s in self.steps if not s.ok), *missing)
