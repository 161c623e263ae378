"""What a look at a due task goes by: answers of this very second, asked for once; and nobody else does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from jitvault.context import RECENT_S, ReadCache, RunMode, WorkerContext
from jitvault.errors import AuditUntrusted
from jitvault.lifecycle.decision.questions import decision_input_for
from jitvault.lifecycle.renewal import cached_reads as glance
from jitvault.lifecycle.renewal.cached_reads import read_up_to, with_cached_reads
from jitvault.model.revision_content import TemplateFacts
from jitvault.policy.question import HeldLeases
from jitvault.vault.interface import Entity, Stored

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
SOMEBODY = Entity("e-1", "somebody", disabled=False, group_ids=frozenset())


class Clock:
    """A monotonic clock that somebody sets."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def counting(recent: ReadCache, times: list[int], key: str = "k", **how: Any) -> int:
    """Ask, and give which question it was that the answer came to."""

    def ask() -> int:
        times.append(len(times) + 1)
        return times[-1]

    return recent.of(key, ask, **how)


# -- answers ------------------------------------------------------------------------------------------------


def test_an_answer_serves_whoever_asks_within_a_second_and_nobody_after() -> None:
    clock, times = Clock(), list[int]()
    recent = ReadCache(clock)
    assert [counting(recent, times) for _ in range(3)] == [1, 1, 1]
    clock.at += RECENT_S - 0.001
    assert counting(recent, times) == 1
    clock.at += 0.001
    assert counting(recent, times) == 2
    assert counting(recent, times, "another") == 3


def test_an_answer_is_as_old_as_its_question() -> None:
    clock = Clock()
    recent = ReadCache(clock)

    def slow() -> str:
        clock.at += 0.9
        return "old"

    assert recent.of("k", slow) == "old"
    clock.at += 0.2
    assert recent.of("k", lambda: "new") == "new"


def test_who_needs_a_younger_one_asks_and_nobody_gets_an_older_one() -> None:
    clock, times = Clock(), list[int]()
    recent = ReadCache(clock)
    counting(recent, times)
    clock.at += 0.5
    assert counting(recent, times, at_most_s=0.4) == 2
    assert counting(recent, times, at_most_s=0.0) == 3
    assert counting(recent, times, at_most_s=-1.0) == 4
    clock.at += 5
    assert counting(recent, times, at_most_s=3600.0) == 5


