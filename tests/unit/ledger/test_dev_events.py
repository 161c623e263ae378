"""What `jitvault dev` streams from a ledger: each event and finding once; an unreadable ledger stops nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import builders as b
import pytest
from event_examples import body

from jitvault.cli.sandbox.dev_events import EventFeed
from jitvault.errors import LedgerUnreachable
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change
from jitvault.ledger.storage.database import opened
from jitvault.model.kinds import EventKind

WIDTH = 80


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Ledger]:
    found = Ledger(opened(f"sqlite:///{tmp_path / 'ledger.db'}", create=True))
    yield found
    found.close()


def told(feed: EventFeed) -> list[str]:
    """The words of each line, without its time and task."""
    return [line[28:] for line in feed.lines(WIDTH)]


def test_each_event_is_told_once_and_the_quiet_ones_never(small: Ledger) -> None:
    feed = EventFeed(small, {})
    assert told(feed) == []
    b.make(small)
    begun = told(feed)
    assert len(begun) == 1 and told(feed) == []
    b.change(small, Change(EventKind.JUDGED))
    assert told(feed) == []
    b.change(small, Change(EventKind.CONFIRMED, body("confirmed")))
    b.change(small, Change(EventKind.NOTED, body("noted", note="seen")))
    assert told(feed) == ["confirmed: every credential passed its checks", "noted by operator (seen)"]
    assert told(EventFeed(small, {}))[len(begun) :] == [
        "confirmed: every credential passed its checks",
        "noted by operator (seen)",
    ]


def test_a_finding_is_told_once_with_its_task_or_for_every_task(small: Ledger) -> None:
    b.make(small)
    feed = EventFeed(small, {})
    told(feed)
    small.finding("t-1", "second_unwrap", "somebody unwrapped it", b.NOW)
    small.finding(None, "unknown_token", "a token of nobody's", b.NOW)
    lines = list(feed.lines(WIDTH))
    assert sorted(line[10:] for line in lines) == [
        "every task        FINDING 2: a token of nobody's",
        "t-1               FINDING 1: somebody unwrapped it",
    ]
    assert all(line.startswith("09:00:00  ") for line in lines) and told(feed) == []


def test_a_ledger_that_cannot_be_read_is_asked_again(small: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    b.make(small)
    feed = EventFeed(small, {})

    def unreachable() -> None:
        raise LedgerUnreachable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(small, "tasks", unreachable)
        assert told(feed) == []
    assert len(told(feed)) == 1
