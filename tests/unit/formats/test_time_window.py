from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.errors import InvalidInput
from jitvault.formats.time_window import (
    MAX_DURATION,
    Window,
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
    parse_seconds,
    server_duration,
    spell_duration,
)

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECONDS = st.integers(1, int(MAX_DURATION.total_seconds())).map(lambda count: timedelta(seconds=count))
INSTANTS = st.datetimes(datetime(2001, 1, 1), datetime(2998, 1, 1)).map(  # noqa: DTZ001
    lambda instant: instant.replace(microsecond=0, tzinfo=UTC)
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15m", 900),
        ("1h30m", 5400),
        ("900s", 900),
        ("1d", 86400),
        ("30d", 2592000),
        ("1h0m0s", 3600),
        ("1d2h3m4s", 93784),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("30", 30.0), ("0.5", 0.5), ("30s", 30.0), ("10m", 600.0), ("1h30m", 5400.0), ("40d", 3456000.0)],
)
def test_an_option_takes_seconds_and_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5x", "1m30", "-3", "30 s", "1e3", "inf", "nan", "0x10", "\uff11\uff10"])
def test_what_an_option_does_not_take_is_answered_with_the_forms(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected seconds such as 30, or a duration such as 30s, 10m, 1h30m or 7d"):
        parse_seconds(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "0",
            "0s",
            "0h0m",
            "-5m",
            "+5m",
            "15",
            "m",
            "500ms",
            "0.5s",
            "1.5h",
            "1.5s",
            "1e3s",
            "1mm",
            "1y",
        ),
        *(
            "1w",
            "5ns",
            "5us",
            "5µs",
            "15 m",
            " 15m",
            "15m ",
            "15m\n",
            "1h zz 30m",
            "30m1h",
            "1h1h",
            "1h, 30m",
            "15M",
        ),
        *(
            "31d",
            "2592001s",
            "9999999d",
            "99999999999999s",
            "nan",
            "inf",
            "infs",
            "\u0661\u0665m",
            "15m" * 500,
            "\x1b[31m",
        ),
    ],
)
def test_refused_durations(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected") as caught:
        parse_duration(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@given(SECONDS)
def test_a_formatted_duration_reads_back(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="0123456789smhd.+-e y", max_size=12) | st.text(max_size=12))
def test_any_text_is_a_duration_in_bounds_or_refused(text: str) -> None:
    try:
        duration = parse_duration(text)
    except InvalidInput:
        return
    assert timedelta(0) < duration <= MAX_DURATION
    assert duration.microseconds == 0


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        *(("72h", 259_200), ("12h0m0s", 43_200), ("1h30m", 5_400), ("2d", 172_800), ("1.5h", 5_400), ("500ms", 0.5)),
        *(("900", 900), (900, 900), ("0", 0), ("0s", 0)),
    ],
)
def test_a_duration_as_the_server_writes_it(said: object, seconds: float) -> None:
    assert server_duration(said) == timedelta(seconds=seconds)


@pytest.mark.parametrize("said", ["", "soon", "-5m", "5m!", "m", "1h 5m", None, True, ["5m"], "9" * 10], ids=repr)
def test_what_is_no_duration_of_the_server_has_no_length(said: object) -> None:
    assert server_duration(said) is None


