"""How long to wait before something that failed is tried again: longer each time, never for ever, never all at once."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from jitvault.backoff import doubled, jittered


def test_a_wait_doubles_with_each_failure() -> None:
    assert [doubled(0.25, failures, 60.0) for failures in range(4)] == [0.25, 0.5, 1.0, 2.0]
    assert doubled(timedelta(seconds=1), 3, timedelta(minutes=5)) == timedelta(seconds=8)


@given(st.integers(0, 10**6))
def test_a_wait_grows_up_to_its_longest_however_many_failures_there_were(failures: int) -> None:
    longest = timedelta(minutes=5)
    assert doubled(timedelta(seconds=1), failures, longest) <= doubled(timedelta(seconds=1), failures + 1, longest)
    assert doubled(timedelta(seconds=1), failures + 20, longest) == longest


def test_what_failed_at_one_moment_is_tried_again_at_different_ones() -> None:
    waits = [jittered(4.0) for _ in range(200)]
    assert all(3.0 <= wait <= 5.0 for wait in waits)
    assert max(waits) - min(waits) > 1.0
