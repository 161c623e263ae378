"""People and agents with Vault tokens and nothing else, many tasks at a time, beside workers that run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread

from commands import SPEC
from rig import Rig

from jitvault.agent.unwrap import TaskToken, read_all, unwrap
from jitvault.context import Person
from jitvault.errors import JitvaultError, NotFound, VaultRefused
from jitvault.formats.secret import Secret
from jitvault.lifecycle.requests.sign import sign_end, sign_grant_request, sign_submission
from jitvault.model.spec import parse_spec
from jitvault.model.states import EndReason
from jitvault.vault.client import Vault
from jitvault.vault.wrapping import Wrapping

_LOOK_S, _AGAIN_S = 0.3, 1.0
PATIENCE_S = 150.0
"""Longer than a worker that was killed keeps its claim, and than what it left behind takes to end."""
WAYS = ("completed", "revoked", "revoked by the agent", "left at its deadline", "never unwrapped")
"""How tasks end. The last two are abandoned: nobody says anything more."""


class Inbox:
    """What lies in the operators' inbox, looked at by one for all of them while the block lasts."""

    def __init__(self, rig: Rig) -> None:
        self._admin, self._path = rig.admin, f"jitvault-inbox/metadata/{rig.entity('operator')}"
        self._tasks, self._over = set[str](), Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> Inbox:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def __contains__(self, task: str) -> bool:
        return task in self._tasks

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            self._tasks = set(self._admin.list(self._path))


@dataclass
class Someone:
    """An operator and an agent who sit side by side. For one thread."""

    person: Person
    agent: Vault
    inbox: Container[str]
    patience_s: float = PATIENCE_S

    def sees_through(self, task: str, way: str) -> None:
        """Ask for a task and do with it what `way` says."""
        window = "20s" if way in WAYS[3:] else "15m"
        fields = {"intent": "Count.", "criticality": "low", "template": "postgres-readonly", "more": ""}
        spec = parse_spec(SPEC.format(id=task, window=window, **fields).encode(), "a spec of the crowd")
        sign_submission(self.person, spec, revise=False)
        sign_grant_request(self.person, spec)
        if way == WAYS[4]:
            return
        held = self.uses(task)
        if way == WAYS[0]:
            sign_end(self.person, task, reason=EndReason.COMPLETED, note="")
        elif way == WAYS[1]:
            sign_end(self.person, task, reason=EndReason.OPERATOR, note="enough")
        elif way == WAYS[2]:
            self.agent.with_token(held.token).write("auth/token/revoke-self")

    def uses(self, task: str) -> TaskToken:
        """Unwrap what is delivered and read with it. Of one whose delivery a worker died over there is another."""
        deadline, tried = time.monotonic() + self.patience_s, set[str]()
        while time.monotonic() < deadline:
            if task not in self.inbox:
                time.sleep(_LOOK_S)
                continue
            message = self.person.documents.get(f"inbox/{self.person.entity}/{task}")
            token = str(message["wrapping"][0]["token"]) if message else ""
            if message and token not in tried and Wrapping(self.agent).creation_path(Secret(token)):
                tried.add(token)
                try:
                    held = unwrap(self.agent, Secret(token))
                    list(read_all(self.agent, held))
                except (NotFound, VaultRefused):
                    continue
                return held
            time.sleep(_AGAIN_S)
        raise AssertionError(f"nothing that can be used was delivered of {task}")


class Crowd:
    """`size` pairs of people, each at one task at a time."""

    def __init__(self, rig: Rig, size: int, patience_s: float = PATIENCE_S) -> None:
        self._free = SimpleQueue[Someone]()
        self.size, self._inbox = size, Inbox(rig)
        for _ in range(size):
            person, agent = rig.wiring("operator").person, rig.vault(rig.token_of("agent"))
            self._free.put(Someone(person, agent, self._inbox, patience_s))

    def see_through(self, tasks: Iterable[tuple[str, str]], *, until: Callable[[], bool] = lambda: False) -> list[str]:
        """See tasks through, each with its way, until all are or `until` says so; gives what went wrong."""
        with self._inbox, ThreadPoolExecutor(self.size) as pool:
            return [said for said in pool.map(lambda one: self._one(*one, until), tasks) if said]

    def _one(self, task: str, way: str, until: Callable[[], bool]) -> str:
        if until():
            return ""
        someone = self._free.get()
        try:
            someone.sees_through(task, way)
        except (JitvaultError, AssertionError, KeyError, json.JSONDecodeError) as error:
            return f"{task} ({way}): {type(error).__name__}: {error}"
        finally:
            self._free.put(someone)
        return ""