def test_what_failed_is_asked_again_and_what_is_old_is_forgotten() -> None:
    clock, times = Clock(), list[int]()
    recent = ReadCache(clock)
    with pytest.raises(ZeroDivisionError):
        recent.of("k", lambda: 1 // 0)
    assert counting(recent, times) == 1
    for n in range(50):
        clock.at += RECENT_S
        counting(recent, times, f"k{n}")
    assert len(recent._answers) <= 2


# -- looks --------------------------------------------------------------------------------------------------


@dataclass
class Vault:
    """Everything that a worker reads, and how often it did."""

    reads: list[str] = field(default_factory=list)

    def _read(self, what: str) -> None:
        self.reads.append(what)

    def read(self, path: str) -> Any:
        self._read(f"read {path}")
        return Stored({"at": path}, NOW)

    def get(self, path: str) -> Any:
        return self.read(path).document

    def names(self, path: str) -> list[str]:
        self._read(f"names {path}")
        return ["a"]

    def put(self, path: str, document: object, *, op: str | None = None) -> None:
        self._read(f"put {path}")

    def by_id(self, entity_id: str) -> Entity:
        self._read(f"entity {entity_id}")
        return SOMEBODY

    by_name = by_id

    def groups_of(self, entity: Entity, among: list[str]) -> tuple[str, ...]:
        self._read("groups")
        return tuple(among)

    def public_keys(self, key: str) -> dict[int, str]:
        self._read(f"keys {key}")
        return {1: key}

    def load(
        self, agent: str, owner: str, templates: list[str], *, besides: str, since: datetime
    ) -> dict[str, HeldLeases]:
        self._read(f"load besides {besides or 'nobody'}")
        mine = 0 if besides else 5
        return {name: HeldLeases(10 + mine, 20 + mine, 30 + mine, 1) for name in templates}

    def agreed(self) -> datetime:
        return NOW


def worker(vault: Vault, shared: ReadCache | None) -> WorkerContext:
    names = ("ledger", "documents", "identity", "reader", "signer", "clock")
    rest: dict[str, Any] = dict.fromkeys(WorkerContext.__dataclass_fields__)
    return WorkerContext(**{**rest, **dict.fromkeys(names, cast(Any, vault)), "mode": RunMode(cache=shared)})


def look(worker: WorkerContext, who: str = "e-1") -> None:
    """One of each question, all of them about somebody."""
    worker.documents.read(f"freezes/{who}/k")
    worker.documents.get(f"freezes/{who}/k")
    worker.documents.names(f"freezes/{who}/")
    worker.identity.by_id(who)
    worker.identity.by_name(f"called {who}")
    worker.identity.groups_of(replace(SOMEBODY, id=who), ["g"])
    worker.reader.read(f"sys/policies/acl/{who}")
    worker.signer.public_keys(who)


def test_looks_at_what_is_due_share_their_answers() -> None:
    vault, shared = Vault(), ReadCache(Clock())
    for _ in range(3):
        look(with_cached_reads(worker(vault, shared)))
    assert len(vault.reads) == len(set(vault.reads)) == 7


def test_what_is_asked_about_another_is_another_question() -> None:
    vault = Vault()
    eyes = with_cached_reads(worker(vault, ReadCache(Clock())))
    for who in ("e-1", "e-2"):
        look(eyes, who)
    assert len(vault.reads) == 14
    # who is known by an id may be called like another
    eyes.identity.by_name("e-1")
    assert len(vault.reads) == 15


def test_nothing_is_shared_with_whoever_does_not_glance() -> None:
    vault, shared = Vault(), ReadCache(Clock())
    look(with_cached_reads(worker(vault, shared)))
    vault.reads.clear()
    look(worker(vault, shared))
    look(worker(vault, None))
    look(with_cached_reads(worker(vault, None)))
    assert len(vault.reads) == 24


def test_what_is_written_is_written_each_time() -> None:
    vault = Vault()
    eyes = with_cached_reads(worker(vault, ReadCache(Clock())))
    eyes.documents.put("tasks/t", {})
    eyes.documents.put("tasks/t", {})
    assert vault.reads == ["put tasks/t"] * 2


def test_how_much_others_hold_is_counted_once_and_never_with_the_tasks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    vault = Vault()
    access = [
        TemplateFacts(template=name, template_owner="otto", tier="low", data_domains=[], lease_budget=leases)
        for name, leases in (("pg", 2), ("pki", 3))
    ]
    who = cast(Any, type("P", (), {"entity": "e-1"}))
    spec = cast(Any, type("S", (), {"id": "t-1"}))

    def loads(of: WorkerContext) -> Any:
        return decision_input_for(of, spec, access, requester=who, agent=who, owner=who).loads

    shared = ReadCache(Clock())
    glanced = [loads(with_cached_reads(worker(vault, shared))) for _ in range(2)]
    assert glanced == [{"pg": HeldLeases(10, 20, 33, 1), "pki": HeldLeases(10, 20, 32, 1)}] * 2
    assert vault.reads == ["load besides nobody"]
    # who grants counts anew
    assert loads(worker(vault, shared)) == {"pg": HeldLeases(10, 20, 30, 1), "pki": HeldLeases(10, 20, 30, 1)}
    assert vault.reads[1:] == ["load besides t-1"]
    assert HeldLeases(1, 1, 1, 4).without(2, 2) == HeldLeases(0, 0, 0, 4)


# -- the stream ---------------------------------------------------------------------------------------------


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sent: list[int] = []
    monkeypatch.setattr(glance, "canary", lambda _worker: sent.append(1))
    return sent


def test_a_canary_counts_for_what_was_due_before_it_was_sent_and_for_nothing_else(canaries: list[int]) -> None:
    clock = Clock()
    one = worker(Vault(), ReadCache(clock))
    read_up_to(one, NOW - timedelta(seconds=30))
    read_up_to(one, NOW - timedelta(seconds=30))
    assert len(canaries) == 1
    clock.at += 0.4
    # it was due 0.3 s ago, and the canary was sent before that
    read_up_to(one, NOW - timedelta(seconds=0.3))
    assert len(canaries) == 2
    clock.at += 0.2
    read_up_to(one, NOW - timedelta(seconds=0.3))
    assert len(canaries) == 2
    clock.at += RECENT_S
    read_up_to(one, NOW - timedelta(seconds=30))
    assert len(canaries) == 3


def test_who_shares_nothing_sends_a_canary_each_time(canaries: list[int]) -> None:
    for due in (NOW - timedelta(seconds=30), None):
        read_up_to(worker(Vault(), None), due)
    read_up_to(worker(Vault(), ReadCache(Clock())), None)
    assert len(canaries) == 3


def test_a_stream_that_is_not_trusted_is_asked_for_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def lost(_worker: WorkerContext) -> None:
        asked.append(1)
        raise AuditUntrusted("nothing comes")

    monkeypatch.setattr(glance, "canary", lost)
    one = worker(Vault(), ReadCache(Clock()))
    for _ in range(2):
        with pytest.raises(AuditUntrusted):
            read_up_to(one, NOW - timedelta(seconds=30))
    assert len(asked) == 2
