"""From the audit stream into the ledger: how many observations a second, and how soon while following."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median

from sqlalchemy import select

from benchmarks.measure import Figure, milliseconds
from benchmarks.scene import Scene
from jitvault.audit.files.file_source import BATCH_OBSERVATIONS
from jitvault.audit.observation import Kind, Observation
from jitvault.audit.source import Batch, Position
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import opened
from jitvault.model.states import State

OBSERVATIONS = 20_000
TIMES = 3
FOLLOWED = 60
_PAUSE_S = 0.03


def run(scene: Scene) -> list[Figure]:
    """The ledger is the scene's own, on disk with synchronous=FULL; the lines are its own too, each made new."""
    seen = _own(scene)
    rates = [_entered(scene, seen, n) for n in range(TIMES)]
    waits = _followed(scene)
    return [
        Figure(
            "observations_per_s",
            median(rates),
            "1/s",
            f"{OBSERVATIONS:,} of the scene's own observations, batches of {BATCH_OBSERVATIONS}, {TIMES} times",
            better="higher",
            bar=20_000,
        ),
        Figure("follow_ms", median(waits), "ms", f"Vault's time of {FOLLOWED} lines to their row", bar=50),
        Figure("follow_worst_ms", max(waits), "ms", "the worst of these"),
    ]


def _entered(scene: Scene, seen: list[Observation], n: int) -> float:
    """Observations of a used task, each with a hash of its own, entered as if a file had just brought them."""
    ledger, source = scene.worker.ledger, f"bench-{n}"
    lines = [
        replace(
            seen[i % len(seen)],
            line=secrets.token_hex(32),
            place=replace(seen[0].place, source=source, epoch=1, offset=i * 1400),
        )
        for i in range(OBSERVATIONS)
    ]
    ledger.start_source(source, Position("bench", 0, 1))

    def enter() -> None:
        position = Position("bench", 0, 1)
        for start in range(0, len(lines), BATCH_OBSERVATIONS):
            part = tuple(lines[start : start + BATCH_OBSERVATIONS])
            batch = Batch(part, Position("bench", part[-1].place.offset + 1400, 1), (), len(part))
            ledger.observe(source, batch, after=position, at=datetime.now(UTC))
            position = batch.position

    return OBSERVATIONS / milliseconds(enter) * 1000


def _own(scene: Scene) -> list[Observation]:
    """The lines of one used task as its ledger has them, but those that would mean a second token of it."""
    spec = scene.used()
    scene.advance(spec, State.CONFIRMED)
    record = scene.worker.ledger.record(spec.id)
    if record is None:
        raise RuntimeError(f"task {spec.id} is not in the ledger")
    lines = scene.worker.ledger.trail(record).observations
    return [o for o in lines if o.kind not in (Kind.TOKEN_CREATED, Kind.UNWRAPPED, Kind.CANARY)]


def _followed(scene: Scene) -> list[float]:
    """While `jitvault worker` runs: from the time in Vault's line to the moment its row can be read."""
    database = opened(scene.variables["JITVAULT_LEDGER"], create=False)
    base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    argv = [sys.executable, "-m", "jitvault", "worker", "--sweep-every", "never"]
    waits = []
    with subprocess.Popen(argv, env={**base, **scene.variables}, stderr=subprocess.DEVNULL) as follower:
        try:
            for n in range(FOLLOWED + 1):
                expected = scene.worker.hasher.hash(secrets.token_hex(16))
                query = select(schema.observations.c.at).where(
                    schema.observations.c.subject == expected, schema.observations.c.closing
                )
                deadline = time.monotonic() + 15
                written = None
                while written is None:
                    with database.read() as connection:
                        written = connection.execute(query).scalar()
                    seen = datetime.now(UTC)
                    if time.monotonic() > deadline:
                        raise RuntimeError("the worker does not enter what Vault writes")
                    time.sleep(0.001)
                # the first waits for the worker's start
                if n:
                    waits.append((seen - written).total_seconds() * 1000)
                time.sleep(_PAUSE_S)
        finally:
            follower.send_signal(signal.SIGTERM)
    return waits