@given(st.timedeltas(timedelta(0), timedelta(days=400)))
def test_what_is_printed_is_what_the_server_reads(duration: timedelta) -> None:
    whole = timedelta(seconds=duration // timedelta(seconds=1))
    assert server_duration(format_duration(whole)) == whole


@pytest.mark.parametrize(
    ("seconds", "words", "more"),
    [
        (0, "0 seconds", "0 more seconds"),
        (1, "1 second", "1 more second"),
        (900, "15 minutes", "15 more minutes"),
        (5400, "1 hour 30 minutes", "1 more hour 30 minutes"),
        (180_001, "2 days 2 hours 1 second", "2 more days 2 hours 1 second"),
    ],
)
def test_a_duration_in_words(seconds: int, words: str, more: str) -> None:
    duration = timedelta(seconds=seconds)
    assert (spell_duration(duration), spell_duration(duration, more=True)) == (words, more)


def test_format_duration() -> None:
    found = [format_duration(timedelta(seconds=seconds)) for seconds in (0, 59, 900, 5400, 86400, 93784)]
    assert found == ["0s", "59s", "15m", "1h30m", "1d", "1d2h3m4s"]
    for wrong in (timedelta(seconds=-60), timedelta(milliseconds=500)):
        with pytest.raises(ValueError, match="whole seconds"):
            format_duration(wrong)


@pytest.mark.parametrize("text", ["2030-01-31T09:00:00Z", "2030-01-31T09:00:00+00:00", "2030-01-31T10:30:00+01:30"])
def test_instants_come_out_in_utc(text: str) -> None:
    found = parse_instant(text)
    assert found == NOW
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        *(
            "2030-01-31T09:00:00",
            "2030-01-31",
            "2030-01-31T09:00Z",
            "2030-01-31 09:00:00Z",
            "2030-01-31T09:00:00z",
        ),
        *(
            "2030-01-31T09:00:00.5Z",
            "2030-01-31T09:00:00.000Z",
            "2030-01-31T09:00:60Z",
            "2030-02-30T09:00:00Z",
        ),
        *(
            "2030-01-31T24:00:00Z",
            "2030-01-31T09:00:00+25:00",
            "2030-01-31T09:00:00+0100",
            "20300131T090000Z",
        ),
        *(
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59-14:00",
            "1999-12-31T23:59:59Z",
            "3000-01-01T00:00:00Z",
        ),
        *("2030-01-31T09:00:00Z\n", "\u0662\u0660\u0663\u0660-01-31T09:00:00Z", "now", ""),
    ],
)
def test_refused_instants(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected a date and time with Z or an offset"):
        parse_instant(text)


@given(INSTANTS, st.integers(-14 * 60, 14 * 60))
def test_a_formatted_instant_reads_back(instant: datetime, minutes: int) -> None:
    elsewhere = instant.astimezone(timezone(timedelta(minutes=minutes)))
    assert parse_instant(format_instant(elsewhere)) == instant
    assert parse_instant(elsewhere.isoformat()) == instant


def test_a_naive_instant_is_not_formatted() -> None:
    with pytest.raises(ValueError, match="time zone"):
        format_instant(datetime(2030, 1, 31))  # noqa: DTZ001


def test_a_window_has_exactly_one_end_and_aware_instants() -> None:
    with pytest.raises(InvalidInput, match="exactly one"):
        Window()
    with pytest.raises(InvalidInput, match="exactly one"):
        Window(for_=HOUR, until=NOW)
    with pytest.raises(InvalidInput, match="time zone"):
        Window(until=datetime(2030, 1, 31))  # noqa: DTZ001
    with pytest.raises(InvalidInput, match="time zone"):
        Window(for_=HOUR, not_before=datetime(2030, 1, 31))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("window", "problem"),
    [
        (Window(for_=timedelta(0)), "window.for: expected more than zero"),
        (Window(for_=timedelta(minutes=-5)), "window.for: expected more than zero"),
        (Window(for_=timedelta(milliseconds=500)), "window.for: expected whole seconds"),
        (Window(for_=HOUR + timedelta(seconds=1)), "window.for: expected a window of at most 1h"),
        (Window(until=NOW), "window.until: expected a time to come, 2030-01-31T09:00:00Z is past"),
        (Window(until=NOW - HOUR), "window.until: expected a time to come"),
        (Window(until=NOW + timedelta(seconds=0.5)), "window.until: expected whole seconds"),
        (
            Window(for_=HOUR, not_before=NOW.replace(microsecond=5)),
            "window.not_before: expected whole seconds",
        ),
        (Window(until=NOW + timedelta(seconds=3601)), "window.until: expected a window of at most 1h"),
        (Window(until=NOW + HOUR, not_before=NOW + HOUR), "window.until: expected a time after not_before"),
        (
            Window(until=NOW + 3 * HOUR, not_before=NOW + HOUR),
            "window.until: expected a window of at most 1h",
        ),
    ],
)
def test_problems(window: Window, problem: str) -> None:
    found = window.problems(NOW, HOUR)
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    "window",
    [
        Window(for_=HOUR),
        Window(for_=timedelta(seconds=1)),
        Window(until=NOW + timedelta(seconds=1)),
        Window(until=NOW + HOUR),
        Window(until=NOW + 3 * HOUR, not_before=NOW + 2 * HOUR),
        Window(until=NOW + HOUR, not_before=NOW - 5 * HOUR),
        Window(for_=HOUR, not_before=NOW + 90 * 24 * HOUR),
    ],
)
def test_windows_without_problems(window: Window) -> None:
    assert window.problems(NOW, HOUR) == []


def test_a_window_opens_and_closes() -> None:
    window = Window(until=NOW + HOUR, not_before=NOW)
    assert not window.opens(NOW - timedelta(seconds=1))
    assert window.opens(NOW)
    assert window.closes_at(NOW) == NOW + HOUR
    counted = Window(for_=HOUR)
    assert counted.opens(NOW)
    assert counted.closes_at(NOW + HOUR) == NOW + 2 * HOUR


@given(INSTANTS, SECONDS, SECONDS)
def test_a_window_without_problems_closes_in_time(now: datetime, length: timedelta, limit: timedelta) -> None:
    for window in (
        Window(for_=length),
        Window(until=now + length),
        Window(until=now + length, not_before=now),
    ):
        fits = not window.problems(now, limit)
        assert fits == (length <= limit)
        assert window.closes_at(now) == now + length
