"""From the wish to end a task to dead, and to confirmed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from statistics import median

from benchmarks.measure import Figure, ratio
from benchmarks.meter import COMMIT, STATEMENT, VAULT, Meter, metered
from benchmarks.meter import component_figures as parts
from benchmarks.scene import Scene
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.confirmation.quiet_rules import QUIET
from jitvault.model.states import State

TIMES = 15
MOST = {VAULT: 13, COMMIT: 6, STATEMENT: 120}
"""What one completion asked for when these bars were set."""
_MS = timedelta(milliseconds=1)


def run(scene: Scene) -> tuple[list[Figure], Meter]:
    """A task with one PostgreSQL lease is completed.

    `dead`: from the committed decision to end it until Vault has said of the token and of the lease that each
    is gone. Against `revoke-accessor`, one synchronous `leases/revoke` and one look-up by bare hvac, of an equal
    token and lease on the same server. `confirm_overhead`: from the wish to the event `confirmed`, without the
    quiet second that it has to wait. The last run's meter is given too.
    """
    scene.advance(scene.used(), State.CONFIRMED)
    meters: list[Meter] = []
    dead: list[float] = []
    to_dead: list[float] = []
    confirmed: list[float] = []
    bare: list[float] = []
    for _ in range(TIMES):
        spec = scene.used()
        asked = datetime.now(UTC)
        with metered() as meter:
            file = scene.advance(spec, State.CONFIRMED)
        meters.append(meter)
        died = _dead_at(file)
        dead.append((died - (file.task.ending_at or asked)) / _MS)
        to_dead.append((died - asked) / _MS)
        confirmed.append((_confirmed_at(file) - asked - QUIET) / _MS)
        bare.append(scene.bare.revoke())
    said = f"{median(bare):.1f} ms for revoke, revoke, look-up by bare hvac, {TIMES} pairs"
    return [
        Figure("dead_ratio", ratio(dead, bare), "ratio", said, bar=2),
        Figure("dead_ms", median(dead), "ms", said),
        Figure("bare_dead_ms", median(bare), "ms", "itself"),
        Figure("complete_to_dead_ms", median(to_dead), "ms", said),
        Figure("confirm_overhead_ms", median(confirmed), "ms", f"the quiet second, {TIMES} times"),
        *parts("complete", meters, MOST),
    ], meters[-1]


def _dead_at(record: TaskRecord) -> datetime:
    found = [grant.dead_at for grant in record.grants] + [lease.dead_at for lease in record.leases]
    times = [at for at in found if at]
    if len(record.leases) != 1 or len(times) != len(found):
        raise RuntimeError(f"task {record.task.task_id} should have one dead token and one dead lease")
    return max(times)


def _confirmed_at(record: TaskRecord) -> datetime:
    return next(datetime.fromisoformat(event.at) for event in reversed(record.events) if event.kind == "confirmed")
