"""From approved to delivered, many at once: the worker's hands against bare hvac threads with the same requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.bare import Bare, Urllib3
from benchmarks.measure import Figure, ratio
from benchmarks.meter import Request, metered
from benchmarks.scene import Scene, scene
from jitvault.model.spec import TaskSpec
from jitvault.model.states import State
from jitvault.worker.health import Health
from jitvault.worker.pool import Pool
from jitvault.worker.process import context_factory
from jitvault.worker.supervisor import Supervisor
from jitvault.worker.task_queue import Job, TaskQueue, Urgency

TASKS, ROUNDS = 48, 5
BARS = {1: 0.6, 4: 0.7, 16: 0.7}
# seldom: who looks takes time from those that work
_PATIENCE_S, _LOOK_S = 120, 0.05


class _Silent:
    """A log that nobody reads."""

    def info(self, event: str, **values: object) -> None: ...

    warning = error = info


def run(directory: Path) -> list[Figure]:
    """`grant_rate_N`: what N hands deliver in the time in which N bare hvac threads send the same requests, each with a
    row for its intent and a ledger with synchronous=FULL. 1 would be as fast as these. `grant_rate_N_urllib3`: the same
    beside threads that send them by urllib3 alone, which shows what the client library costs.

    All three take turns, and each rate is the median of its rounds: a machine's pace changes by a third in a minute.
    """
    with scene(directory / "throughput") as world:
        world.advance(world.asked(), State.ISSUED)
        return [figure for hands, bar in BARS.items() for figure in _at(world, hands, bar)]


def _at(world: Scene, hands: int, bar: float) -> list[Figure]:
    bare, lean, own = list[float](), list[float](), list[float]()
    with _working(world, hands) as issued_s:
        for _ in range(ROUNDS):
            bare.append(_bare_s(world, hands))
            own.append(issued_s())
            lean.append(_bare_s(world, hands, Urllib3))
    said, leaner = (
        f"{TASKS / median(took):.0f}/s by bare {client}, {hands} threads, {ROUNDS} rounds of {TASKS} tasks"
        for took, client in ((bare, "hvac"), (lean, "urllib3"))
    )
    return [
        Figure(f"grant_rate_{hands}", ratio(bare, own), "ratio", said, better="higher", bar=bar),
        Figure(f"grant_rate_{hands}_urllib3", ratio(lean, own), "ratio", leaner, better="higher"),
        Figure(f"grants_per_s_{hands}", TASKS / median(own), "1/s", said, better="higher"),
    ]


@contextmanager
def _working(world: Scene, hands: int) -> Iterator[Callable[[], float]]:
    """A worker's hands; gives how long they need for TASKS that are approved and asked for, in seconds."""
    supervisor = Supervisor()
    pool = Pool(supervisor, context_factory(world.wiring), TaskQueue(hands, 1), Health(supervisor), _Silent())
    pool.start()
    # a hand connects with its first task
    _issue(world, supervisor, pool, [world.asked() for _ in range(2 * hands)])

    def issued_s() -> float:
        specs = [world.asked() for _ in range(TASKS)]
        started = time.perf_counter()
        _issue(world, supervisor, pool, specs)
        return time.perf_counter() - started

    try:
        yield issued_s
    finally:
        supervisor.stopping.set()
        supervisor.join(10)


def _issue(world: Scene, supervisor: Supervisor, pool: Pool, specs: Sequence[TaskSpec]) -> None:
    waiting, deadline = [spec.id for spec in specs], time.monotonic() + _PATIENCE_S
    for spec in specs:
        pool.want(Job(spec.id, Urgency.ASKED, hint=world.operator.entity))
    while waiting:
        # in the order in which they are taken: most looks read one row
        while waiting and _is_issued(world, waiting[0]):
            waiting.pop(0)
        if time.monotonic() > deadline or supervisor.death:
            raise RuntimeError(f"{len(waiting)} tasks were not issued: {supervisor.death}")
        time.sleep(_LOOK_S)


def _is_issued(world: Scene, task_id: str) -> bool:
    task = world.wiring.ledger.task(task_id)
    return task is not None and task.state is State.ISSUED


def _recorded(world: Scene) -> Sequence[Request]:
    """The requests of one grant, of a token that lives as long as they are sent again."""
    spec = world.asked()
    with metered() as meter:
        world.advance(spec, State.ISSUED)
    return meter.requests


def _bare_s(world: Scene, threads: int, by: type[Urllib3] | None = None) -> float:
    requests = _recorded(world)
    clients = [world.new_bare(by) for _ in range(threads)]
    shares = [len(range(n, TASKS, threads)) for n in range(threads)]

    def send(client: Bare, times: int) -> None:
        for _ in range(times):
            client.replay(requests)

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(send, clients, shares))
    return time.perf_counter() - started
