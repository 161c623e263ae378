"""Operators with their agents, many at a time, who have Vault tokens and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import local
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.scene import Scene, spec_of
from jitvault.formats.secret import Secret
from jitvault.lifecycle.requests.sign import sign_end, sign_grant_request, sign_submission
from jitvault.model.spec import TaskSpec, parse_spec
from jitvault.model.states import EndReason
from jitvault.settings import Settings
from jitvault.vault.client import Connection, Vault
from jitvault.vault.wrapping import Wrapping
from jitvault.wiring import Wiring

CREDENTIAL = "database/creds/app-readonly"
_LOOK_S, _PATIENCE_S = 0.1, 10.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the database is that the credentials are for."""

    host: str
    port: int


def task_of(task_id: str, **window: str) -> TaskSpec:
    """A low-risk task, for `window` where that is given."""
    spec: Any = spec_of(task_id)
    spec["spec"]["window"] = window or spec["spec"]["window"]
    return parse_spec(json.dumps(spec).encode())


class Pair:
    """An operator and an agent who sit side by side. For one thread."""

    def __init__(self, settings: Settings) -> None:
        self.person = Wiring(settings).person
        self.agent = Vault(Connection(settings.vault_addr), None)

    def submits(self, spec: TaskSpec) -> None:
        sign_submission(self.person, spec, revise=False)

    def wishes(self, spec: TaskSpec) -> None:
        sign_grant_request(self.person, spec)

    def takes(self, task_id: str, *, within_s: float = _PATIENCE_S) -> Secret:
        """The task's token, out of the inbox and out of its wrapping: four requests, as `jitvault unwrap` sends."""
        path, wrapping = f"inbox/{self.person.entity}/{task_id}", Wrapping(self.agent)
        deadline = time.monotonic() + within_s
        # its name is there a moment before what is in it
        while (message := self.person.documents.get(path)) is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"there is nothing in the inbox for {task_id}")
            time.sleep(_LOOK_S / 10)
        token = Secret(message["wrapping"][0]["token"])
        inside = wrapping.unwrap(token) if wrapping.creation_path(token) else None
        if inside is None:
            raise RuntimeError(f"the wrapping token of {task_id} is over")
        self.person.documents.destroy(path)
        return inside.token

    def reads(self, token: Secret) -> tuple[dict[str, str], str]:
        """A login of PostgreSQL, and the lease that it is."""
        own = self.agent.with_token(token)
        answer = own.read(CREDENTIAL)
        own.close()
        if answer is None:
            raise RuntimeError(f"Vault has nothing at {CREDENTIAL}")
        return answer["data"], str(answer["lease_id"])

    def ends(self, task_id: str) -> None:
        sign_end(self.person, task_id, reason=EndReason.COMPLETED, note="")


def use(target: Target, login: dict[str, str]) -> None:
    """One connection, one query."""
    who = {"user": login["username"], "password": login["password"]}
    with psycopg.connect(make_conninfo(host=target.host, port=target.port, dbname="app", **who)) as database:
        if database.execute("SELECT count(*) FROM orders").fetchone() != (3,):
            raise RuntimeError("the task's login does not read what it is for")


class People:
    """`size` pairs, each in a thread of its own, until the block is left.

    The first of each pair is the operator, or whoever `settings` has the token of.
    """

    def __init__(self, world: Scene, size: int, settings: Settings | None = None) -> None:
        self._settings, self._size, self._own = settings or world.settings, size, local()
        # whoever wants to see a whole inbox has to be an administrator
        self._admin = Vault(Connection(world.world.address), world.world.admin_token)
        self._inbox = f"jitvault-inbox/metadata/{Wiring(self._settings).person.entity}/"

    def __enter__(self) -> People:
        self._pool = ThreadPoolExecutor(self._size)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def do(self, act: Callable[[Pair], T]) -> Future[T]:
        """Have one of them do it, as soon as somebody has the time."""
        return self._pool.submit(lambda: act(self._pair()))

    def all_do(self, acts: Iterable[Callable[[Pair], T]]) -> list[T]:
        return [future.result() for future in [self.do(act) for act in acts]]

    def on_delivery(
        self, tasks: Sequence[str], act: Callable[[Pair, str], None], *, within_s: float, stalled_s: float
    ) -> list[str]:
        """Do `act` with each task once it is delivered; gives those that were not, within that time or at all, when
        nothing new came for `stalled_s`. One looks into the inbox for all of them, ten times a second.
        """
        open_, begun, doing = set(tasks), set[str](), list[Future[None]]()
        deadline, last = time.monotonic() + within_s, time.monotonic()
        while open_ and time.monotonic() < min(deadline, last + stalled_s):
            for task_id in sorted(open_.intersection(self._admin.list(self._inbox)) - begun):
                begun.add(task_id)
                doing.append(self.do(lambda pair, one=task_id: act(pair, one)))  # type: ignore[misc]
                last = time.monotonic()
            open_ -= begun
            time.sleep(_LOOK_S)
        for future in doing:
            future.result()
        return sorted(open_)

    def _pair(self) -> Pair:
        if not hasattr(self._own, "pair"):
            self._own.pair = Pair(self._settings)
        pair: Pair = self._own.pair
        return pair
