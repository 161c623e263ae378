"""The steps of a template's check that look at a target, and at Vault's connection to it, for ways out of an end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jitvault.engines.interface import Engine, TargetFinding
from jitvault.errors import JitvaultError
from jitvault.provision.template_check.steps import INSPECTED, STEPS

_NOTHING_FOUND = {
    "no_foreign_code": "nothing that a task's login can write is searched or run by a stronger one",
    "bounded": "what the login may do is bounded, and so is how long a revocation waits",
    "servers_named": "the servers that are named know of no other",
}


@dataclass(frozen=True, slots=True)
class Inspected:
    """What one step found, and what to do about it; what is `told` has to be read although it is ok."""

    ok: bool
    evidence: str
    mend: str = ""
    told: bool = False


def inspected(
    engine: Engine, where: Mapping[str, Any], snapshot: Callable[[], Mapping[str, Any]], name: str
) -> dict[int, Inspected]:
    """Look at the target while the credential `name` is alive, and say of each step what was found."""
    try:
        found = engine.inspect(where, snapshot(), name)
    except JitvaultError as error:
        return {n: Inspected(False, str(error)) for n in INSPECTED}
    return {n: _step(STEPS[n], [one for one in found if one.step == STEPS[n]]) for n in INSPECTED}


def _step(step: str, found: Sequence[TargetFinding]) -> Inspected:
    """What is not certain does not fail the check: `jitvault doctor` warns of it, too."""
    certain = [one for one in found if one.certain]
    said = [one.seen for one in certain or found] or [_NOTHING_FOUND[step]]
    return Inspected(not certain, "; ".join(said), " ".join(one.mend for one in certain))
