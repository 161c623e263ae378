"""How many active tasks one worker keeps alive at a rolling TTL of two minutes.

KEEP_TASKS=10000 is the whole of it, which lasts as long as that many grants do and some minutes more; `make
bench-keep` says so. A shorter KEEP_TTL_S, in seconds, has fewer tasks make as many renewals a second. With
KEEP_TRIALS=1 the tasks then go through what `benchmarks/keep_trials.py` does to them.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from benchmarks.keep_trials import lost, tried
from benchmarks.latency import working
from benchmarks.measure import Figure, Process
from benchmarks.people import Pair, People, task_of
from benchmarks.scene import Scene, scene
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import opened

TASKS = int(os.environ.get("KEEP_TASKS", "1500"))
LEASES = int(os.environ.get("KEEP_LEASES", "0"))
"""How many PostgreSQL leases each of the tasks has: each is renewed with its token."""
TRIALS = os.environ.get("KEEP_TRIALS") == "1"
TTL_S = int(os.environ.get("KEEP_TTL_S", "120"))
PEOPLE = 8
LATE, MEMORY_MB = 0.8, 300
# each token is renewed twice at least
_HELD_S = 1.25 * TTL_S


def run(directory: Path) -> list[Figure]:
    """`keep_expired`: tasks that lost their token, or anything else that ended one, of KEEP_TASKS that are active.
    `keep_late_share`: 99.9 % of the renewals came before that share of the TTL of 2 min; each is counted from when the
    renewal before it was committed as intended, or the token issued, until its own answer was there. `keep_memory_mb`:
    the most that the worker's process ever had resident, with the grants. `keep_cpu_ms`: its time of processor for one
    renewal, everything included that it does meanwhile; `keep_server_cpu_ms`: OpenBao's.

    The worker is a process of its own with its default of 4 hands and a ledger on SQLite. It grants all of them, each
    unwrapped by an agent, and keeps those that it has granted; then it is watched for 150 s. Where it has all hands
    full before it has granted KEEP_TASKS, those that it has are the most that it keeps here: `keep_tasks` says so.
    """
    with scene(directory / "keep") as world, working(world) as process:
        worker, server = Process(process.pid), Process(world.world.servers.vault.pid)
        names, granted_s = _granted(world)
        with worker.measured(), server.measured():
            begun = time.time()
            time.sleep(_HELD_S)
        memory = worker.peak_mb
        kept = _kept(world, names)
        expired = lost(world, names)
        trials = tried(world, names, process, TTL_S) if TRIALS else []
    renewals = sum(at >= begun for at in kept.answered)
    said = f"{len(names):,} active tasks, {LEASES} leases each, {len(kept.shares):,} renewals in their tokens' lives"
    per = max(1, renewals)
    return [
        Figure("keep_tasks", len(names), "tasks", f"granted in {granted_s:.0f} s", better="higher", bar=TASKS),
        Figure("keep_expired", expired, "tasks", said, bar=0),
        Figure("keep_late_share", _percentile(kept.shares, 0.999), "of TTL", f"p99.9 of {said}", bar=LATE),
        Figure("keep_median_share", _percentile(kept.shares, 0.5), "of TTL", said),
        Figure("keep_memory_mb", memory, "MB", "the worker's most", bar=MEMORY_MB),
        Figure("keep_rate", renewals / _HELD_S, "1/s", f"renewals of tokens in {_HELD_S:.0f} s", better="higher"),
        Figure("keep_cpu_ms", worker.used_s * 1000 / per, "ms", f"the worker's, of {renewals:,} renewals"),
        Figure("keep_server_cpu_ms", server.used_s * 1000 / per, "ms", f"OpenBao's, of {renewals:,} renewals"),
        Figure("keep_cpu_share", worker.used_s / _HELD_S, "cores", "the worker's, while it is watched"),
        *trials,
    ]


def _granted(world: Scene) -> tuple[list[str], float]:
    """Ask for all of them, and unwrap what is delivered, in steps, so that nobody waits for what comes last; gives
    those that are active and how long that took.
    """
    started, active = time.monotonic(), list[str]()

    def asks(pair: Pair, name: str) -> None:
        spec = task_of(name, **{"for": "1h", "ttl": f"{TTL_S}s"})
        pair.submits(spec)
        pair.wishes(spec)

    def unwraps(pair: Pair, name: str) -> None:
        token = pair.takes(name)
        for _ in range(LEASES):
            pair.reads(token)
        active.append(name)

    with People(world, PEOPLE) as people:
        for first in range(0, TASKS, 50):
            names = [f"bench-{secrets.token_hex(6)}" for _ in range(min(50, TASKS - first))]
            people.all_do(lambda pair, name=name: asks(pair, name) for name in names)  # type: ignore[misc]
            if people.on_delivery(names, unwraps, within_s=TTL_S, stalled_s=TTL_S / 2):
                # it has all hands full of those that it keeps
                break
    return active, time.monotonic() - started


@dataclass
class Kept:
    """What the ledger says of the renewals. `shares`: how much of its life each token had had at each of them."""

    shares: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)


def _kept(world: Scene, names: list[str]) -> Kept:
    database = opened(world.variables["JITVAULT_LEDGER"], create=False)
    grant, op = schema.grants.c, schema.operations.c
    renewals = select(op.task_id, op.sent_at, op.answered_at).where(op.kind == "renew_token").order_by(op.sent_at)
    kept = Kept()
    sent: dict[str, list[tuple[datetime, datetime | None]]] = defaultdict(list)
    with database.read() as connection:
        now = datetime.now().astimezone()
        issued = {row.task_id: row.issued_at for row in connection.execute(select(grant.task_id, grant.issued_at))}
        for task_id, sent_at, answered_at in connection.execute(renewals):
            sent[task_id].append((sent_at, answered_at))
    for task_id in names:
        last = issued[task_id]
        assert last is not None
        for sent_at, answered_at in sent[task_id]:
            kept.shares.append(((answered_at or now) - last) / timedelta(seconds=TTL_S))
            last = sent_at
            if answered_at:
                kept.answered.append(answered_at.timestamp())
        # of what is overdue at the end
        kept.shares += [share] if (share := (now - last) / timedelta(seconds=TTL_S)) > LATE else []
    return kept


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.inf
