"""Whether a task's history is the one that a receipt names.

The history is what `jitvault status TASK --json` shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from jitvault.documents.published_parts import Ended
from jitvault.documents.receipt import Receipt
from jitvault.errors import InvalidInput
from jitvault.formats.canonical_json import digest_of
from jitvault.model.event_chain import GENESIS, link


class _Event(Struct):
    seq: int
    at: str
    event: str
    body: dict[str, Any]


class _Revision(Struct):
    content: dict[str, Any]


class History(Struct):
    """The parts of `status --json` that a receipt covers."""

    task_id: str
    revision: _Revision
    timeline: list[_Event]


def read_history(data: bytes) -> History:
    """Return the history in the output of `jitvault status TASK --json`.

    Raises InvalidInput.
    """
    try:
        return msgspec.json.decode(data, type=History)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(
            f"this is no output of `jitvault status TASK --json` with a timeline: {str(error)[:200]}",
            hint="Run it where the ledger is: without one there is no timeline.",
        ) from None


def history_problems(receipt: Receipt, history: History) -> Iterator[str]:
    """Yield where the history is not the receipt's.

    Each event's hash covers the one before it.
    """
    if history.task_id != receipt.task:
        yield f"the history is about task {history.task_id!r:.80}, the receipt about {receipt.task!r:.80}"
        return
    covered = history.timeline[: receipt.chain.events]
    if [event.seq for event in covered] != list(range(1, receipt.chain.events + 1)):
        yield f"the history lacks some of the {receipt.chain.events} events that the receipt covers"
        return
    if _head(receipt.task, covered) != receipt.chain.head:
        yield f"the hash chain of the {receipt.chain.events} events does not end in the receipt's head: one was changed"
    if _digest(history.revision.content) != receipt.digest:
        yield "the revision is not the one whose digest was approved"
    elif not _agrees(receipt, history.revision.content):
        yield "the receipt names another intent or access than the revision that was approved"
    if receipt.ended is not None and not any(_is_end(event, receipt.ended) for event in covered):
        yield "no event of the history is the end that the receipt names"


def _is_end(event: _Event, ended: Ended) -> bool:
    try:
        return datetime.fromisoformat(event.at) == ended.at and event.body.get("reason", "cancelled") == ended.reason
    except (ValueError, TypeError):
        return False


def _agrees(receipt: Receipt, revision: dict[str, Any]) -> bool:
    """Return whether intent and access are the revision's."""
    try:
        intent = revision["spec"]["spec"]["intent"]
        approved = [(one["template"], one["path"], one["with"]) for one in revision["access"]]
    except (KeyError, TypeError):
        return False
    access = [(one.template, one.path, one.with_) for one in receipt.access]
    return bool(receipt.intent == intent and access == approved)


def _head(task: str, events: Sequence[_Event]) -> str | None:
    """Return the hash of the last event, None for what cannot be an event."""
    head = GENESIS
    try:
        for event in events:
            head = link(task, event.seq, head, event.event, event.at, event.body).hash
    except (TypeError, ValueError, RecursionError):
        return None
    return head


def _digest(content: dict[str, Any]) -> str | None:
    try:
        return digest_of(content)
    except (TypeError, ValueError, RecursionError):
        return None
