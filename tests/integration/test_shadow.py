"""Facts under load, each read fresh as well: none differs from what Vault says, but for a change that is under way.

`make shadow` takes SHADOW_SECONDS. No fact is too old here, so that only the stream's lines can drop one.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attended import Attended
from commands import EXAMPLE
from rig import ENGINE_ROLE, Rig, own_rig

from jitvault.context import WorkerContext
from jitvault.sandbox.world import World, env
from jitvault.stream.kept_facts import let_facts_count
from jitvault.vault import facts as module
from jitvault.vault.facts import Facts
from jitvault.worker.process import Plan, context_factory

Spec = Callable[..., Path]
SECONDS = float(os.environ.get("SHADOW_SECONDS", "10"))
STEP_S = 5
TOKEN_ROLE = "auth/token/roles/jitvault-15m"


@pytest.fixture
def rig(lab: World, tmp_path: Path) -> Rig:
    return own_rig(lab, {**env(lab, "", EXAMPLE), "JITVAULT_ROLLING_STEP": f"{STEP_S}s"}, tmp_path)


@dataclass
class Shadow:
    """What differed, and the administrator's changes by which it may: each with its place, beginning and end."""

    changes: list[tuple[str, float, float]] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)
    differ: list[str] = field(default_factory=list)
    in_flight: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def compare(self, key: Any, trigger: float, kept: Any, fresh: Any) -> None:
        with self.lock:
            self.compared["/".join(str(key[1]).split("/")[:3])] += 1
            if _data(kept) == _data(fresh):
                return
            is_changing = any(place in key[1] and end >= trigger for place, _, end in self.changes)
            if is_changing or _age_s(fresh) <= time.monotonic() - trigger:
                self.in_flight += 1
            else:
                self.differ.append(f"{key[1]}: {_data(kept)} and not {_data(fresh)}")

    def change(self, place: str, act: Callable[[], object]) -> None:
        """Do an act that changes facts; while it is under way either answer is right."""
        begun = time.monotonic()
        with self.lock:
            self.changes = [each for each in self.changes if time.monotonic() - each[1] < 60]
            self.changes.append((place, begun, float("inf")))
        try:
            act()
        finally:
            with self.lock:
                self.changes.remove((place, begun, float("inf")))
                self.changes.append((place, begun, time.monotonic()))


def _data(answer: Any) -> Any:
    """What an answer says; Vault lists an entity's groups in any order."""
    data = answer.get("data") if isinstance(answer, dict) else answer
    if not isinstance(data, dict):
        return data
    return {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in data.items()}


def _age_s(answer: Any) -> float:
    """How long ago a document was written, by Vault's clock, which is this machine's; infinite for anything else.

    Operators and the worker write documents all the time, and not by `Shadow.change`.
    """
    data = _data(answer)
    written = (data or {}).get("metadata") or {} if isinstance(data, dict) else {}
    at = written.get("created_time")
    return time.time() - datetime.fromisoformat(at[:26]).replace(tzinfo=UTC).timestamp() if at else float("inf")


@pytest.fixture
def shadow(monkeypatch: pytest.MonkeyPatch) -> Shadow:
    found = Shadow()
    really = Facts.of

    def of(self: Facts, key: Any, ask: Callable[[], Any], **how: Any) -> Any:
        # what the turn itself asked for may be older than a change during the turn
        is_asked = False

        def asked() -> Any:
            nonlocal is_asked
            is_asked = True
            return ask()

        began, trigger = self._turn.began, self._turn.trigger
        known = self._answers.get(key)
        kept = really(self, key, asked, **how)
        if not is_asked and known is not None and known.places and known.asked < began:
            found.compare(key, trigger, kept, ask())
        return kept

    monkeypatch.setattr(Facts, "of", of)
    monkeypatch.setattr(module, "AGE_S", 3600.0)
    return found


