"""One operator with hundreds of tasks at once, and how long another's grant and end take meanwhile.

FAIR_TASKS says how many there are.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import func, select

from benchmarks.latency import working
from benchmarks.measure import Figure
from benchmarks.people import Pair, People, task_of
from benchmarks.scene import Scene, scene
from jitvault.errors import VaultRefused, VaultRejected
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import opened
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.model.states import EndReason, State
from jitvault.vault.client import Connection, Vault

TASKS = int(os.environ.get("FAIR_TASKS", "1000"))
PEOPLE, QUIET_ROUNDS, MOST_ROUNDS, EVERY_S = 8, 4, 8, 2.0
_PATIENCE_S, _LOOK_S = 240.0, 0.01
_HOLDING = (State.ISSUED, State.ACTIVE)


def run(directory: Path) -> list[Figure]:
    """`fair_grant_ms` and `fair_end_ms`: the longest time until another operator's wish is a wrapping token in their
    inbox, and from their signed end until Vault does not know their task's token. With `_requests_` while one operator
    asks for FAIR_TASKS grants at once, with `_deadline_` when these tasks all reach their deadline at once, with
    `_ends_` while that operator signs the end of as many tasks. `_quiet_` is with nobody else there. `fair_own_ms`:
    from the deadline of the other operator's own task, a second after these, until its end is proven.
    """
    with scene(directory / "fair") as world, working(world), People(world, PEOPLE) as crowd:
        other = _Other(world)
        quiet = [other.round() for _ in range(QUIET_ROUNDS)]
        figures = _figures("quiet", quiet)
        soon = datetime.now(UTC) + timedelta(seconds=15)
        figures.append(_own(world, other.granted_until(soon), soon, "quiet_own"))
        until = datetime.now(UTC) + timedelta(seconds=60 + TASKS / 6)
        first = _names()
        asking = _asked(crowd, first, until=until)
        figures += _figures("requests", _rounds(other, lambda: not all(one.done() for one in asking)))
        _wait(world, first, _HOLDING)
        later = until + timedelta(seconds=1)
        own = other.granted_until(later)
        time.sleep(max(0.0, (later - datetime.now(UTC)).total_seconds()))
        figures.append(_own(world, own, later, "own"))
        figures += _figures("deadline", _rounds(other, lambda: _in(world, first, _HOLDING) > 0))
        _wait(world, first, (State.CONFIRMED, State.SEALED))
        second = _names()
        for asked in _asked(crowd, second, until=datetime.now(UTC) + timedelta(minutes=30)):
            asked.result()
        _wait(world, second, _HOLDING)
        ending = [crowd.do(lambda pair, name=name: _ends(pair, name)) for name in second]  # type: ignore[misc]
        for end in ending[: len(ending) // 4]:
            end.result()
        figures += _figures("ends", _rounds(other, lambda: _in(world, second, _HOLDING) > 0))
        for end in ending:
            end.result()
    return figures


class _Other:
    """The other operator, who has one task granted and ends another that is held."""

    def __init__(self, world: Scene) -> None:
        token = world.world.operator_2_token.reveal()
        self.pair = Pair(world.settings.model_copy(update={"vault_token": SecretStr(token)}))
        self._admin = Vault(Connection(world.world.address), world.world.admin_token)
        self._held = self._granted()
        self._held_token = self._token

    def granted_until(self, ends_at: datetime) -> str:
        """Return a task of theirs that is held until then."""
        return self._granted(until=_stamp(ends_at))

    def round(self) -> tuple[float, float]:
        """Return the milliseconds of one grant, and of the end of the task granted before.

        Both are wanted at the same moment.
        """
        held, token = self._held, self._held_token
        with ThreadPoolExecutor(1) as pool:
            begun = time.monotonic()
            _ends(self.pair, held)
            gone = pool.submit(self._gone_at, token)
            self._held = self._granted()
            granted_s = self._granted_at - begun
            self._held_token = self._token
            return granted_s * 1000, (gone.result() - begun) * 1000

    def _granted(self, **window: str) -> str:
        spec = task_of(f"bench-{secrets.token_hex(6)}", **window)
        self.pair.submits(spec)
        self.pair.wishes(spec)
        path = f"inbox/{self.pair.person.entity}/{spec.id}"
        _until(lambda: self.pair.person.documents.get(path) is not None)
        self._granted_at = time.monotonic()
        self._token = self.pair.takes(spec.id).reveal()
        return spec.id

    def _gone_at(self, token: str) -> float:
        _until(lambda: self._is_gone(token))
        return time.monotonic()

    def _is_gone(self, token: str) -> bool:
        try:
            self._admin.write("auth/token/lookup", {"token": token})
        except (VaultRefused, VaultRejected):
            return True
        return False


def _asked(crowd: People, names: Sequence[str], *, until: datetime) -> list[Future[None]]:
    """Have all of these tasks submitted, and their grant asked for."""

    def asks(pair: Pair, name: str) -> None:
        spec = task_of(name, until=_stamp(until))
        pair.submits(spec)
        pair.wishes(spec)

    return [crowd.do(lambda pair, name=name: asks(pair, name)) for name in names]  # type: ignore[misc]


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _own(world: Scene, task_id: str, ends_at: datetime, what: str) -> Figure:
    """Measure how long after its deadline the task's end is proven."""
    _until(lambda: _in(world, [task_id], (State.CONFIRMED, State.SEALED)) > 0)
    late_s = (datetime.now(UTC) - ends_at).total_seconds()
    return Figure(f"fair_{what}_ms", late_s * 1000, "ms", "from a task's deadline until its end is proven")


def _ends(pair: Pair, name: str) -> None:
    sign_end(pair.person, name, reason=EndReason.OPERATOR, note="")


def _rounds(other: _Other, go_on: Callable[[], bool]) -> list[tuple[float, float]]:
    """Measure one round every few seconds while it goes on, and one more."""
    found: list[tuple[float, float]] = []
    while len(found) < MOST_ROUNDS:
        begun, last = time.monotonic(), not go_on()
        found.append(other.round())
        if last:
            break
        time.sleep(max(0.0, EVERY_S - (time.monotonic() - begun)))
    return found


def _figures(when: str, rounds: Sequence[tuple[float, float]]) -> list[Figure]:
    grants, ends = zip(*rounds, strict=True)
    said = f"the longest of {len(rounds)}, {TASKS:,} tasks of another operator"
    return [
        Figure(f"fair_{when}_grant_ms", max(grants), "ms", said, bar=None if when == "quiet" else 5000),
        Figure(f"fair_{when}_end_ms", max(ends), "ms", said, bar=None if when == "quiet" else 5000),
    ]


def _names() -> list[str]:
    return [f"bench-{secrets.token_hex(6)}" for _ in range(TASKS)]


def _in(world: Scene, names: Sequence[str], states: Sequence[State]) -> int:
    """Return how many of the tasks are in one of these states."""
    task = schema.tasks.c
    query = select(func.count()).where(task.task_id.in_(names), task.state.in_(states))
    with opened(world.variables["JITVAULT_LEDGER"], create=False).read() as connection:
        return int(connection.execute(query).scalar_one())


def _wait(world: Scene, names: Sequence[str], states: Sequence[State]) -> None:
    _until(lambda: _in(world, names, states) == len(names), look_s=0.5)


def _until(what: Callable[[], bool], *, look_s: float = _LOOK_S) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not what():
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing came of it within {_PATIENCE_S:.0f} s")
        time.sleep(look_s)
