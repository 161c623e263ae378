"""The crowd's tasks without jitvault: bare hvac threads that issue, look up and revoke the same, in processes.

The people's side is the very code of the other side (`people`). In jitvault's place stands one of two: the seven
requests that such a life cannot do without, or all that jitvault's worker sends for it, recorded before.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from typing import Any

from hvac.exceptions import InvalidRequest

from benchmarks.bare import Bare
from benchmarks.meter import Request
from benchmarks.people import Pair, Target, task_of, use
from jitvault.settings import Settings

# as many as the other side has: that one's people and its worker
PROCESSES = 2
_READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the worker sent for one task: until it was delivered, and from the wish to end it until it was confirmed."""

    task_id: str
    accessor: str
    lease_id: str
    grant: Sequence[Request]
    end: Sequence[Request]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done, or one process's share of it. `recorded` None: the least that there is to send."""

    settings: Settings
    root_token: str
    target: Target
    tasks: Sequence[str]
    threads: int
    recorded: Recorded | None


def seconds(job: Job) -> float:
    """How long `PROCESSES` processes with `job.threads` threads in all take for all of `job.tasks`."""
    shares = [replace(job, tasks=job.tasks[n::PROCESSES], threads=job.threads // PROCESSES) for n in range(PROCESSES)]
    # not forked: this process has threads
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_begin, initargs=(ready,)) as pool:
        times = list(pool.map(_share, shares))
    return max(ended for _, ended in times) - min(begun for begun, _ in times)


_ready: Barrier


def _begin(ready: Barrier) -> None:
    global _ready  # noqa: PLW0603 - how a process of a pool gets what cannot be sent to it
    _ready = ready


def _share(job: Job) -> tuple[float, float]:
    """Do it, once all processes are ready; gives when it began and when the last task was over, by the one clock that
    the processes of a machine share.
    """
    lives = [_Life(job) for _ in range(job.threads)]
    shares = [job.tasks[n :: job.threads] for n in range(job.threads)]
    _ready.wait(_READY_S)
    begun = time.monotonic()
    with ThreadPoolExecutor(job.threads) as pool:
        list(pool.map(lambda life, share: [life.goes(task_id) for task_id in share], lives, shares))
    return begun, time.monotonic()


class _Life:
    """A pair and whoever stands in jitvault's place. For one thread."""

    def __init__(self, job: Job) -> None:
        self._job, self._pair = job, Pair(job.settings)
        self._bare = Bare(job.settings.vault_addr, job.root_token)
        self._inbox = f"{self._pair.person.entity}/"

    def goes(self, task_id: str) -> None:
        pair, recorded = self._pair, self._job.recorded
        pair.wishes(task_of(task_id))
        told = {recorded.task_id: task_id} if recorded else {}
        wrap = self._replayed(recorded.grant, told, self._inbox + task_id) if recorded else self._granted(task_id)
        login, lease_id = pair.reads(pair.takes(task_id))
        use(self._job.target, login)
        pair.ends(task_id)
        if recorded:
            told |= {recorded.accessor: wrap["wrapped_accessor"], recorded.lease_id: lease_id}
            self._replayed(recorded.end, told)
        else:
            self._revoked(wrap["wrapped_accessor"], lease_id)

    def _granted(self, task_id: str) -> Mapping[str, Any]:
        """Three requests: wrapped create, look-up, and a document that vanishes by itself."""
        return self._bare.give(self._inbox + task_id)

    def _revoked(self, accessor: str, lease_id: str) -> None:
        """Four requests: the token, its lease, and that Vault has neither any more."""
        self._bare.take_back(accessor, lease_id)
        self._bare.check_gone(accessor)

    def _replayed(self, sent: Sequence[Request], told: Mapping[str, str], inbox: str = "") -> Mapping[str, Any]:
        """Send all of it again about another task. Its own wrapping token is delivered; gives what was wrapped."""
        wrap: Mapping[str, Any] = {}
        for request in sent:
            again = _about(request, told)
            if inbox and again.path == f"jitvault-inbox/data/{inbox}":
                again = replace(again, body={"data": {"wrapping": [{"token": wrap["token"]}]}})
            with suppress(InvalidRequest):
                # what is gone is looked up and found missing, as it was
                answer = self._bare.again(again)
                wrap = (isinstance(answer, dict) and answer.get("wrap_info")) or wrap
        return wrap


def _about(request: Request, told: Mapping[str, str]) -> Request:
    path, body = request.path, json.dumps(request.body)
    for old, new in told.items():
        path, body = path.replace(old, new), body.replace(old, new)
    return replace(request, path=path, body=json.loads(body))
