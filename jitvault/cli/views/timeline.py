"""Timeline of a task in few lines.

Repeated tries are one line, with how often and until when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jitvault.formats.plural import counted
from jitvault.model import event_bodies as bodies
from jitvault.model.kinds import EventKind
from jitvault.model.states import EndReason

# what every try of an end and every few renewals write; any other event begins a new group of them
_LOOKED = {EventKind.JUDGED, EventKind.OBSERVED, EventKind.LISTING_INTENDED, EventKind.LISTED}
_TRIED = frozenset(
    {
        EventKind.REVOKE_INTENDED,
        EventKind.REVOKED,
        EventKind.QUEUE_INTENDED,
        EventKind.QUEUED,
        EventKind.RENEW_INTENDED,
        *_LOOKED,
    }
)


@dataclass
class Line:
    """An event that happened `count` times from `first` to `last` (RFC 3339)."""

    event: str
    first: str
    last: str
    tries: list[bodies.EventBody] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.tries)


def folded(timeline: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Return the events in their order.

    A later try with the same outcome is counted where it happened first. Raises CorruptRecord.
    """
    lines: list[Line] = []
    tries: dict[tuple[object, ...], Line] = {}
    for event in timeline:
        kind, at = event["event"], event["at"]
        body = bodies.decode(kind, event["body"])
        if kind not in _TRIED:
            tries = {}
        key = (kind, _describe(kind, [body]) if kind in (EventKind.REVOKED, EventKind.LISTED) else "")
        line = tries.get(key)
        if line is None or _is_first_lease(body, line):
            line = Line(kind, at, at)
            lines.append(line)
            if kind in _TRIED:
                tries[key] = line
        line.last = at
        line.tries.append(body)
    return lines


def _is_first_lease(body: bodies.EventBody, line: Line) -> bool:
    """Return whether a lease was observed, and none with the lines that are folded so far.

    A lease would be shown at a time at which it was not there.
    """
    earlier = [one for one in line.tries if isinstance(one, bodies.Observed)]
    return isinstance(body, bodies.Observed) and bool(body.leases) and not any(one.leases for one in earlier)


def rows(
    timeline: Iterable[Mapping[str, Any]], names: Mapping[str, str] | None = None, *, requester: str = ""
) -> list[tuple[str, str]]:
    """Return when and what, for each line of the timeline.

    `names` are those of entities, by id, and `requester` is the name of who signs the task's revisions. `--json` has
    every event.
    """
    found = []
    approved: Collection[str] = ()
    for line in folded(timeline):
        body = line.tries[0]
        words = _describe(line.event, line.tries)
        words += _actors(line.event, body, names or {}, approved, requester)
        approved = body.decision.approved_by if isinstance(body, bodies.Decided) else approved
        if line.count > 1:
            same_day = line.first[:10] == line.last[:10]
            words += f" ({line.count} times, last at {_when(line.last)[11 if same_day else 0 : 19]})"
        found.append((_when(line.first), words))
    return found


def _actors(
    event: str, body: bodies.EventBody, names: Mapping[str, str], approved: Collection[str], requester: str
) -> str:
    """Return who asked, approved, or was given the token.

    `approved` are the entities whose approvals counted at the last decision.
    """
    if isinstance(body, bodies.Delivered):
        to = names.get(body.to)
        return f" to {to}" if to else ""
    if not isinstance(body, bodies.Decided):
        return ""
    asked = [f"{requester} asked"] if requester and event != EventKind.DECIDED else []
    new = [names.get(entity, entity) for entity in body.decision.approved_by if entity not in approved]
    done = [*asked, *([f"{' and '.join(new)} approved"] if new else [])]
    return "".join(f"; {each}" for each in done)


def _when(at: str) -> str:
    return at[:23].rstrip("Z").replace("T", " ")


def _describe(event: str, tries: Sequence[bodies.EventBody]) -> str:
    body = tries[0]
    words = event.replace("_", " ")
    match body:
        case bodies.Observed():
            seen = [one for one in tries if isinstance(one, bodies.Observed)]
            lines = sum(len(one.lines) for one in seen)
            leases = sum(len(one.leases) for one in seen)
            return f"observed {counted(lines, 'audit line')}" + (f", {counted(leases, 'new lease')}" if leases else "")
        case bodies.RenewIntended():
            return "renewed in steps"
        case bodies.HandedOn():
            return f"delegated to {body.to}"
        case bodies.Recovered():
            return f"recovered: {body.state}, from the published event {body.from_.seq} ({body.from_.state})"
        case bodies.Decided():
            why = [f"{one.name} {one.why}" for one in body.decision.refused] + [body.note]
            return f"{words}: {body.state}" + _because("; ".join(filter(None, why)))
        case bodies.EndCause():
            return f"ending: {_end_reason(body)}" + _because(body.note)
        case bodies.Signed():
            done = "closed without proof" if event == EventKind.UNVERIFIED else words
            return done + _by(body) + _because(body.note)
        case bodies.GrantRefused() | bodies.ExtensionCancelled():
            return f"{words.replace('extension', 'more time')}: {body.error.message}"
        case bodies.AboutExtension():
            return _more_time(body)
        case bodies.VerdictsGiven() if event == EventKind.REVOKED:
            return f"revoked: {_outcome(body)}"
        case bodies.Listed():
            suspects = len(body.suspects)
            return f"listed: {body.answer}" + (f", {suspects} of no task" if suspects else "")
        case _:
            return words + _because(body.note)


def _outcome(body: bodies.VerdictsGiven) -> str:
    counts = Counter(body.verdicts.values())
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


def _by(body: bodies.Signed | bodies.EndCause) -> str:
    return f" by {body.name}" if body.name else ""


def _end_reason(body: bodies.EndCause) -> str:
    """Return why a task began to end, and who wanted that."""
    if body.reason is EndReason.FROZEN:
        return f"frozen{_by(body)}"
    by = f", asked for{_by(body)}" if body.name else ""
    # the stored reason `operator` is that of every `revoke`, also of one by the task's agent
    reason = "revoked" if body.reason is EndReason.OPERATOR else body.reason
    return f"{reason}{by}"


def _more_time(body: bodies.AboutExtension) -> str:
    """Return the result of a request for more time, with author and reason."""
    asked = f"asked for by {body.extension.by.name}{_because(body.extension.reason)}"
    if isinstance(body, bodies.Extended):
        by = " and ".join(one.name for one in body.approved_by)
        return f"extended until {body.extension.until:%Y-%m-%d %H:%M:%S}, {asked}{f'; {by} approved' if by else ''}"
    if isinstance(body, bodies.ExtensionRefused):
        return f"more time refused, {asked}: {body.error.message}"
    return f"more time pending, {asked}"


def _because(why: str | None) -> str:
    return f" ({why})" if why else ""
