"""Who ended a task and since when an approval counts, as the task's chain has it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from event_examples import example

from jitvault.formats.canonical_json import canonical_bytes
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.model import DecisionRow, TaskRecord
from jitvault.lifecycle.record.history import counted_at, ended_of
from jitvault.model.event_chain import Event

RECORDED = Path(__file__).parents[2] / "verification" / "recorded" / "read-orders-status.json"
CONTENT = json.loads(RECORDED.read_text())["revision"]["content"]
AGENT, OPERATOR = (CONTENT[part]["entity"] for part in ("agent", "requester"))


def chain(*events: tuple[str, dict[str, Any]]) -> TaskRecord:
    """A task whose n-th event was n seconds after noon."""
    found = tuple(
        Event("t", seq, "", "", kind, f"2026-11-29T12:00:{seq:02}Z", example(kind, **body))
        for seq, (kind, body) in enumerate(events, 1)
    )
    return cast(TaskRecord, SimpleNamespace(events=found, revision=SimpleNamespace(body=canonical_bytes(CONTENT))))


def noted(by: str, note: str) -> tuple[str, dict[str, Any]]:
    return "noted", {"by": by, "name": "somebody", "note": note}


@pytest.mark.parametrize(
    ("ending", "then", "says"),
    [
        # the line of the token that revoked itself was read first
        ({"reason": "completed"}, [noted(AGENT, "exec was killed")], (AGENT, "exec was killed")),
        ({"reason": "completed"}, [noted(OPERATOR, "look at it")], (None, "")),
        ({"reason": "completed"}, [], (None, "")),
        ({"reason": "completed", "by": AGENT, "note": "done"}, [noted(AGENT, "and more")], (AGENT, "done")),
        ({"reason": "tripwire", "note": "denied"}, [noted(AGENT, "exec was killed")], (None, "denied")),
    ],
)
def test_a_task_that_was_given_back_ended_as_its_agent_signed(
    ending: dict[str, Any], then: list[tuple[str, dict[str, Any]]], says: tuple[str | None, str]
) -> None:
    ended = ended_of(chain(("unwrapped", {}), ("ending", ending), *then))
    assert ended is not None and (ended.by, ended.note) == says
    assert (rfc3339(ended.at), ended.reason) == ("2026-11-29T12:00:02Z", ending["reason"])


def test_an_approval_is_as_old_as_it_counts_without_a_break() -> None:
    def decided(*approved: str, kind: str = "decided", denied: str | None = None) -> tuple[str, dict[str, Any]]:
        return kind, {"decided": {"approved_by": list(approved), "denied_by": denied}}

    def since(entity: str, *events: tuple[str, dict[str, Any]]) -> str | None:
        at = counted_at(chain(*events), cast(DecisionRow, SimpleNamespace(entity_id=entity)))
        return at and at[17:19]

    first, both = decided("a", kind="submitted"), decided("a", "b")
    assert (since("a", first, both, ("judged", {})), since("b", first, both)) == ("01", "02")
    assert since("a", first, decided(), both) == "03" and since("a", first, decided()) is None
    assert since("a", first, decided("a", kind="revised"), both) == "02", "the new revision was decided about then"
    assert since("c", decided(denied="c")) == "01" and since("d", first) is None
