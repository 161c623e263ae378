"""Durations, instants and the window in which a task may hold access.

Everything here is whole seconds: Vault silently takes `500ms` for 0 s, and an instant that is
rounded is not the one that was signed. Nothing here reads a clock; callers pass the time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import durationpy

from jitvault.errors import InvalidInput
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.strict_yaml import shown

MAX_DURATION = timedelta(days=30)
DURATION_PATTERN = r"^([0-9]{1,7}d)?([0-9]{1,7}h)?([0-9]{1,7}m)?([0-9]{1,7}s)?$"
INSTANT_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})$"
DURATION_FORMS = "seconds such as 30, or a duration such as 30s, 10m, 1h30m or 7d"
_SERVER_PART = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|d|h|m|s)"
_SERVER_DURATION = re.compile(rf"(?:{_SERVER_PART})+")
_SERVER_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_WORDS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_SECOND = timedelta(seconds=1)
# Far enough from both ends of datetime that adding a window or an offset never overflows.
_YEARS = range(2000, 3000)


def parse_duration(text: str) -> timedelta:
    """Return the duration that `text` names: more than zero, at most 30 days.

    Days, hours, minutes and seconds (`d h m s`), each at most once and in this order: `15m`, `1h30m`.
    Decimals are refused even if they are whole seconds (`1.5h`): one duration, one way to read it.
    Raises InvalidInput.
    """
    # Checked before durationpy, which skips what is between two parts and reads `mm` as months.
    if not text or not re.fullmatch(DURATION_PATTERN, text):
        raise InvalidInput(f"expected whole days, hours, minutes or seconds such as 15m or 1h30m, got {shown(text)}")
    duration: timedelta = durationpy.from_str(text)
    if not timedelta(0) < duration <= MAX_DURATION:
        raise InvalidInput(f"expected a duration of more than zero and at most 30d, got {shown(text)}")
    return duration


def parse_seconds(text: str) -> float:
    """Return the seconds that an option or a setting names, zero included.

    It is a number of seconds (`30`, `0.5`), or a duration as a spec has it (`30s`, `10m`). Raises InvalidInput, which
    names these forms.
    """
    if re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,3})?", text):
        return float(text)
    if text and re.fullmatch(DURATION_PATTERN, text):
        duration: timedelta = durationpy.from_str(text)
        return duration.total_seconds()
    raise InvalidInput(f"expected {DURATION_FORMS}, got {shown(text)}")


def format_duration(duration: timedelta) -> str:
    """Return the one spelling for digests and messages: `15m`, `1h30m`, `0s`.

    `parse_duration` reads it back. Raises ValueError for a negative duration or a part of a second.
    """
    if duration < timedelta(0) or duration % _SECOND:
        raise ValueError("a duration to print is whole seconds, zero or more")
    left = duration // _SECOND
    parts = ""
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        parts += f"{count}{unit}" if count else ""
    return parts or "0s"


def spell_duration(duration: timedelta, *, more: bool = False) -> str:
    """Return a duration in whole words: `30 minutes`, `1 hour 30 minutes`.

    With `more` it is added to another one: `10 more minutes`. Parts of a second are left out.
    """
    left = duration // _SECOND
    parts = list[str]()
    for word, size in _WORDS:
        count, left = divmod(left, size)
        if count or (size == 1 and not parts):
            added = " more" if more and not parts else ""
            parts.append(f"{count}{added} {word}{'' if count == 1 else 's'}")
    return " ".join(parts)


def server_duration(value: object) -> timedelta | None:
    """Return a duration as Vault writes and takes it, or None.

    `72h`, `1h30m0s`, `900` for seconds. None is for a text that is no duration: nothing is known about its length,
    so callers must not take None for a short one.
    """
    text = str(value).strip() if type(value) in (str, int) else ""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return timedelta(seconds=int(text))
    if not _SERVER_DURATION.fullmatch(text):
        return None
    return timedelta(seconds=sum(float(n) * _SERVER_UNITS[unit] for n, unit in re.findall(_SERVER_PART, text)))


def parse_instant(text: str) -> datetime:
    """Return the instant that `text` names, aware and in UTC.

    The form is RFC 3339 with `Z` or an offset, in whole seconds. Raises InvalidInput, also for a time without
    offset, which is ambiguous.
    """
    expected = "expected a date and time with Z or an offset such as 2030-01-31T09:00:00Z"
    if not re.fullmatch(INSTANT_PATTERN, text):
        raise InvalidInput(f"{expected}, in whole seconds, got {shown(text)}")
    try:
        instant = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{expected}; there is no {shown(text)}") from None
    if instant.year not in _YEARS:
        raise InvalidInput(f"{expected}, in a year from 2000 to 2999, got {shown(text)}")
    return instant


def format_instant(instant: datetime) -> str:
    """Return `2030-01-31T09:00:00Z`; `parse_instant` reads it back.

    Raises ValueError for a naive instant.
    """
    if instant.utcoffset() is None:
        raise ValueError("an instant to print has a time zone")
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Window:
    """When access may be held: a length from the issue, or until a fixed time.

    Exactly one of `for_` and `until` is given. `not_before` is when the issue may begin; without it, at once.
    Instants are aware. Raises InvalidInput if made with both of `for_` and `until`, with neither, or with a naive
    instant.
    """

    for_: timedelta | None = None
    until: datetime | None = None
    not_before: datetime | None = None

    def __post_init__(self) -> None:
        if (self.for_ is None) == (self.until is None):
            raise InvalidInput("expected exactly one of for and until")
        for instant in (self.until, self.not_before):
            if instant is not None and instant.utcoffset() is None:
                raise InvalidInput("expected instants with a time zone")

    def problems(self, now: datetime, max_window: timedelta) -> list[str]:
        """Return what keeps this window from being granted at `now`, in words.

        The list is empty if nothing does. `max_window` is the least that the task's templates allow. A window with
        `until` is measured from when it can open, so it may be too long now and fit later.
        """
        found = [*self._broken_seconds()]
        if self.for_ is not None and self.for_ <= timedelta(0):
            found.append("window.for: expected more than zero")
        if self.until is not None:
            if self.until <= now:
                found.append(f"window.until: expected a time to come, {rfc3339(self.until)} is past")
            if self.not_before is not None and self.until <= self.not_before:
                found.append(f"window.until: expected a time after not_before, {rfc3339(self.not_before)}")
        if self._length(now) > max_window:
            name = "for" if self.until is None else "until"
            limit = format_duration(max_window)
            found.append(f"window.{name}: expected a window of at most {limit}, the templates' max_window")
        return found

    def opens(self, now: datetime) -> bool:
        """Return whether the issue may begin at `now`: `not_before` has come.

        The end of the window does not matter here.
        """
        return self.not_before is None or now >= self.not_before

    def closes_at(self, start: datetime) -> datetime:
        """Return the deadline, in UTC, of access that is issued at `start`."""
        if self.until is not None:
            return self.until.astimezone(UTC)
        return start.astimezone(UTC) + (self.for_ or timedelta(0))

    def _length(self, now: datetime) -> timedelta:
        if self.for_ is not None:
            return self.for_
        start = now if self.not_before is None else max(now, self.not_before)
        return self.closes_at(start) - start

    def _broken_seconds(self) -> list[str]:
        found = []
        if self.for_ is not None and self.for_ % _SECOND:
            found.append("window.for: expected whole seconds")
        for name, instant in (("until", self.until), ("not_before", self.not_before)):
            if instant is not None and instant.microsecond:
                found.append(f"window.{name}: expected whole seconds")
        return found
