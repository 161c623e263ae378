"""Five hundred tasks approved at once, from the wish to have them granted until the last one is confirmed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

from sqlalchemy import func, select

from benchmarks.bare_crowd import Job, Recorded, seconds
from benchmarks.latency import working
from benchmarks.measure import Figure, Process
from benchmarks.meter import metered
from benchmarks.people import Pair, People, Target, task_of, use
from benchmarks.scene import Scene, scene
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database, opened
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.confirmation.quiet_rules import QUIET
from jitvault.model.states import State
from jitvault.worker.process import context_factory

TASKS, PEOPLE = 500, 16
BAR = 3.5
_PATIENCE_S, _LOOK_S = 280, 0.2


def run(directory: Path) -> list[Figure]:
    """`crowd_ratio`: the seconds in which 500 approved tasks are granted, used, completed and confirmed, without one
    quiet second, over those in which bare hvac threads do the same work without jitvault.

    On both sides 16 people do the same for each task, by the same code: sign the wish (2 requests), take the token out
    of inbox and wrapping (4), read the PostgreSQL login (1, the lease), connect with it and run one query, sign that it
    is complete (2). Between these stands on one side `jitvault worker` with its default of 4 hands, as a process of its
    own; it proves each end at the target, too. On the other side the same thread of two processes does it itself, with
    the root token: a wrapped create, its look-up and the delivery (3), then both revocations and both look-ups (4).

    `crowd_same_requests_ratio`: over bare threads that send, instead of these seven, all that the worker sends for one
    task, recorded before. Not in either: submission and decision, since all are approved before the time is taken, the
    start of the processes, and the seals, except that the worker does them when it has nothing better to do.
    """
    with scene(directory / "crowd") as world:
        recorded = _recorded(world)
        # first: the worker would take the papers of the other side for requests
        own, confirmed, cpu_s = _own_s(world)
        least, same = zip(*((_bare_s(world, None), _bare_s(world, recorded)) for _ in range(2)), strict=True)
    busy = own - QUIET.total_seconds()
    said = f"{mean(least):.1f} s by bare hvac, {PEOPLE} threads, {TASKS} tasks, twice"
    alike = f"{mean(same):.1f} s for the same {len(recorded.grant) + len(recorded.end)} requests a task by bare hvac"
    return [
        Figure("crowd_ratio", busy / mean(least), "ratio", said, bar=BAR),
        Figure("crowd_same_requests_ratio", busy / mean(same), "ratio", alike),
        Figure("crowd_seconds", own, "s", said),
        Figure("crowd_worker_cpu_ms", cpu_s * 1000 / TASKS, "ms", "time of processor of the worker for one task"),
        Figure("crowd_confirmed", confirmed, "tasks", f"of {TASKS}", better="higher", bar=TASKS),
    ]


def _own_s(world: Scene) -> tuple[float, int, float]:
    """From the first wish until the last event `confirmed`, how many came so far, and the worker's processor time."""
    names = _names()
    with People(world, PEOPLE) as people:
        people.all_do(lambda pair, name=name: pair.submits(task_of(name)) for name in names)  # type: ignore[misc]
        with working(world) as process:
            _wait(world, names, State.APPROVED)
            worker, started = Process(process.pid), datetime.now(UTC)
            with worker.measured():
                _see_through(people, names, _target(world))
                _wait(world, names, State.CONFIRMED)
    event = schema.events.c
    query = select(func.max(event.at), func.count(event.task_id.distinct())).where(
        event.kind == "confirmed", event.task_id.in_(names)
    )
    with _ledger(world).read() as connection:
        last, confirmed = connection.execute(query).one()
    return (datetime.fromisoformat(last) - started).total_seconds(), confirmed, worker.used_s


def _see_through(people: People, names: Sequence[str], target: Target) -> None:
    """All wishes at once, and with each task whatever is to be done with it as soon as it is delivered."""
    wishes = [people.do(lambda pair, name=name: pair.wishes(task_of(name))) for name in names]  # type: ignore[misc]

    def live(pair: Pair, name: str) -> None:
        use(target, pair.reads(pair.takes(name))[0])
        pair.ends(name)

    left = people.on_delivery(names, live, within_s=_PATIENCE_S, stalled_s=30)
    for wish in wishes:
        wish.result()
    if left:
        raise RuntimeError(f"{len(left)} of {TASKS} tasks were not delivered")


def _wait(world: Scene, names: Sequence[str], state: State) -> None:
    """Until all of them have come to `state`, or further."""
    task, deadline = schema.tasks.c, time.monotonic() + _PATIENCE_S
    enough = [state.value, *([State.SEALED.value] if state is State.CONFIRMED else [])]
    query = select(func.count()).where(task.task_id.in_(names), task.state.in_(enough))
    ledger = _ledger(world)
    while True:
        with ledger.read() as connection:
            there = connection.execute(query).scalar() or 0
        if there == len(names):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {there} of {len(names)} tasks are {state}")
        time.sleep(_LOOK_S)


def _recorded(world: Scene) -> Recorded:
    """All that a hand of the worker sends for one task, in the two looks before and after the quiet second."""
    worker, pair, name = context_factory(world.wiring)(), Pair(world.settings), _names(1)[0]
    pair.submits(task_of(name))
    advance(worker, name, hint=pair.person.entity)
    pair.wishes(task_of(name))
    with metered() as grant:
        file = advance(worker, name, hint=pair.person.entity)
    _, lease_id = pair.reads(pair.takes(name))
    pair.ends(name)
    with metered() as end:
        advance(worker, name)
        time.sleep(QUIET.total_seconds())
        state = advance(worker, name).task.state
    if state is not State.CONFIRMED:
        raise RuntimeError(f"the task whose requests are recorded is {state}")
    return Recorded(name, file.grants[-1].wrapped_accessor or "", lease_id, grant.requests, end.requests)


def _bare_s(world: Scene, recorded: Recorded | None) -> float:
    token = world.world.admin_token.reveal()
    return seconds(Job(world.settings, token, _target(world), _names(), PEOPLE, recorded))


def _names(count: int | None = None) -> list[str]:
    return [f"bench-{secrets.token_hex(6)}" for _ in range(TASKS if count is None else count)]


def _ledger(world: Scene) -> Database:
    return opened(world.variables["JITVAULT_LEDGER"], create=False)


def _target(world: Scene) -> Target:
    postgres = world.world.servers.postgres
    return Target(postgres.host, postgres.port)
