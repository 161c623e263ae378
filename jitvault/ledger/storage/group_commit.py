"""Group commit: one commit for the concurrent writes of a process.

A commit waits for the disk, and SQLite has one writer at a time: a thread that comes during a commit would poll for the
lock, in growing steps. Here the first thread becomes the leader and writes for all that queue behind it. Each unit
still succeeds or fails by itself, and no thread is told of success before the commit.
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

_LARGEST_GROUP = 64


class GroupCommit:
    """The only way to write to one database; shared by threads."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._waiting: deque[_Turn] = deque()
        self._writing = False
        # guards the two above, and is notified when a write ends
        self._over = threading.Condition()

    def write(self, unit: Callable[[Connection], T]) -> T:
        """Run `unit` in a transaction, perhaps with others; return its result.

        Returns once the result is durable. Raises what `unit` raises, and SQLAlchemyError. A unit may be run more than
        once, each time from its reads.
        """
        turn = _Turn(unit)
        if turns := self._group_led_by(turn):
            try:
                self._lead(turns)
            finally:
                with self._over:
                    self._writing = False
                    # all waiting threads: units that failed together are tried again together
                    self._over.notify_all()
        result: T = turn.outcome()
        return result

    def _group_led_by(self, own: _Turn) -> list[_Turn]:
        """Wait for `own` to be written; return the group to lead otherwise.

        Empty where another thread has written `own`. Where no thread is writing, this one becomes the leader of the
        returned group, whose first turn is `own`.
        """
        with self._over:
            self._waiting.append(own)
            try:
                self._over.wait_for(lambda: own.done or not self._writing)
            finally:
                # A leader removes the turns that it writes. An interrupted thread removes its own turn.
                if own in self._waiting:
                    self._waiting.remove(own)
            if own.done:
                return []
            self._writing = True
            others = min(len(self._waiting), _LARGEST_GROUP - 1)
            return [own, *(self._waiting.popleft() for _ in range(others))]

    def _lead(self, turns: list[_Turn]) -> None:
        """Write the group together; where that fails, each turn alone."""
        if len(turns) > 1 and self._together(turns):
            return
        for turn in turns:
            self._alone(turn)

    def _together(self, turns: list[_Turn]) -> bool:
        """Write all turns in one transaction; return whether they are done.

        An error of one of them undoes the others, too, and then none is done.
        """
        begun = False
        try:
            with self._transaction() as connection:
                begun = True
                for turn in turns:
                    turn.run(connection)
        except Exception as error:  # noqa: BLE001 - running each alone shows whose error it is
            if begun:
                return False
            # the lock was waited for once, and is not waited for again by each turn
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
    """One unit of one thread, and its result or error."""

    def __init__(self, unit: Callable[[Connection], Any]) -> None:
        self._unit = unit
        self._value: Any = None
        self.error: Exception | None = None
        self.done = False

    def run(self, connection: Connection) -> None:
        self.error = None
        self._value = self._unit(connection)

    def outcome(self) -> Any:
        """Return the unit's result. Raises its error."""
        if self.error is not None:
            raise self.error
        return self._value
