"""What a task costs a warm worker, at ten tasks a second and more: counts first, each beside its bar.

WARM_TASKS and WARM_HELD say how many tasks there are; with the defaults it lasts some three minutes.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from pydantic import SecretStr
from sqlalchemy import func, select

from benchmarks.counted import CountedWorker, Counts, counted_worker
from benchmarks.measure import Figure
from benchmarks.people import Pair, People, task_of
from benchmarks.scene import Scene, scene
from jitvault.errors import VaultRefused
from jitvault.formats.secret import Secret
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import opened
from jitvault.model.states import EndReason, State

TASKS = int(os.environ.get("WARM_TASKS", "100"))
"""How many tasks are counted from their submission to their seal; half of them have a lease."""
HELD = int(os.environ.get("WARM_HELD", "100"))
"""How many others are held, each renewed every STEP_S / 2."""
STEP_S, WATCHED_S = 40, 20.0
RATE, PEOPLE, FIRST, ALONE, IDLE_S = 15.0, 8, 10, 15, 8.0
SETTLE_S = 40
"""The settle window: no task is sealed while others are still ended."""
_PATIENCE_S, _LOOK_S, _SHORT_LOOK_S, _REST_S = 90.0, 0.1, 0.002, 1.0
_FEW = 5
_RENEW_TOKEN, _RENEW_LEASE = "auth/token/renew-accessor", "sys/leases/renew"
_WAY = (State.APPROVED, State.ISSUED, State.ACTIVE, State.CONFIRMED, State.SEALED)

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bars:
    """What one of a kind may cost. None where that is only shown."""

    requests: float | None = None
    commits: float | None = None
    statements: float | None = None
    events: float | None = None
    cpu_ms: float | None = None


def run(directory: Path) -> list[Figure]:
    """One kind of work at a time is asked for, RATE a second, so that whatever the worker does for it is counted with
    it, and what it does besides: `warm_submit`, `warm_grant` of tasks that were submitted, both at once, the look after
    an unwrap without and with a lease, renewals without and with one, ends, seals. Each has the requests of the
    worker's entity (from the audit log), its process's commits and statements (without those of the readers of the
    stream, which `…_all_statements` includes), and that process's processor time.

    The worker has its default of 4 hands and a ledger on SQLite. An agent asks, with its own token, for low-risk tasks
    that nobody has to approve. `warm_task_…` is a task's life without renewals: of those with submission and grant at
    once, and of which half have a lease. `warm_request_to_token_ms` is of tasks that come one after the other.
    """
    with scene(directory / "warm") as world:
        world.environment["JITVAULT_SETTLE_WINDOW"] = f"{SETTLE_S}s"
        world.environment["JITVAULT_ROLLING_STEP"] = "15m"
        # one agent's token stands for those of many
        world.environment["JITVAULT_REQUESTS_PER_MINUTE"] = "6000"
        agent = world.settings.model_copy(update={"vault_token": SecretStr(world.world.agent_token.reveal())})
        with counted_worker(world) as worker, People(world, PEOPLE, agent) as people:
            tasks = _Tasks(world, people)
            kinds = _lived(tasks, worker)
            alone = tasks.alone_ms
    return [*_figures(kinds), *_idle(kinds["idle"][0]), *_of_all(tasks, alone)]


Kinds = dict[str, tuple[Counts, int]]
"""What was counted of each kind of work, and of how many."""


def _lived(tasks: _Tasks, worker: CountedWorker) -> Kinds:
    """Live all lives, one kind of work after the other."""
    kinds: Kinds = {}

    def counted(kind: str, of: int | str, act: Callable[[], T]) -> T:
        before = worker.now()
        done = act()
        # what follows by itself belongs to it
        time.sleep(_REST_S)
        counts = worker.since(before)
        kinds[kind] = counts, of if isinstance(of, int) else counts.sent(of)
        return done

    others = tasks.new(FIRST)
    tasks.ask(others)
    others += tasks.ask_one_by_one(ALONE)
    # nobody may leave them unclaimed: they are held until the others end
    tasks.unwrap(others)
    time.sleep(2 * _REST_S)
    counted("idle", 1, lambda: time.sleep(IDLE_S))

    first, second = tasks.new(TASKS // 2), tasks.new(TASKS - TASKS // 2)
    counted("submit", len(first), lambda: tasks.submit(first))
    counted("grant", len(first), lambda: tasks.wish(first))
    counted("submit_grant", len(second), lambda: tasks.ask(second))
    counted("unwrap", len(first), lambda: tasks.unwrap(first))
    counted("unwrap_lease", len(second), lambda: tasks.unwrap(second, leases=1))

    held = tasks.new(HELD)
    tokens = tasks.hold(held)
    counted("renewal", _RENEW_TOKEN, lambda: time.sleep(WATCHED_S))
    tasks.read(tokens)
    # each lease has been renewed once
    time.sleep(STEP_S / 2)
    counted("renewal_lease", _RENEW_TOKEN, lambda: time.sleep(WATCHED_S))

    begun = time.monotonic()
    tasks.end([*others, *held])
    counted("end", TASKS, lambda: tasks.end([*first, *second]))
    time.sleep(max(0.0, begun + SETTLE_S - _REST_S - time.monotonic()))
    counted("seal", len(tasks.names), lambda: tasks.wait(tasks.names, State.SEALED))
    return kinds


def _figures(kinds: Kinds) -> list[Figure]:
    """The figures of each kind of work, and their sum."""
    bars = {
        "submit": Bars(),
        "grant": Bars(requests=8, commits=5, statements=40),
        "submit_grant": Bars(requests=10),
        "unwrap": Bars(requests=2),
        "unwrap_lease": Bars(requests=2),
        "renewal": Bars(requests=1.2, statements=8, events=0.2, cpu_ms=3),
        "renewal_lease": Bars(requests=2.2),
        "end": Bars(requests=10, commits=7, statements=70),
        "seal": Bars(requests=7),
    }
    figures = [figure for kind, bar in bars.items() for figure in _of_kind(kind, *kinds[kind], bar)]

    def whole(what: Callable[[Counts], float]) -> float:
        each = {kind: what(counts) / max(1, times) for kind, (counts, times) in kinds.items()}
        return each["submit_grant"] + (each["unwrap"] + each["unwrap_lease"]) / 2 + each["end"] + each["seal"]

    said = f"{TASKS} tasks from submission to seal, without renewals"
    return [
        *figures,
        Figure("warm_task_requests", whole(lambda c: c.sent()), "requests", said, bar=29),
        Figure("warm_task_cpu_ms", whole(lambda c: c.cpu_s * 1000), "ms", said, bar=80),
        Figure("warm_task_audit_kb", whole(lambda c: c.audit_bytes / 1000), "kB", f"all lines; {said}", bar=150),
    ]


def _of_kind(kind: str, counts: Counts, times: int, bars: Bars) -> list[Figure]:
    per = max(1, times)
    said = f"{times} in {counts.at:.0f} s, {times / counts.at:.1f}/s"
    if kind.startswith("renewal"):
        said += f", {counts.sent(_RENEW_LEASE)} leases with them"
    name = f"warm_{kind}"
    return [
        Figure(f"{name}_requests", counts.sent() / per, "requests", said, bar=bars.requests),
        Figure(f"{name}_commits", counts.of_work(counts.commits) / per, "commits", said, bar=bars.commits),
        Figure(f"{name}_statements", counts.of_work(counts.statements) / per, "statements", said, bar=bars.statements),
        Figure(f"{name}_all_statements", counts.statements.total() / per, "statements", "and of who reads the stream"),
        Figure(f"{name}_events", counts.events / per, "events", f"of the chain; {said}", bar=bars.events),
        Figure(f"{name}_cpu_ms", counts.cpu_s * 1000 / per, "ms", said, bar=bars.cpu_ms),
    ]


def _idle(counts: Counts) -> list[Figure]:
    said = f"a worker with nothing to do for {counts.at:.0f} s"
    return [
        Figure("warm_idle_cores", counts.cpu_s / counts.at, "cores", said, bar=0.02),
        Figure("warm_idle_requests", counts.sent() / counts.at, "1/s", said),
        Figure("warm_idle_statements", counts.statements.total() / counts.at, "1/s", said),
    ]


def _of_all(tasks: _Tasks, alone_ms: Sequence[float]) -> list[Figure]:
    said = f"of {len(tasks.names)}: those not sealed as completed"
    return [
        Figure("warm_request_to_token_ms", median(alone_ms), "ms", f"{ALONE} one after the other", bar=60),
        Figure("warm_lost", len(tasks.names) - tasks.completed(), "tasks", said, bar=0),
    ]


class _Tasks:
    """The agent's tasks, and what is done with them."""

    def __init__(self, world: Scene, people: People) -> None:
        self.names: list[str] = []
        self.alone_ms: list[float] = []
        self._people = people
        self._ledger = opened(world.variables["JITVAULT_LEDGER"], create=False)

    def new(self, count: int) -> list[str]:
        """So many new names."""
        names = [f"bench-{secrets.token_hex(6)}" for _ in range(count)]
        self.names += names
        return names

    def submit(self, names: Sequence[str]) -> None:
        self._paced(names, lambda pair, name: pair.submits(task_of(name)))
        self.wait(names, State.APPROVED)

    def wish(self, names: Sequence[str]) -> None:
        self._paced(names, lambda pair, name: pair.wishes(task_of(name)))
        self.wait(names, State.ISSUED)

    def ask(self, names: Sequence[str]) -> None:
        """Submit them and wish them granted, at once."""

        def asks(pair: Pair, name: str) -> None:
            spec = task_of(name)
            pair.submits(spec)
            pair.wishes(spec)

        self._paced(names, asks)
        self.wait(names, State.ISSUED)

    def hold(self, names: Sequence[str]) -> list[Secret]:
        """Ask for tasks with a short step, a few at a time, and take each token as soon as it is there."""

        def holds(pair: Pair, name: str) -> Secret:
            spec = task_of(name, **{"for": "15m", "ttl": f"{STEP_S}s"})
            pair.submits(spec)
            pair.wishes(spec)
            return pair.takes(name, within_s=_PATIENCE_S)

        tokens = list[Secret]()
        for first in range(0, len(names), _FEW):
            few = names[first : first + _FEW]
            tokens += self._people.all_do(lambda pair, name=name: holds(pair, name) for name in few)  # type: ignore[misc]
        self.wait(names, State.ACTIVE)
        return tokens

    def ask_one_by_one(self, count: int) -> list[str]:
        """Ask for so many, the next when the token of the one before can be read; `alone_ms` has how long that took."""
        names = self.new(count)
        for name in names:
            self.alone_ms.append(self._people.do(lambda pair, name=name: _asked_ms(pair, name)).result())  # type: ignore[misc]
            time.sleep(_LOOK_S)
        return names

    def unwrap(self, names: Sequence[str], *, leases: int = 0) -> list[Secret]:
        """Take each token, and read so many logins with it."""

        def takes(pair: Pair, name: str) -> Secret:
            token = pair.takes(name)
            for _ in range(leases):
                pair.reads(token)
            return token

        tokens = self._paced(names, takes)
        self.wait(names, State.ACTIVE)
        return tokens

    def read(self, tokens: Sequence[Secret]) -> None:
        """Read a login with each token. One that was lost is counted when its task is sealed."""

        def reads(pair: Pair, token: Secret) -> None:
            with suppress(VaultRefused):
                pair.reads(token)

        self._paced(tokens, reads)

    def end(self, names: Sequence[str]) -> None:
        self._paced(names, lambda pair, name: pair.ends(name))
        self.wait(names, State.CONFIRMED)

    def wait(self, names: Sequence[str], state: State) -> None:
        """Wait until all of them have come to `state`, or further."""
        task, deadline = schema.tasks.c, time.monotonic() + _PATIENCE_S
        enough = _WAY[_WAY.index(state) :]
        query = select(func.count()).where(task.task_id.in_(names), task.state.in_(enough))
        while (there := self._count(query)) < len(names):
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {there} of {len(names)} tasks are {state}")
            time.sleep(_LOOK_S)

    def completed(self) -> int:
        """How many are sealed as completed."""
        task = schema.tasks.c
        return self._count(
            select(func.count()).where(
                task.task_id.in_(self.names), task.state == State.SEALED, task.end_reason == EndReason.COMPLETED
            )
        )

    def _count(self, query: Any) -> int:
        with self._ledger.read() as connection:
            return int(connection.execute(query).scalar_one())

    def _paced(self, things: Sequence[S], act: Callable[[Pair, S], T]) -> list[T]:
        """Do it with each of them, RATE a second."""
        begun = time.monotonic()
        doing = []
        for number, thing in enumerate(things):
            time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
            doing.append(self._people.do(lambda pair, thing=thing: act(pair, thing)))  # type: ignore[misc]
        return [future.result() for future in doing]


def _asked_ms(pair: Pair, name: str) -> float:
    """Milliseconds from when both documents are written until the wrapping token can be read."""
    spec = task_of(name)
    pair.submits(spec)
    pair.wishes(spec)
    begun, path = time.monotonic(), f"inbox/{pair.person.entity}/{name}"
    while pair.person.documents.get(path) is None:
        if time.monotonic() > begun + _PATIENCE_S:
            raise RuntimeError(f"there is no token for {name}")
        time.sleep(_SHORT_LOOK_S)
    return (time.monotonic() - begun) * 1000
