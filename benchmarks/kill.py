"""The kill switch on a thousand leases against a bare loop of synchronous revocations."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from benchmarks.measure import Figure
from benchmarks.scene import Scene
from jitvault.kill_switch.kill import kill, tasks_in_scope
from jitvault.kill_switch.threads import CONCURRENCY, ThreadContext
from jitvault.model.scope import Scope
from jitvault.stream.reading import observe

TASKS, LEASES = 40, 25
TIMES = 3


def run(scene: Scene) -> list[Figure]:
    """40 tasks with 25 PostgreSQL leases each are ended with `kill`; the same number of leases by bare hvac.

    `kill_ratio`: from the start until Vault has answered the synchronous revocation of each token and each lease, each
    under an intent of its own, over one synchronous `leases/revoke` after the other with as many threads.
    `kill_gone_ms`: until it has said of each, looked up, that there is no such thing. `kill_proven_ms`: until all
    tasks are proven.
    """
    # in turn, and the bare side first and last, so that the machine's drift hits both
    bare, own = [_bare_ms(scene)], list[tuple[float, float, float]]()
    for _ in range(TIMES):
        own.append(_kill_ms(scene))
        bare.append(_bare_ms(scene))
    reference = median(bare)
    revoked, gone, proven = (median(times) for times in zip(*own, strict=True))
    said = f"{reference:,.0f} ms for {TASKS * LEASES} synchronous revocations by bare hvac, {CONCURRENCY} threads"
    return [
        Figure("kill_ratio", revoked / reference, "ratio", f"{said}, {TIMES} times in turn", bar=1.15),
        Figure("kill_revoked_ms", revoked, "ms", said),
        Figure("kill_gone_ms", gone, "ms", said),
        Figure("kill_proven_ms", proven, "ms", "itself"),
    ]


def _kill_ms(scene: Scene) -> tuple[float, float, float]:
    mine = {scene.held(LEASES).id for _ in range(TASKS)}
    # as a worker does all the time
    observe(scene.worker)
    # what other groups left behind is not ended here
    tasks = [task_id for task_id in tasks_in_scope(scene.worker, Scope(agent="research-agent")) if task_id in mine]
    if len(tasks) != TASKS:
        raise RuntimeError(f"{len(tasks)} tasks are held and not {TASKS}")
    done_at: dict[str, float] = {}

    def tell(what: str, done: int, of: int, *, final: bool = False) -> None:
        if final:
            done_at[what] = (time.perf_counter() - started) * 1000

    def hire() -> ThreadContext:
        wiring = scene.wiring.for_thread()
        return ThreadContext(wiring.worker, wiring.person)

    started = time.perf_counter()
    results = kill(hire, tasks, note="a benchmark", wait=60, tell=tell)
    open_ = [result.task_id for result in results if not result.confirmed]
    if open_:
        # a line of the last look-up can come a moment too late for its proof: an operator asks again
        results = kill(hire, open_, note="a benchmark", wait=60, tell=lambda *_, **__: None)
    ended = time.perf_counter()
    if not all(result.confirmed for result in results):
        raise RuntimeError(f"not proven: {[r for r in results if not r.confirmed][:3]}")
    return done_at["leases revoked"], done_at["seen gone"], (ended - started) * 1000


def _bare_ms(scene: Scene) -> float:
    left = scene.bare.leases(TASKS * LEASES)
    lock = threading.Lock()

    def work() -> None:
        revoke = scene.bare.revoker()
        while True:
            with lock:
                lease = left.pop() if left else None
            if lease is None:
                return
            revoke(lease)

    started = time.perf_counter()
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for done in [pool.submit(work) for _ in range(CONCURRENCY)]:
            done.result()
    return (time.perf_counter() - started) * 1000
