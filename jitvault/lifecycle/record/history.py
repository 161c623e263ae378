"""Who ended a task or closed it without proof, who took an approval back, and why: what its chain says of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.requests.end_requests import names_in
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision


def ended_of(file: TaskRecord) -> dict[str, Any] | None:
    """`{by, name, at, reason, note}` of a task that ended or was cancelled, else None.

    `by` (an entity) and `name` are None where no person asked for it; `reason` is its end reason.
    """
    ended = (EventKind.ENDING, EventKind.CANCELLED, EventKind.RECOVERED)
    event = next(
        (e for e in file.events if e.kind in ended and (e.kind != EventKind.RECOVERED or "reason" in e.body)), None
    )
    if event is None:
        return None
    by = event.body.get("by")
    return {
        "by": by,
        "name": _name(file, by) if by else None,
        "at": event.at,
        "reason": event.body.get("reason", "cancelled"),
        "note": event.body.get("note", ""),
    }


def forced_of(file: TaskRecord) -> dict[str, Any] | None:
    """`{by, name, reason}` of who had Vault forget what it could not revoke, or had the task closed without proof."""
    said = [e.body for e in file.events if e.kind in (EventKind.FORCE_INTENDED, EventKind.UNVERIFIED)]
    return {"by": said[-1]["by"], "name": _name(file, said[-1]["by"]), "reason": said[-1]["note"]} if said else None


def uncounted_of(file: TaskRecord) -> Sequence[Mapping[str, Any]]:
    """`{entity, name, why, withdrawn}` of each decision that does not count, by the last look at them."""
    said = [e.body["refused"] for e in file.events if "refused" in e.body]
    return list(said[-1]) if said else []


def withdrawn_by(file: TaskRecord) -> list[str]:
    """The names of those whose approval was taken back at any time."""
    refused = (one for e in file.events for one in e.body.get("refused", ()))
    return list(dict.fromkeys(one["name"] for one in refused if one["withdrawn"]))


def _name(file: TaskRecord, entity: str) -> str:
    """Of an operator the chain keeps the name; of those with a part in the task its revision does."""
    named = {e.body["by"]: e.body["name"] for e in file.events if "name" in e.body and "by" in e.body}
    return str({**names_in(Revision.of(file.revision.body).content), **named}.get(entity, entity))
