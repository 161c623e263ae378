"""The lives of task tokens, as the audit log and Vault tell them; the ledger is not asked.

A token is made by a create whose response line names its accessor by HMAC, and dies by a revocation by that accessor,
by itself, or by its lease, whose id no line links to it: such a revocation stands for the death of one token. Where
nobody did, it is over a rolling step after it was made, or renewed last, by Vault's clock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

from rig import Rig

from jitvault.errors import VaultRefused
from jitvault.settings import load

_RENEW = "auth/token/renew-accessor"
_ABOUT = (b"auth/token/create/", b"auth/token/revoke-", _RENEW.encode(), b"jitvault-inbox/data/")
_BY_LEASE = "sys/leases/revoke/auth/token/create/"


@dataclass
class Token:
    """One token of a task. `place` is the number of its line among those that matter."""

    accessor: str
    place: int
    until: datetime
    deliveries: int = 0
    dead: bool = False


@dataclass
class Lives:
    """What was read of the log: the tokens of each task in the order of their creation, and what must not be."""

    tokens: dict[str, list[Token]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    by_lease: list[int] = field(default_factory=list)
    """The places of revocations by lease that no death was explained with yet."""
    expired: int = 0
    """How many were over by their time when the next one was made."""

    def made(self) -> int:
        return sum(map(len, self.tokens.values()))

    def delivered(self) -> int:
        return sum(token.deliveries for tokens in self.tokens.values() for token in tokens)

    def created(self, task: str, token: Token, at: datetime) -> None:
        before = self.tokens.setdefault(task, [])
        for one in before:
            if not one.dead and at > one.until:
                one.dead, self.expired = True, self.expired + 1
        self.wrong += [f"{task}: a token was made while another lived" for one in before if not self._is_dead(one)]
        before.append(token)

    def put_into_inbox(self, task: str) -> None:
        tokens = self.tokens.get(task)
        if not tokens or tokens[-1].dead:
            self.wrong.append(f"{task}: something was delivered, and no token of it lived")
            return
        tokens[-1].deliveries += 1
        if tokens[-1].deliveries > 1:
            self.wrong.append(f"{task}: one token was delivered {tokens[-1].deliveries} times")

    def _is_dead(self, token: Token) -> bool:
        later = [place for place in self.by_lease if place > token.place]
        if not token.dead and later:
            self.by_lease.remove(later[0])
            token.dead = True
        return token.dead


def lives(rig: Rig, tasks: Collection[str]) -> Lives:
    """Read the whole audit log of the rig's Vault, of which the file is one."""
    found, by_accessor = Lives(), dict[str, Token]()
    with rig.environment(None):
        step = load().rolling_step
    hashed = {_hmac(rig, task): task for task in tasks}
    for place, entry in enumerate(_entries(rig)):
        request, answer = entry["request"], entry.get("response") or {}
        path, data = request["path"], request.get("data") or {}
        at = datetime.fromisoformat(entry["time"])
        if path.startswith("auth/token/create/"):
            task = hashed.get((data.get("meta") or {}).get("jitvault_task"))
            if task is not None and (accessor := (answer.get("wrap_info") or {}).get("wrapped_accessor")):
                token = by_accessor[accessor] = Token(accessor, place, at + step)
                found.created(task, token, at)
        elif path == _RENEW:
            if (renewed := by_accessor.get(data.get("accessor"))) is not None:
                renewed.until = at + step
        elif path.startswith(_BY_LEASE):
            found.by_lease.append(place)
        elif path.startswith("auth/token/revoke-"):
            accessor = data.get("accessor") or (entry.get("auth") or {}).get("accessor")
            if accessor in by_accessor:
                by_accessor[accessor].dead = True
        elif request["operation"] in ("create", "update") and (task := path.rpartition("/")[2]) in tasks:
            found.put_into_inbox(task)
    return found


def _entries(rig: Rig) -> Iterator[dict[str, Any]]:
    """The response lines without an error that are about tokens or inboxes, one at a time: the file may be large."""
    with Path(rig.cli.variables["JITVAULT_AUDIT_FILE"]).open("rb") as log:
        for line in log:
            if line.endswith(b"\n") and any(word in line for word in _ABOUT):
                entry = json.loads(line)
                if entry["type"] == "response" and not entry.get("error"):
                    yield entry


def _hmac(rig: Rig, text: str) -> str:
    return str(rig.admin.write("sys/audit-hash/jitvault", {"input": text})["data"]["hash"])


def live_now(rig: Rig, tasks: Collection[str]) -> Counter[str]:
    """How many live tokens each task has in Vault at this moment."""
    found, admin = Counter[str](), rig.admin
    for accessor in admin.list("auth/token/accessors/"):
        # it may be gone; of one that goes at this moment Vault says that permission is denied
        with suppress(VaultRefused):
            facts = admin.write("auth/token/lookup-accessor", {"accessor": accessor})["data"]
            found[(facts.get("meta") or {}).get("jitvault_task", "")] += 1
    return Counter({task: count for task, count in found.items() if task in tasks})


class Watched:
    """Looks, while the block lasts, whether any task has two live tokens in Vault."""

    def __init__(self, rig: Rig, tasks: Collection[str], every_s: float = 1.0) -> None:
        self._rig, self._tasks, self._every_s = rig, tasks, every_s
        self._over, self._thread = Event(), Thread(target=self._watch, daemon=True)
        self.looks, self.wrong = 0, list[str]()

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _watch(self) -> None:
        while not self._over.wait(self._every_s):
            twice = [task for task, count in live_now(self._rig, self._tasks).items() if count > 1]
            self.wrong += [f"{task} has two live tokens" for task in twice]
            self.looks += 1
