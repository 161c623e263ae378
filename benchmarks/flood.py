"""One agent that writes documents as fast as Vault takes them, and what others have of that.

FLOOD_DOCUMENTS, FLOOD_UNSIGNED and FLOOD_PAST say how many there are; it lasts some six minutes.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import func, insert, select

from benchmarks.latency import working
from benchmarks.measure import Figure
from benchmarks.people import Pair, task_of
from benchmarks.scene import Scene, scene
from jitvault.errors import VaultRefused, VaultRejected
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import opened
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.model.event_chain import GENESIS
from jitvault.model.kinds import OperationKind
from jitvault.model.states import EndReason, State
from jitvault.vault.client import Connection, Vault

DOCUMENTS = int(os.environ.get("FLOOD_DOCUMENTS", "14224"))
PAST = int(os.environ.get("FLOOD_PAST", "20000"))
UNSIGNED = int(os.environ.get("FLOOD_UNSIGNED", "4000"))
STEP_S = 10
"""The rolling step of the tasks that are held meanwhile."""
HELD, WRITERS, EVERY_S = 10, 4, 5.0
_JUNK = json.dumps({"data": {"payload": "bm90aGluZw==", "payloadType": "x", "signatures": []}})
_PATIENCE_S, _LOOK_S = 120.0, 0.01


def run(directory: Path) -> list[Figure]:
    """While one agent writes FLOOD_DOCUMENTS unsigned wishes to end tasks that do not exist, with 4 connections:
    `flood_revoke_ms`, the longest time from an operator's signed end until Vault does not know the task's token any
    more, and `flood_lease_ms`, until it does not know its PostgreSQL lease; `flood_grant_ms`, the longest from a signed
    wish until its wrapping token can be read; `flood_renewal_share`, of ten tasks that are held the longest time
    between two renewals of a token, as a share of its step of 10 s. `flood_unsigned_grant_ms` is the longest grant
    while FLOOD_UNSIGNED unsigned requests are written, and `flood_start_ms` the first grant after a start with
    FLOOD_PAST past requests in Vault, which the ledger knows.
    """
    with scene(directory / "flood") as world:
        world.environment["JITVAULT_ROLLING_STEP"] = f"{STEP_S}s"
        with working(world):
            watch = _Watch(world)
            held = [watch.granted() for _ in range(HELD)]
            ends = _during(world, "end", DOCUMENTS, watch)
            gap_s = max(_gaps(world, held))
            unsigned = _during(world, "submit", UNSIGNED, watch)
            _past(world, PAST)
            _until(lambda: _is_read(world))
        # the lines of the last minute are looked at once more at a start
        time.sleep(60)
        begun = time.monotonic()
        with working(world):
            watch.granted()
            start_ms = (time.monotonic() - begun) * 1000
    said = f"{ends.written:,} documents in {ends.took_s:.0f} s, {len(ends.revoked)} times"
    return [
        Figure("flood_revoke_ms", max(ends.revoked), "ms", said, bar=5000),
        Figure("flood_lease_ms", max(ends.leases), "ms", said, bar=10_000),
        Figure("flood_grant_ms", max(ends.granted), "ms", said, bar=5000),
        Figure("flood_renewal_share", gap_s / STEP_S, "share", f"{HELD} tasks at {STEP_S} s", bar=0.9),
        Figure("flood_unsigned_grant_ms", max(unsigned.granted), "ms", f"{unsigned.written:,} requests", bar=5000),
        Figure("flood_start_ms", start_ms, "ms", f"{PAST:,} past requests, with the process's start", bar=15_000),
    ]


class _Watch:
    """An operator who has tasks granted and ends them, and sees when that is so."""

    def __init__(self, world: Scene) -> None:
        self.pair, self._admin = Pair(world.settings), Vault(Connection(world.world.address), world.world.admin_token)

    def granted(self) -> str:
        """A task that was asked for now, and whose wrapping token can be read."""
        spec = task_of(f"bench-{secrets.token_hex(6)}")
        self.pair.submits(spec)
        self.pair.wishes(spec)
        path = f"inbox/{self.pair.person.entity}/{spec.id}"
        _until(lambda: self.pair.person.documents.get(path) is not None)
        return spec.id

    def revoked(self, task_id: str) -> tuple[float, float]:
        """Milliseconds until its token is dead, and until its lease is."""
        token = self.pair.takes(task_id)
        _, lease_id = self.pair.reads(token)
        begun = time.monotonic()
        sign_end(self.pair.person, task_id, reason=EndReason.OPERATOR, note="")
        _until(lambda: self._is_gone("auth/token/lookup", {"token": token.reveal()}))
        dead = time.monotonic()
        _until(lambda: self._is_gone("sys/leases/lookup", {"lease_id": lease_id}))
        return (dead - begun) * 1000, (time.monotonic() - begun) * 1000

    def _is_gone(self, path: str, body: dict[str, str]) -> bool:
        try:
            self._admin.write(path, body)
        except (VaultRefused, VaultRejected):
            return True
        return False


class _Flood:
    """What was measured while it lasted."""

    def __init__(self) -> None:
        self.written, self.took_s = 0, 0.0
        self.revoked, self.leases, self.granted = list[float](), list[float](), list[float]()


def _during(world: Scene, kind: str, count: int, watch: _Watch) -> _Flood:
    """Grant and revoke a task every few seconds while so many documents are written, and once afterwards."""
    agent, run = world.world.entity_ids["research-agent"], secrets.token_hex(4)
    paths = [f"requests/{agent}/x{run}-{n}/{kind}" for n in range(count)]
    done = _Flood()
    with _writing(world, world.world.agent_token.reveal(), paths, done) as writes:
        while True:
            last, begun = not writes(), time.monotonic()
            task_id = watch.granted()
            done.granted.append((time.monotonic() - begun) * 1000)
            dead, gone = watch.revoked(task_id)
            done.revoked.append(dead)
            done.leases.append(gone)
            if last:
                return done
            time.sleep(max(0.0, EVERY_S - (time.monotonic() - begun)))


@contextmanager
def _writing(world: Scene, token: str, paths: Sequence[str], done: _Flood) -> Iterator[Callable[[], bool]]:
    """Write at each path with several connections; gives whether that goes on, and waits for its end."""
    begun = time.monotonic()

    def write(part: Sequence[str]) -> None:
        connection = http.client.HTTPConnection(urlsplit(world.world.address).netloc, timeout=60)
        for path in part:
            connection.request("PUT", f"/v1/jitvault/data/{path}", _JUNK, {"X-Vault-Token": token})
            connection.getresponse().read()
        connection.close()
        done.written += len(part)
        done.took_s = max(done.took_s, time.monotonic() - begun)

    threads = [threading.Thread(target=write, args=(paths[n::WRITERS],)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: any(thread.is_alive() for thread in threads)
    finally:
        for thread in threads:
            thread.join()


def _gaps(world: Scene, tasks: Sequence[str]) -> Iterator[float]:
    """The longest time between two renewals of each task's token; a day for one that is not held any more."""
    op = schema.operations.c
    with opened(world.variables["JITVAULT_LEDGER"], create=False).read() as connection:
        for task_id in tasks:
            query = select(op.answered_at).where(
                op.task_id == task_id, op.kind == OperationKind.RENEW_TOKEN, op.answered_at.is_not(None)
            )
            times = sorted(connection.execute(query).scalars())
            state = connection.execute(
                select(schema.tasks.c.state).where(schema.tasks.c.task_id == task_id)
            ).scalar_one()
            gaps = [(later - earlier).total_seconds() for earlier, later in pairwise([*times, datetime.now(UTC)])]
            yield max(gaps) if times and state in (State.ISSUED, State.ACTIVE) else 86_400.0


