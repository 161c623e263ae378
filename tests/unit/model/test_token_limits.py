"""What a token says of its limits is what its revision says, and reads well."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.model.token_limits import TokenLimits, reads_left_in_words


@given(st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1))
def test_what_is_written_is_read(reads: int, denied: int) -> None:
    limits = TokenLimits(reads, denied)
    assert TokenLimits.of_word(limits.as_word()) == limits


@pytest.mark.parametrize("word", ["", "reads=3", "reads=3 denied=", "reads=-1 denied=1", "reads=3 denied=1 ", "3 1"])
def test_what_no_worker_wrote_says_nothing(word: str) -> None:
    assert TokenLimits.of_word(word) is None


def test_limits_are_one_sentence() -> None:
    assert TokenLimits(3, 1).in_words() == (
        "3 reads, one more ends the task; renewed for you, do not renew; one denied request ends the task"
    )
    assert TokenLimits(1, 4).in_words() == (
        "1 read, one more ends the task; renewed for you, do not renew; 4 denied requests end the task"
    )


def test_the_last_read_says_that_it_was_the_last() -> None:
    assert reads_left_in_words(0, 3) == "0 of 3 done"
    assert reads_left_in_words(2, 3) == "2 of 3 done"
    last = "3 of 3 done: that was the last one, and another one ends the task"
    assert reads_left_in_words(3, 3) == last
