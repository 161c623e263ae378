"""What one commit of the ledger costs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.measure import Figure, alternate, milliseconds, ratio
from jitvault.context import new_id
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, OperationRow, OpState, TaskRow
from jitvault.ledger.storage.database import opened
from jitvault.model.event_chain import GENESIS
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.states import State

TIMES = 300

_TASK = TaskRow(
    task_id="bench",
    state=State.APPROVED,
    end_reason=None,
    revision=1,
    digest="sha256:" + "0" * 64,
    requester="nobody",
    agent="nobody",
    version=0,
    seq=0,
    head=GENESIS,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    due_at=None,
    ends_at=None,
    ending_at=None,
    dead_ms=None,
    confirmed_ms=None,
    receipt=None,
)


def run(directory: Path) -> list[Figure]:
    """One `apply` with an operation, as an act's intent is, against one bare sqlite3 transaction.

    Bare is BEGIN IMMEDIATE, one INSERT of an event's size, COMMIT, with WAL and synchronous=FULL, in a file of
    the same directory. `apply` writes the operation, the event and the task, and reads the task twice.
    """
    ledger = Ledger(opened(f"sqlite:///{directory / 'commit.db'}", create=True))
    ledger.create(_TASK, Change(EventKind.SUBMITTED), at=_TASK.created_at)
    with ledger.claim(_TASK.task_id) as claim:
        own, reference = alternate(TIMES, lambda: _apply_ms(ledger, claim), _bare(directory / "bare.db"))
    said = f"a bare sqlite3 commit in the same directory, {TIMES} pairs"
    return [
        Figure("ledger_commit_ms", median(own), "ms", said),
        Figure("bare_commit_ms", median(reference), "ms", "itself"),
        Figure("ledger_commit_ratio", ratio(own, reference), "ratio", said),
    ]


def _apply_ms(ledger: Ledger, claim: int) -> float:
    now = datetime.now(UTC)
    op = OperationRow(new_id(), _TASK.task_id, OperationKind.SIGN, "nothing", OpState.SETTLED, None, now, None)
    change = Change(EventKind.QUEUED, rows=(op,))
    return milliseconds(lambda: ledger.apply(_TASK.task_id, change, claim=claim, at=now))


def _bare(path: Path) -> Callable[[], float]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, hash TEXT, body TEXT)")

    def commit() -> None:
        body = json.dumps({"op": new_id(), "subject": "nothing", "state": "approved"})
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO events (hash, body) VALUES (?, ?)", (new_id() * 2, body))
        connection.execute("COMMIT")

    return lambda: milliseconds(commit)
