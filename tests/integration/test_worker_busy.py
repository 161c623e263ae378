"""A Vault that takes few requests, or none: a worker asks it for less, nothing is lost, and nobody waits for others.

The limits are Vault's own rate-limit quotas. They count each client's address by itself: the worker's is the
go-between's, and people are not kept from anything.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from attended import Attended, wait_for
from commands import SPEC
from crowd import Someone
from rig import Rig
from stage import Stage

from jitvault.context import Person
from jitvault.lifecycle.requests.sign import sign_end, sign_grant_request, sign_submission
from jitvault.model.spec import parse_spec
from jitvault.model.states import EndReason
from jitvault.settings import load
from jitvault.wiring import Wiring
from jitvault.worker.task_queue import TaskQueue

Spec = Callable[..., Path]
CREATE = "auth/token/create/jitvault-15m"


@pytest.fixture
def rig(stage: Stage, tmp_path: Path) -> Iterator[Rig]:
    yield stage.rig(tmp_path / "own")
    stage.mend()


@pytest.fixture
def person(rig: Rig) -> Person:
    """The operator, whose requests do not come through the go-between."""
    with rig.environment("operator", {"VAULT_ADDR": rig.world.address}):
        return Wiring(load()).person


@contextmanager
def limited(rig: Rig, path: str, rate: float, interval: str = "1s") -> Iterator[None]:
    """At most so many requests to `path` in each interval; the empty path is everything."""
    quota = "sys/quotas/rate-limit/busy"
    rig.admin.write(quota, {"path": path, "rate": rate, "interval": interval})
    try:
        yield
    finally:
        rig.admin.delete(quota)


@contextmanager
def lowest(agenda: TaskQueue) -> Iterator[list[int]]:
    """The fewest tasks at once that Vault was thought to take while the block lasted."""
    found, over = [int(agenda.limit)], Event()

    def look() -> None:
        while not over.wait(0.01):
            found[0] = min(found[0], int(agenda.limit))

    thread = Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def asked(person: Person) -> str:
    """A task that somebody asks for who is there to take it."""
    task = f"b{secrets.token_hex(5)}"
    fields = {"intent": "Count.", "criticality": "low", "template": "postgres-readonly", "window": "15m", "more": ""}
    spec = parse_spec(SPEC.format(id=task, **fields).encode(), "a spec")
    sign_submission(person, spec, revise=False)
    sign_grant_request(person, spec)
    return task


def all_are(rig: Rig, tasks: list[str], state: str) -> bool:
    """Whether the ledger says that of all these tasks: who waits looks often, so it looks once for all of them."""
    states = dict(rig.rows("SELECT task_id, state FROM tasks"))
    return all(states.get(task) == state for task in tasks)


def test_a_vault_that_takes_few_requests_is_asked_for_less_and_all_is_done(rig: Rig, person: Person) -> None:
    tasks: list[str] = []

    with Attended(rig) as worker:
        agenda = worker.started.pool._queue
        with limited(rig, "", 25), lowest(agenda) as fewest:
            tasks.extend(asked(person) for _ in range(6))
            wait_for(lambda: all_are(rig, tasks, "issued"), 90)
        assert fewest[0] < agenda.hands, "it was not asked for less"
        for _ in range(5):
            # how much is asked for grows with what is taken
            if int(agenda.limit) < agenda.hands:
                tasks.extend(asked(person) for _ in range(4))
                wait_for(lambda: all_are(rig, tasks, "issued"), 30)
        assert int(agenda.limit) == agenda.hands, "it is asked for as much as before"
        for task in tasks:
            assert len(rig.task_tokens(task)) == 1
            sign_end(person, task, reason=EndReason.COMPLETED, note="")
        wait_for(lambda: all_are(rig, tasks, "sealed"), 60)


def test_what_vault_does_not_take_of_some_delays_nobody_else(rig: Rig, person: Person) -> None:
    with Attended(rig) as worker:
        task = asked(person)
        held = Someone(person, rig.vault(rig.token_of("agent")), {task}).uses(task)
        with limited(rig, CREATE, 1, "60s"):
            for _ in range(8):
                asked(person)
            # so many that each hand has had one, and was refused
            wait_for(lambda: len(worker.log.all_of("task could not be advanced")) >= 8, 40)
            begun = time.monotonic()
            sign_end(person, task, reason=EndReason.COMPLETED, note="")
            wait_for(lambda: not rig.is_live(held.token.reveal()), 10)
            took = time.monotonic() - begun
        assert took < 3, took


def test_while_vault_takes_nothing_it_is_asked_little_and_afterwards_all_is_done(
    stage: Stage, rig: Rig, person: Person
) -> None:
    with Attended(rig) as worker:
        agenda = worker.started.pool._queue
        tasks = [asked(person) for _ in range(12)]
        wait_for(lambda: all_are(rig, tasks, "issued"), 40)
        stage.seal()
        # all of them have to end, and nothing of that can be done
        rig.sql("UPDATE tasks SET due_at = '2020-01-01 00:00:00'")
        wait_for(lambda: agenda.limit == 1)
        stage.between.seen.clear()
        time.sleep(4)
        a_second = len(stage.between.seen) / 4
        stage.mend()
        wait_for(lambda: worker.log.all_of("the audit stream is trusted"), 30)
        for task in tasks:
            sign_end(person, task, reason=EndReason.COMPLETED, note="")
        wait_for(lambda: all_are(rig, tasks, "sealed"), 60)
        assert int(agenda.limit) == agenda.hands
    # five loops and one task look each second, with a look for the active node and a new connection
    assert a_second < 20, a_second
