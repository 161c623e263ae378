"""Whether something was committed to a database since one looked last.

That is one statement that reads no row, on a connection of its own: much less than any look at what is written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class CommitMark:
    """Reads a mark that every commit changes, whoever commits. Shared by threads.

    `connect` opens a connection on which nothing else is done, and `statement` returns the mark there.
    """

    def __init__(self, connect: Callable[[], Connection], statement: str) -> None:
        self._connect = connect
        self._statement = statement
        self._connection: Connection | None = None
        # SQLite counts for each connection anew
        self._number = 0
        self._lock = Lock()

    def read(self) -> Hashable | None:
        """Return the mark of this moment: as long as it stays the same, nothing was committed.

        None where the database does not say, which is never a mark that stayed the same.
        """
        with self._lock:
            try:
                if self._connection is None:
                    self._number += 1
                    self._connection = self._connect()
                found: Hashable = self._connection.exec_driver_sql(self._statement).scalar_one()
            except (DBAPIError, PoolTimeout):
                # whoever looks now is told what is wrong
                self._drop()
                return None
            return self._number, found

    def close(self) -> None:
        """Close the connection. A later use opens another."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
