"""What a task's chain says of itself is told even where its events cannot be read."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from event_examples import example

from jitvault.context import WorkerContext
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.record.integrity import problems_of
from jitvault.model.event_chain import GENESIS, link


def test_an_event_that_was_changed_into_one_that_no_worker_writes_is_told_as_both() -> None:
    event = link("t-1", 1, GENESIS, "noted", "2030-01-31T09:00:00Z", example("noted", state="ending"))
    edited = replace(event, body={**event.body, "rows": "none"})
    file = SimpleNamespace(events=(edited,), task=SimpleNamespace(head=event.hash), revision=None)
    changed, unread = problems_of(cast(WorkerContext, None), cast(TaskRecord, file))
    assert changed == "event 1 was changed after it was written"
    assert unread.startswith("its rows cannot be read: ") and "$.rows" in unread
