"""What a receiver tells its operator: never a message for each line, and no count that is kept to itself."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Event

from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.files.spool import Spool
from jitvault.audit.receivers.receiver import Notices, receive
from jitvault.audit.receivers.stdin import StreamReceiver

MINUTE = 60.0


class Told:
    """Notices under a clock of their own, and when which message was told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.messages: list[tuple[float, str]] = []
        self.notices = Notices(lambda text: self.messages.append((self.now, text)), now=lambda: self.now)

    def count(self, what: str) -> int:
        """Return how often `what` was told, together."""
        told = [text for _, text in self.messages if text.startswith(what)]
        return sum(int(more[1]) if (more := re.search(r"(\d+) more", text)) else 1 for text in told)


# something is said so many times, or so many seconds go by
sayings = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3)) | st.integers(1, 90), max_size=40)


@given(sayings)
def test_everything_is_told_within_a_minute_and_at_most_once_a_minute(sayings: list[tuple[str, int] | int]) -> None:
    told = Told()
    said: dict[str, list[float]] = {"a": [], "b": []}
    for saying in sayings:
        if isinstance(saying, tuple):
            what, times = saying
            said[what] += [told.now] * times
            told.notices.say(what, "why", times=times)
            continue
        told.now += saying
        told.notices.tell_counts()
        for what, times_said in said.items():
            assert told.count(what) >= sum(at <= told.now - MINUTE for at in times_said)
    for what in said:
        times_told = [at for at, text in told.messages if text.startswith(what)]
        assert all(later - sooner >= MINUTE for sooner, later in itertools.pairwise(times_told))
    told.notices.tell_counts(at_end=True)
    assert [told.count(what) for what in "ab"] == [len(times_said) for times_said in said.values()]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)


class Refusing:
    """A receiver that refuses three times; if it goes on, a minute goes by and it waits for the second message."""

    listening = "nowhere"

    def __init__(self, told: Told, *, goes_on: bool) -> None:
        self._told = told
        self._goes_on = goes_on

    def run(self, stopping: Event) -> None:
        for _ in range(3):
            self._told.notices.say("refused")
        if self._goes_on:
            self._told.now += MINUTE
            eventually(lambda: len(self._told.messages) == 2)


def test_a_running_receiver_tells_the_count_without_another_refusal(tmp_path: Path) -> None:
    told = Told()
    received(told, Refusing(told, goes_on=True), Spool(tmp_path / "spool"))
    assert told.messages == [(1000.0, "refused"), (1000.0 + MINUTE, "refused (2 more)")]


def test_a_receiver_that_ends_tells_what_was_not_told_yet(tmp_path: Path) -> None:
    told = Told()
    received(told, Refusing(told, goes_on=False), Spool(tmp_path / "spool"))
    assert told.messages == [(1000.0, "refused"), (1000.0, "refused (2 more)")]


def test_lines_without_the_prefix_are_told(tmp_path: Path) -> None:
    told = Told()
    spool = Spool(tmp_path / "spool")
    reading, writing = os.pipe()
    os.write(writing, b'@cee: {"a":1}\n{"b":2}\n@ceee')
    os.close(writing)
    received(told, StreamReceiver(spool, told.notices, descriptor=reading, prefix="@ceee: "), spool)
    os.close(reading)
    assert [text for _, text in told.messages] == [
        "a line was left out (it does not begin with '@ceee: {')",
        "a line was left out (2 more; it does not begin with '@ceee: {')",
    ]


def received(told: Told, receiver: Refusing | StreamReceiver, spool: Spool) -> None:
    receive(receiver, spool, keep=timedelta(days=7), stopping=Event(), notices=told.notices)
