"""Steps of a template's check that inspect its target.

They search the target, and Vault's connection to it, for ways to escape revocation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jitvault.engines.interface import Finding, Trial
from jitvault.errors import JitvaultError
from jitvault.provision.template_check.steps import INSPECTED, STEPS, Found

_NOTHING_FOUND = {
    "no_foreign_code": "nothing that a task's login can write is searched or run by a stronger one",
    "bounded": "what the login may do is bounded, and so is how long a revocation waits",
    "servers_named": "the servers that are named know of no other",
}


def inspected(
    trial: Trial, where: Mapping[str, Any], snapshot: Callable[[], Mapping[str, Any]], name: str
) -> dict[int, Found]:
    """Inspect the target while the credential `name` is live.

    Returns the result of each step by number.
    """
    try:
        found = trial.inspect(where, snapshot(), name)
    except JitvaultError as error:
        return {n: Found(False, str(error)) for n in INSPECTED}
    return {n: _step(STEPS[n], [finding for finding in found if finding.step == STEPS[n]]) for n in INSPECTED}


def _step(step: str, found: Sequence[Finding]) -> Found:
    """Return the result of a step.

    Findings that are not certain do not fail it; `jitvault doctor` warns of them.
    """
    certain = [finding for finding in found if finding.certain]
    evidence = [finding.seen for finding in certain or found] or [_NOTHING_FOUND[step]]
    return Found(not certain, "; ".join(evidence), " ".join(finding.mend for finding in certain))
