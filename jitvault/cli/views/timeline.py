"""Timeline of a task in few lines.

Repeated tries are one line, with how often and until when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jitvault.formats.plural import counted
from jitvault.model.kinds import EventKind
from jitvault.model.states import EndReason

# what every try of an end and every renewal writes; any other event begins a new group of them
_RENEWED = {EventKind.RENEW_INTENDED, EventKind.RENEWED, EventKind.KEPT}
_LOOKED = {EventKind.JUDGED, EventKind.OBSERVED, EventKind.LISTING_INTENDED, EventKind.LISTED}
_TRIED = frozenset(
    {EventKind.REVOKE_INTENDED, EventKind.REVOKED, EventKind.QUEUE_INTENDED, EventKind.QUEUED, *_LOOKED, *_RENEWED}
)


# the stored kind `kept` says little
_LOOKED_LATER = "nothing was due yet; the next look is later"
_DECISIONS = (EventKind.SUBMITTED, EventKind.REVISED, EventKind.DECIDED)


@dataclass
class Line:
    """An event that happened `count` times from `first` to `last` (RFC 3339)."""

    event: str
    first: str
    last: str
    bodies: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.bodies)


def folded(timeline: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Return the events in their order.

    A later try with the same outcome is counted where it happened first.
    """
    lines: list[Line] = []
    tries: dict[tuple[object, ...], Line] = {}
    for event in timeline:
        kind, at, body = event["event"], event["at"], event["body"]
        if kind not in _TRIED:
            tries = {}
        key = (kind, _describe(kind, [body]) if kind in (EventKind.REVOKED, EventKind.LISTED) else "")
        line = tries.get(key)
        if line is None:
            line = Line(kind, at, at)
            lines.append(line)
            if kind in _TRIED:
                tries[key] = line
        line.last = at
        line.bodies.append(body)
    return lines


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
        body = line.bodies[0]
        words = _describe(line.event, line.bodies)
        words += _actors(line.event, body, names or {}, approved, requester)
        approved = body.get("approved_by", approved) if line.event in _DECISIONS else approved
        if line.count > 1:
            same_day = line.first[:10] == line.last[:10]
            words += f" ({line.count} times, last at {_when(line.last)[11 if same_day else 0 : 19]})"
        found.append((_when(line.first), words))
    return found


def _actors(
    event: str, body: Mapping[str, Any], names: Mapping[str, str], approved: Collection[str], requester: str
) -> str:
    """Return who asked, approved, or was given the token.

    `approved` are the entities whose approvals counted at the last decision.
    """
    if event == EventKind.DELIVERED:
        to = names.get(body.get("to", ""))
        return f" to {to}" if to else ""
    if event not in _DECISIONS:
        return ""
    asked = [f"{requester} asked"] if requester and event != EventKind.DECIDED else []
    new = [names.get(entity, entity) for entity in body.get("approved_by", ()) if entity not in approved]
    done = [*asked, *([f"{' and '.join(new)} approved"] if new else [])]
    return "".join(f"; {each}" for each in done)


def _when(at: str) -> str:
    return at[:23].rstrip("Z").replace("T", " ")


def _describe(event: str, bodies: Sequence[Mapping[str, Any]]) -> str:
    body = bodies[0]
    words = _LOOKED_LATER if event == EventKind.KEPT else event.replace("_", " ")
    match event:
        case EventKind.OBSERVED:
            lines, leases = (sum(len(one[part]) for one in bodies) for part in ("lines", "leases"))
            return f"observed {counted(lines, 'audit line')}" + (f", {counted(leases, 'new lease')}" if leases else "")
        case EventKind.HANDED_ON:
            return f"delegated to {body['to']}"
        case EventKind.RECOVERED:
            published = body["from"]
            return f"recovered: {body['state']}, from the published event {published['seq']} ({published['state']})"
        case EventKind.SUBMITTED | EventKind.REVISED | EventKind.DECIDED:
            why = [f"{one['name']} {one['why']}" for one in body.get("refused", ())] + [body.get("why", "")]
            return f"{words}: {body['state']}" + _because("; ".join(filter(None, why)))
        case EventKind.ENDING:
            return f"ending: {_end_reason(body)}" + _because(body.get("note"))
        case EventKind.CANCELLED | EventKind.NOTED | EventKind.UNPROVEN | EventKind.LATE_LEASE | EventKind.SEAL_PUT_OFF:
            return words + _by(body) + _because(body.get("note") or body.get("why"))
        case EventKind.FORCE_INTENDED | EventKind.UNVERIFIED:
            done = "closed without proof" if event == EventKind.UNVERIFIED else words
            return done + _by(body) + _because(body["note"])
        case EventKind.EXTENDED | EventKind.EXTENSION_PENDING | EventKind.EXTENSION_REFUSED:
            return _more_time(event, body)
        case EventKind.GRANT_REFUSED | EventKind.EXTENSION_CANCELLED:
            return f"{words.replace('extension', 'more time')}: {body['error']['message']}"
        case EventKind.REVOKED:
            return f"revoked: {_outcome(body)}"
        case EventKind.LISTED:
            suspects = len(body["suspects"])
            return f"listed: {body['answer']}" + (f", {suspects} of no task" if suspects else "")
        case _:
            return words


def _outcome(body: Mapping[str, Any]) -> str:
    counts = Counter(body["verdicts"].values())
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


def _by(body: Mapping[str, Any]) -> str:
    return f" by {body['name']}" if body.get("name") else ""


def _end_reason(body: Mapping[str, Any]) -> str:
    """Return why a task began to end, and who wanted that."""
    if body["reason"] == EndReason.FROZEN:
        return f"frozen{_by(body)}"
    by = f", asked for{_by(body)}" if _by(body) else ""
    # the stored reason `operator` is that of every `revoke`, also of one by the task's agent
    reason = "revoked" if body["reason"] == EndReason.OPERATOR else body["reason"]
    return f"{reason}{by}"


def _more_time(event: str, body: Mapping[str, Any]) -> str:
    """Return the result of a request for more time, with author and reason."""
    extension = body["extension"]
    asked = f"asked for by {extension['by']['name']}{_because(extension['reason'])}"
    if event == EventKind.EXTENDED:
        by = " and ".join(str(one["name"]) for one in body.get("approved_by", ()))
        return f"extended until {_when(body['ends_at'])[:19]}, {asked}{f'; {by} approved' if by else ''}"
    if event == EventKind.EXTENSION_PENDING:
        return f"more time pending, {asked}"
    return f"more time refused, {asked}: {body['error']['message']}"


def _because(why: str | None) -> str:
    return f" ({why})" if why else ""
