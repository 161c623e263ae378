"""From approved to delivered."""

from __future__ import annotations

from statistics import median

from benchmarks.measure import Figure, ratio
from benchmarks.meter import COMMIT, STATEMENT, VAULT, Meter, metered
from benchmarks.meter import component_figures as parts
from benchmarks.scene import Scene
from jitvault.model.states import State

TIMES = 15
MOST = {VAULT: 22, COMMIT: 7, STATEMENT: 90}
"""What one grant asked for when these bars were set."""


def run(scene: Scene) -> tuple[list[Figure], Meter]:
    """`advance` of an approved task up to its token in the inbox, on a ledger with synchronous=FULL.

    Against a bare hvac loop that sends the very same requests again (what jitvault adds besides), and against
    the three requests that a grant cannot do without (what it asks besides). The last run's meter is given too.
    """
    scene.advance(scene.asked(), State.ISSUED)
    meters: list[Meter] = []
    same: list[float] = []
    needed: list[float] = []
    for _ in range(TIMES):
        spec = scene.asked()
        with metered() as meter:
            scene.advance(spec, State.ISSUED)
        meters.append(meter)
        same.append(scene.bare.replay(meter.requests))
        needed.append(scene.bare.grant())
    own = [meter.total_ms for meter in meters]
    said = f"{median(same):.1f} ms for the same requests by bare hvac, {TIMES} pairs"
    least = f"{median(needed):.1f} ms for the three requests it needs by bare hvac, {TIMES} pairs"
    return [
        Figure("grant_ratio", ratio(own, same), "ratio", said),
        Figure("grant_needed_ratio", ratio(own, needed), "ratio", least),
        Figure("grant_ms", median(own), "ms", said),
        Figure("grant_same_requests_ms", median(same), "ms", "itself"),
        Figure("grant_needed_requests_ms", median(needed), "ms", "itself"),
        *parts("grant", meters, MOST),
    ], meters[-1]
