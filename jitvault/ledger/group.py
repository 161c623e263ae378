"""Group commit: what the threads of a process write at one moment is made durable by one commit.

A commit waits for the disk, and SQLite has one writer at a time: who comes while another commits would wait, blindly
and in growing steps. Here the first to come writes for all that wait behind it. Each of them still succeeds or fails
by itself, and none is told of success before the commit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

T = TypeVar("T")
Transaction = Callable[[], AbstractContextManager[Connection]]
"""Opens a connection in a transaction that holds the write lock, and commits it in the end."""

_AT_ONCE = 64


class GroupCommit:
    """The only way to write to one database. Shared by threads."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._waiting: deque[_Turn] = deque()
        self._writing = threading.Lock()

    def write(self, unit: Callable[[Connection], T]) -> T:
        """Run `unit` in a transaction, perhaps with others'; gives its result once it is durable.

        Raises what `unit` raises, and SQLAlchemyError. A unit may be run more than once, each time from its reads.
        """
        turn = _Turn(unit)
        self._waiting.append(turn)
        with self._writing:
            if not turn.done:
                self._lead(turn)
        result: T = turn.outcome()
        return result

    def _lead(self, own: _Turn) -> None:
        turns = [own]
        while self._waiting and len(turns) < _AT_ONCE:
            turn = self._waiting.popleft()
            # one that led from far behind still stands here when it is done
            if turn is not own and not turn.done:
                turns.append(turn)
        if len(turns) > 1 and self._together(turns):
            return
        for turn in turns:
            self._alone(turn)

    def _together(self, turns: list[_Turn]) -> bool:
        """Whether one transaction was good for all. What the database refuses to one can have undone the others."""
        try:
            with self._transaction() as connection:
                for turn in turns:
                    turn.run_within(connection)
        except SQLAlchemyError:
            return False
        for turn in turns:
            turn.done = True
        return True

    def _alone(self, turn: _Turn) -> None:
        try:
            with self._transaction() as connection:
                turn.run(connection)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread whose unit it is
            turn.error = error
        turn.done = True


class _Turn:
    """One unit, and how it came out."""

    def __init__(self, unit: Callable[[Connection], Any]) -> None:
        self._unit = unit
        self._value: Any = None
        self.error: Exception | None = None
        self.done = False

    def run(self, connection: Connection) -> None:
        self.error = None
        self._value = self._unit(connection)

    def run_within(self, connection: Connection) -> None:
        """Run it in a savepoint: its own refusal undoes nothing of the others'. Raises SQLAlchemyError."""
        savepoint = connection.begin_nested()
        try:
            self.run(connection)
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self.error = error
            savepoint.rollback()
        else:
            savepoint.commit()

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self._value
