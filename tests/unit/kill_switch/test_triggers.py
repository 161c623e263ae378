"""Tripwires are looked for in parts: with thousands of tasks no look at all of them keeps a worker from the rest."""

from __future__ import annotations

from typing import Any, cast

import pytest

from jitvault.kill_switch import triggers as urgent


class Held:
    """A ledger in which tasks are held, each with the number of its last event; looking at one is noted."""

    def __init__(self, **held: int) -> None:
        self.tasks, self.looked, self.frozen = held, list[str](), False

    def live_tasks(self) -> dict[str, int]:
        return dict(self.tasks)

    def freeze(self) -> bool | None:
        return self.frozen or None

    def record(self, task_id: str) -> str:
        self.looked.append(task_id)
        return task_id


class Looker:
    """As much of a Worker as who looks for tripwires needs."""

    def __init__(self, ledger: Held) -> None:
        self.ledger = ledger


class Trapped:
    message = "it did"


def test_tripwires_are_looked_for_in_parts_and_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urgent, "watch", lambda _worker, record: [Trapped()] if record == "bad" else [])
    ledger, seen = Held(a=1, b=1, bad=1), dict[str, int]()
    one = cast(Any, Looker(ledger))

    def look(at_most: int) -> dict[str, str]:
        ledger.looked.clear()
        left = iter(range(at_most))
        return dict(urgent.tripped(one, seen, lambda: next(left, None) is not None))

    found = [look(1) for _ in range(3)]
    assert sorted(map(len, found)) == [0, 0, 1] and {"bad": "it did"} in found
    # nothing new of any of them
    assert look(9) == {} and ledger.looked == []
    first, second, _ = seen
    ledger.tasks[first] = ledger.tasks[second] = 2
    look(1)
    assert ledger.looked == [first]
    # the first has news again, and the second has waited for longer
    ledger.tasks[first] = 3
    look(1)
    assert ledger.looked == [second]
    look(9)
    assert ledger.looked == [first]
    del ledger.tasks[first]
    look(9)
    assert first not in seen


def test_while_everything_is_frozen_all_of_them_are_wanted_and_none_is_looked_at() -> None:
    ledger = Held(a=1, b=1)
    ledger.frozen = True
    one = cast(Any, Looker(ledger))
    assert dict(urgent.tripped(one, {"a": 1})) == dict.fromkeys("ab", "everything is frozen")
    assert ledger.looked == []
