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

T = TypeVar("T")
Transaction = Callable[[], AbstractContextManager[Connection]]
"""Opens a connection in a transaction that holds the write lock, and commits it in the end."""

_AT_ONCE = 64


class GroupCommit:
    """The only way to write to one database. Shared by threads."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._waiting: deque[_Turn] = deque()
        self._writing = False
        # guards both, and is told when a write is over
        self._over = threading.Condition()

    def write(self, unit: Callable[[Connection], T]) -> T:
        """Run `unit` in a transaction, perhaps with others'; gives its result once it is durable.

        Raises what `unit` raises, and SQLAlchemyError. A unit may be run more than once, each time from its reads.
        """
        turn = _Turn(unit)
        if turns := self._led_by(turn):
            try:
                self._lead(turns)
            finally:
                with self._over:
                    self._writing = False
                    # all at once: whoever failed with others tries again with them
                    self._over.notify_all()
        result: T = turn.outcome()
        return result

    def _led_by(self, own: _Turn) -> list[_Turn]:
        """Wait until another has written `own`, or nobody writes: then those that it writes, itself the first."""
        with self._over:
            self._waiting.append(own)
            try:
                self._over.wait_for(lambda: own.done or not self._writing)
            finally:
                # one that is led is taken by its leader, and one that was interrupted is not written later
                if own in self._waiting:
                    self._waiting.remove(own)
            if own.done:
                return []
            self._writing = True
            others = min(len(self._waiting), _AT_ONCE - 1)
            return [own, *(self._waiting.popleft() for _ in range(others))]

    def _lead(self, turns: list[_Turn]) -> None:
        if len(turns) > 1 and self._together(turns):
            return
        for turn in turns:
            self._alone(turn)

    def _together(self, turns: list[_Turn]) -> bool:
        """Whether one transaction was good for all. What one of them fails with undoes the others, too."""
        begun = False
        try:
            with self._transaction() as connection:
                begun = True
                for turn in turns:
                    turn.run(connection)
        except Exception as error:  # noqa: BLE001 - whose it is shows when each is run alone
            if begun:
                return False
            # whoever holds it is waited for once, and not by each in its turn
            for turn in turns:
                turn.error = error
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

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self._value