def _changes(rig: Rig) -> Iterator[tuple[str, Callable[[], object]]]:
    """Acts of an administrator, over and over: they change what the readers read, and end no task."""
    admin, policy, key = (
        rig.admin,
        "sys/policies/acl/jitvault-access-shadow",
        "jitvault-transit/keys/jitvault-signer-shadow",
    )
    role = {key: value for key, value in (admin.read(ENGINE_ROLE) or {})["data"].items() if key != "name"}
    tokens = {key: value for key, value in (admin.read(TOKEN_ROLE) or {})["data"].items() if key != "name"}
    who, group = rig.entity("operator"), "identity/group/name/jitvault-shadow"
    for n in itertools.count():
        noted = {"metadata": {"n": str(n)}}
        yield "identity/", partial(admin.write, f"identity/entity/id/{who}", noted)
        yield "identity/", partial(admin.write, group, {"member_entity_ids": [who], **noted})
        yield "auth/token/roles/", partial(admin.write, TOKEN_ROLE, {**tokens, "allowed_entity_aliases": [f"a{n}"]})
        yield "sys/policies/", partial(admin.write, policy, {"policy": f"# {n}"})
        yield "probes/", partial(rig.put, "probes/shadow", {"n": n})
        yield "database/", partial(admin.write, ENGINE_ROLE, role)
        yield "jitvault-transit/", partial(admin.write, key, {"type": "ed25519"})
        yield "jitvault-transit/", partial(admin.write, f"{key}/rotate")
        yield "freezes/", partial(rig.put, f"freezes/shadow-{n % 3}/all", {"n": n})
        yield "identity/", partial(admin.delete, group)
        yield "probes/", partial(admin.delete, "jitvault/data/probes/shadow")
        yield "freezes/", partial(admin.delete, f"jitvault/metadata/freezes/shadow-{n % 3}/all")
        yield "database/", partial(admin.write, "sys/mounts/database/tune", {"description": f"logins {n}"})


def _paths(rig: Rig) -> list[str]:
    return [
        f"identity/entity/id/{rig.entity('operator')}",
        *("identity/group/name/jitvault-shadow", "identity/group/name/jitvault-agents", TOKEN_ROLE, ENGINE_ROLE),
        *("sys/policies/acl/jitvault-access-shadow", "jitvault/data/probes/shadow", "jitvault/metadata/freezes/"),
        "jitvault-transit/keys/jitvault-signer-shadow",
    ]


def _read(worker: WorkerContext, paths: Sequence[str], stop: threading.Event) -> None:
    """Turn after turn, read what the administrator changes."""
    while not stop.wait(0.01):
        with worker.facts.turn():
            let_facts_count(worker)
            for path in paths:
                if path.endswith("/"):
                    worker.reader.list(path)  # type: ignore[attr-defined]
                else:
                    worker.reader.read(path)


def _administrate(rig: Rig, shadow: Shadow, stop: threading.Event) -> None:
    chance = random.Random(7)
    for place, act in _changes(rig):
        if stop.wait(chance.uniform(0.05, 0.3)):
            return
        shadow.change(place, act)


def _load(rig: Rig, spec: Spec, until: float) -> None:
    """Have tasks granted, held and ended."""
    held: list[Path] = []
    while time.monotonic() < until:
        file = spec()
        rig("operator", "grant", file, "--wait", "20s")
        held.append(file)
        if len(held) > 6:
            rig("operator", "complete", held.pop(0).stem)
    for file in held:
        rig("operator", "complete", file.stem)


def test_no_fact_differs_from_what_vault_says(rig: Rig, spec: Spec, shadow: Shadow) -> None:
    stop = threading.Event()
    trouble: list[BaseException] = []

    def watched(act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - the test fails with it
            trouble.append(error)

    with Attended(rig, Plan(hands=4), canary_s=1) as attended:
        hire = context_factory(attended.started.wiring)
        acts = [partial(_administrate, rig, shadow, stop), *(partial(_read, hire(), _paths(rig), stop) for _ in "12")]
        threads = [threading.Thread(target=watched, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        try:
            _load(rig, spec, time.monotonic() + SECONDS)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert trouble == []
    sys.stdout.write(f"{shadow.compared.total()} compared, {shadow.in_flight} in flight: {dict(shadow.compared)}\n")
    assert shadow.differ == []
    assert shadow.compared.total() > 10 * SECONDS