def _past(world: Scene, count: int) -> None:
    """So many requests of an operator that are long over: in Vault what they signed, in the ledger the sealed task."""
    entity, run, now = world.operator.entity, secrets.token_hex(4), datetime.now(UTC)
    names = [f"past-{run}-{n}" for n in range(count)]
    row = {"end_reason": EndReason.COMPLETED, "revision": 1, "digest": "", "requester": entity, "agent": entity}
    row |= {"state": State.SEALED, "version": 1, "seq": 1, "head": GENESIS, "created_at": now}
    database = opened(world.variables["JITVAULT_LEDGER"], create=False)
    for n in range(0, count, 1000):
        rows = [{**row, "task_id": name} for name in names[n : n + 1000]]
        database.write(lambda connection, rows=rows: connection.execute(insert(schema.tasks), rows))  # type: ignore[misc]
    paths = [f"requests/{entity}/{name}/submit" for name in names]
    with _writing(world, world.world.operator_token.reveal(), paths, _Flood()):
        pass


def _is_read(world: Scene) -> bool:
    """Whether the worker has read the audit file up to its end of a moment ago."""
    size = world.world.audit_file.stat().st_size
    query = select(func.max(schema.audit_sources.c.offset))
    with opened(world.variables["JITVAULT_LEDGER"], create=False).read() as connection:
        return int(connection.execute(query).scalar_one()) >= size - 100_000


def _until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not what():
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing came of it within {_PATIENCE_S:.0f} s")
        time.sleep(_LOOK_S)
