"""Which rows of a report are wanted.

They can be limited to an agent, an owner, a template, states and a time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jitvault.errors import InvalidInput, UsageError
from jitvault.formats.strict_yaml import shown
from jitvault.formats.time_window import parse_instant
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.record.history import reached_state_at
from jitvault.lifecycle.record.report import report_rows
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Party, RevisionContent
from jitvault.model.states import OVER, State

_AGO = re.compile(r"(?:(\d{1,5})d)?(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,8})s?)?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_REST_OF_DAY = timedelta(days=1) - timedelta.resolution
_TIME_FORMS = "a time such as 2030-01-31T09:00:00Z, a day such as 2030-01-31 (UTC), or how long ago it was: 7d, 12h"


@dataclass(frozen=True, slots=True)
class ReportFilter:
    """What a report is limited to; None or empty for no limit.

    `agent` and `owner` are a name or an entity id. `since` and `until` bound the time in which a lease was alive, and
    for a task without a lease the time from its request to its end.
    """

    agent: str | None = None
    owner: str | None = None
    template: str | None = None
    states: frozenset[State] = frozenset()
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        return self == ReportFilter()

    def __str__(self) -> str:
        """Return the filter in words, as the options say it."""
        names = {"agent": self.agent, "owner": self.owner, "template": self.template}
        parts = [f"{name} {value}" for name, value in names.items() if value]
        if self.states:
            parts.append(f"state {' or '.join(sorted(self.states))}")
        times = {"since": self.since, "until": self.until}
        parts += [f"{name} {at:%Y-%m-%d %H:%M:%S} UTC" for name, at in times.items() if at]
        return ", ".join(parts)

    def contradiction(self, record: TaskRecord) -> str | None:
        """Return what of the task the filter excludes, None where nothing does."""
        content = Revision.of(record.revision.body).content
        for name, party, wanted in (("agent", content.agent, self.agent), ("owner", content.owner, self.owner)):
            if wanted and not _is_called(party, wanted):
                return f"its {name} is {party.name}"
        if self.template and self.template not in _templates(content):
            return f"its templates are {', '.join(sorted(_templates(content)))}"
        if self.states and record.task.state not in self.states:
            return f"it is {record.task.state}"
        if not any(self._has_row(row, record) for row in report_rows(record)):
            return "nothing of it was alive in that time"
        return None

    def rows(self, record: TaskRecord) -> list[dict[str, Any]]:
        """Return the rows of a task that the filter leaves."""
        if self.is_empty:
            return report_rows(record)
        if self.contradiction(record) is not None:
            return []
        return [row for row in report_rows(record) if self._has_row(row, record)]

    def _has_row(self, row: Mapping[str, Any], record: TaskRecord) -> bool:
        if self.template and row["lease_id"] is not None and row["template"] != self.template:
            return False
        begin, end = _alive(row, record)
        return (self.until is None or begin <= self.until) and (self.since is None or end is None or end >= self.since)


def _alive(row: Mapping[str, Any], record: TaskRecord) -> tuple[datetime, datetime | None]:
    """Return from when to when what a row is about was alive.

    The end is None where it is not over.
    """
    if row["lease_id"] is not None:
        dead_at = row["dead_at"]
        return datetime.fromisoformat(row["issued_at"]), datetime.fromisoformat(dead_at) if dead_at else None
    over_at = reached_state_at(record) if record.task.state in OVER else None
    return record.task.created_at, datetime.fromisoformat(over_at) if over_at else None


def _templates(content: RevisionContent) -> frozenset[str]:
    return frozenset(entry.template for entry in content.access)


def _is_called(party: Party, wanted: str) -> bool:
    return wanted == party.entity or wanted.casefold() == party.name.casefold()


def parse_states(names: list[str]) -> frozenset[State]:
    """Return the states.

    Raises UsageError, which says which there are.
    """
    known = {state.value: state for state in State}
    for name in names:
        if name not in known:
            raise UsageError(f"--state: there is no state {name!a:.40}", hint=f"The states: {', '.join(known)}.")
    return frozenset(known[name] for name in names)


def parse_time(text: str | None, option: str, now: datetime, *, ends_day: bool = False) -> datetime | None:
    """Return the time that an option names.

    The time is absolute, a day, or a duration ago. A day is its first moment, or its last one with `ends_day`. Raises
    UsageError.
    """
    if text is None:
        return None
    if text and (ago := _AGO.fullmatch(text)):
        days, hours, minutes, seconds = (int(part or 0) for part in ago.groups())
        return _earlier(now, timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds), text, option)
    try:
        if _DAY.fullmatch(text):
            return parse_instant(f"{text}T00:00:00Z") + (_REST_OF_DAY if ends_day else timedelta())
        return parse_instant(text)
    except InvalidInput:
        raise UsageError(f"{option}: got {shown(text)}", hint=f"Write {_TIME_FORMS}.") from None


def _earlier(now: datetime, ago: timedelta, text: str, option: str) -> datetime:
    try:
        return (now - ago).astimezone(UTC)
    except OverflowError:
        raise UsageError(f"{option}: {text} ago is before all time", hint=f"Write {_TIME_FORMS}.") from None
