"""Laws of the time that is gone by, whatever the clocks show."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jitvault.formats.clocks import TOLERANCE, Offset, agreed, lasted
from jitvault.model.ttl import is_due

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PARTS = st.floats(0, 20)
OFFS = st.timedeltas(timedelta(hours=-20), timedelta(hours=20))


def answered(at: float, before: float, after: float) -> Offset:
    """An answer that Vault dated at `at` of the monotonic clock, which shows Vault's seconds since NOW here."""
    second = NOW + timedelta(seconds=math.floor(at))
    return Offset.heard(second, at - before, at + after)


@given(st.lists(st.tuples(st.floats(0, 1000), PARTS, PARTS), min_size=1), OFFS)
def test_however_slow_its_answers_are_vaults_time_is_within_what_they_say(
    answers: list[tuple[float, float, float]], off: timedelta
) -> None:
    vault = answered(*answers[0])
    for answer in answers[1:]:
        vault = vault.narrowed(answered(*answer))
    true = (NOW - EPOCH).total_seconds()
    assert vault.least <= true + 1e-6
    assert true <= vault.most + 1e-6
    # a clock that is right is believed, and one that is wrong by more than answers took is not
    assert agreed(NOW, 0.0, vault) == NOW
    seen = vault.behind(NOW + off, 0.0)
    assert abs(seen) <= abs(off) + timedelta(milliseconds=1)
    assert abs(seen) >= abs(off) - timedelta(seconds=vault.most - vault.least, milliseconds=1)
    if abs(seen) > TOLERANCE:
        assert abs(agreed(NOW + off, 0.0, vault) - NOW) <= timedelta(seconds=vault.most - vault.least, milliseconds=1)
    else:
        assert agreed(NOW + off, 0.0, vault) == NOW + off


@given(OFFS.filter(lambda off: abs(off) > timedelta(minutes=1)))
def test_where_vaults_clock_was_set_the_newest_answer_counts(by: timedelta) -> None:
    before = answered(10, 0.1, 0.1)
    after = Offset.heard(NOW + timedelta(seconds=20) + by, 19.9, 20.1)
    assert before.narrowed(after) == after


def test_as_long_as_vault_said_nothing_a_host_goes_by_its_own_clock() -> None:
    assert agreed(NOW, 5.0, None) == NOW


@given(OFFS, st.lists(st.timedeltas(timedelta(0), timedelta(hours=1)), max_size=5))
def test_a_duration_is_said_only_where_the_times_are_in_order(took: timedelta, noted: list[timedelta]) -> None:
    times = [NOW + part for part in sorted(noted) if part <= took]
    said = lasted(NOW, NOW + took, times)
    assert said == (None if took < -SECOND else max(timedelta(0), took))
    # somebody whose clock was ahead wrote something in between
    assert lasted(NOW, NOW + took, [*times, NOW + max(took, timedelta(0)) + 2 * SECOND]) is None
    assert lasted(None, NOW, times) is None


@given(OFFS, st.timedeltas(SECOND, timedelta(hours=1)))
def test_what_is_put_off_for_longer_than_anything_is_is_due(off: timedelta, longest: timedelta) -> None:
    assert is_due(NOW + off, NOW, longest) == (not timedelta(0) < off <= longest)
    assert is_due(NOW + off, NOW, None) == (off <= timedelta(0))
    assert not is_due(None, NOW, longest)
