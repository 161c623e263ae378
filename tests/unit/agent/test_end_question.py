"""Whoever asks why a task is over gets the answer to their own question, and waits no longer for that of others."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jitvault.agent import end_question
from jitvault.agent.end_question import EVERY, EndQuestion

OVER = "task t is over: it is ending (revoked by operator)"


def test_a_late_answer_is_none_to_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end_question, "_COUNTS_S", 0.0)
    asked: list[int] = []
    late: list[tuple[int, str]] = []

    def answer(_: float) -> tuple[int, str]:
        if not late:
            raise TimeoutError
        return late.pop(0)

    question = EndQuestion(asked.append, answer)
    assert question.why() == ""
    late += [(asked[0], "stale"), (asked[0] + 1, OVER)]
    assert question.why() == OVER
    late += [(EVERY, "")]
    assert question.why() == "", "nobody is left who answers"


def test_a_loop_of_failures_is_no_loop_of_questions() -> None:
    asked: list[int] = []
    question = EndQuestion(asked.append, lambda _: (asked[-1], OVER))
    assert {question.why() for _ in range(100)} == {OVER} and len(asked) < 10


def test_threads_that_fail_at_once_wait_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end_question, "PATIENCE_S", 0.5)
    monkeypatch.setattr(end_question, "_COUNTS_S", 0.0)

    def answer(seconds: float) -> tuple[int, str]:
        time.sleep(seconds)
        raise TimeoutError

    question, begun = EndQuestion(lambda _: None, answer), time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: question.why(), range(8))) == {""}
    assert time.monotonic() - begun < 2
