"""What scheduled renewals share: a canary, and a count of what others hold; nobody else does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from jitvault.context import RunMode, WorkerContext
from jitvault.errors import AuditUntrusted
from jitvault.lifecycle.decision.questions import decision_input_for
from jitvault.lifecycle.renewal import due_turn as module
from jitvault.lifecycle.renewal.due_turn import due_turn, read_up_to
from jitvault.model.revision_content import TemplateFacts
from jitvault.policy.question import HeldLeases
from jitvault.vault.facts import RECENT_S, Facts

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)


class Clock:
    """A monotonic clock that somebody sets."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


class Ledger:
    """Counts how often it is asked what others hold."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def load(
        self, agent: str, owner: str, templates: list[str], *, besides: str, since: datetime
    ) -> dict[str, HeldLeases]:
        self.asked.append(f"besides {besides or 'nobody'}")
        mine = 0 if besides else 5
        return {name: HeldLeases(10 + mine, 20 + mine, 30 + mine, 1) for name in templates}

    def agreed(self) -> datetime:
        return NOW


def worker(facts: Facts, ledger: Ledger | None = None, *, is_scheduled: bool = True) -> WorkerContext:
    rest: dict[str, Any] = dict.fromkeys(WorkerContext.__dataclass_fields__)
    there = {"ledger": ledger, "clock": ledger or Ledger(), "facts": facts, "mode": RunMode(is_scheduled=is_scheduled)}
    return WorkerContext(**{**rest, **cast(Any, there)})


def test_how_much_others_hold_is_counted_once_and_never_with_the_tasks_own() -> None:
    ledger, facts = Ledger(), Facts(Clock())
    access = [
        TemplateFacts(template=name, template_owner="otto", tier="low", data_domains=[], lease_budget=leases)
        for name, leases in (("pg", 2), ("pki", 3))
    ]
    who = cast(Any, type("P", (), {"entity": "e-1"}))
    spec = cast(Any, type("S", (), {"id": "t-1"}))

    def loads(of: WorkerContext) -> Any:
        with facts.turn(), due_turn(of, NOW - timedelta(seconds=0.5)):
            return decision_input_for(of, spec, access, requester=who, agent=who, owner=who).loads

    due = worker(facts, ledger)
    assert [loads(due), loads(due)] == [{"pg": HeldLeases(10, 20, 33, 1), "pki": HeldLeases(10, 20, 32, 1)}] * 2
    assert ledger.asked == ["besides nobody"]
    # news is looked at, and a grant decided, by a count of its own
    for _ in range(2):
        counted = loads(worker(facts, ledger, is_scheduled=False))
        assert counted == {"pg": HeldLeases(10, 20, 30, 1), "pki": HeldLeases(10, 20, 30, 1)}
    assert ledger.asked[1:] == ["besides t-1"] * 2
    assert HeldLeases(1, 1, 1, 4).without(2, 2) == HeldLeases(0, 0, 0, 4)


# -- the stream ---------------------------------------------------------------------------------------------


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    sent: list[float] = []

    def canary(worker: WorkerContext) -> None:
        sent.append(worker.facts.now())
        worker.facts.reached(worker.facts.now(), ingested=True)

    monkeypatch.setattr(module, "canary", canary)
    return sent


def test_a_canary_counts_for_what_was_due_before_it_was_sent_and_for_nothing_else(canaries: list[float]) -> None:
    clock = Clock()
    one = worker(Facts(clock))

    def due(seconds_ago: float) -> int:
        with one.facts.turn():
            read_up_to(one, NOW - timedelta(seconds=seconds_ago))
        return len(canaries)

    assert [due(30), due(30)] == [1, 1]
    clock.at += 0.4
    # it was due 0.3 s ago, and the canary was sent before that
    assert due(0.3) == 2
    clock.at += 0.2
    assert due(0.3) == 2
    clock.at += RECENT_S
    assert due(30) == 3


def test_a_look_at_the_stream_is_not_enough_for_what_needs_its_lines(canaries: list[float]) -> None:
    one = worker(Facts(Clock()))
    with one.facts.turn():
        one.facts.reached(one.facts.now(), ingested=False)
        read_up_to(one, NOW)
    assert len(canaries) == 1


def test_what_is_no_scheduled_look_goes_by_a_canary_of_after_its_news(canaries: list[float]) -> None:
    clock = Clock()
    facts = Facts(clock)
    for due in (NOW - timedelta(seconds=30), None):
        facts.reached(clock.at, ingested=True)
        clock.at += 0.1
        with facts.turn():
            assert not facts.is_due
            with due_turn(worker(facts, is_scheduled=False), due):
                assert not facts.is_due
            read_up_to(worker(facts, is_scheduled=False), due)
    with facts.turn():
        read_up_to(worker(facts), None)
    assert len(canaries) == 3


def test_what_became_due_during_its_turn_goes_by_a_canary_of_after_that(canaries: list[float]) -> None:
    clock = Clock()
    one = worker(Facts(clock), is_scheduled=False)
    with one.facts.turn():
        one.facts.reached(clock.at, ingested=True)
        clock.at += 0.2
        read_up_to(one, NOW - timedelta(seconds=0.1))
        assert len(canaries) == 1
        read_up_to(one, NOW - timedelta(seconds=0.1))
    assert len(canaries) == 1


def test_outside_of_a_turn_a_canary_is_sent_each_time(canaries: list[float]) -> None:
    one = worker(Facts(Clock()), is_scheduled=False)
    for n in (1, 2):
        read_up_to(one, NOW - timedelta(seconds=30))
        assert len(canaries) == n


def test_a_stream_that_is_not_trusted_is_asked_for_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def lost(_worker: WorkerContext) -> None:
        asked.append(1)
        raise AuditUntrusted("nothing comes")

    monkeypatch.setattr(module, "canary", lost)
    one = worker(Facts(Clock()))
    for _ in range(2):
        with pytest.raises(AuditUntrusted), one.facts.turn():
            read_up_to(one, NOW - timedelta(seconds=30))
    assert len(asked) == 2
