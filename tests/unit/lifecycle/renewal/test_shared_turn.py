"""What scheduled renewals share: a canary, and a count of what others hold; nobody else does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from jitvault.context import RunMode, WorkerContext
from jitvault.errors import AuditUntrusted
from jitvault.lifecycle.decision.questions import decision_input_for
from jitvault.lifecycle.renewal import shared_turn as shared
from jitvault.lifecycle.renewal.shared_turn import read_up_to, shared_turn
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
        with facts.turn(), shared_turn(of):
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
def canaries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sent: list[int] = []
    monkeypatch.setattr(shared, "canary", lambda _worker: sent.append(1))
    return sent


def test_a_canary_counts_for_what_was_due_before_it_was_sent_and_for_nothing_else(canaries: list[int]) -> None:
    clock = Clock()
    one = worker(Facts(clock))
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
    facts = Facts(Clock())
    for due in (NOW - timedelta(seconds=30), None):
        read_up_to(worker(facts, is_scheduled=False), due)
    read_up_to(worker(facts), None)
    assert len(canaries) == 3


def test_a_stream_that_is_not_trusted_is_asked_for_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def lost(_worker: WorkerContext) -> None:
        asked.append(1)
        raise AuditUntrusted("nothing comes")

    monkeypatch.setattr(shared, "canary", lost)
    one = worker(Facts(Clock()))
    for _ in range(2):
        with pytest.raises(AuditUntrusted):
            read_up_to(one, NOW - timedelta(seconds=30))
    assert len(asked) == 2
