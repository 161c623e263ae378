"""Whose turn a task is: one process at a time changes it, and several workers share what there is to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from enum import Enum, auto
from typing import Protocol


class Turn(Enum):
    """Whose turn a task is: ours now, another's at this moment, or nobody's, since another has had it."""

    OURS = auto()
    ANOTHERS = auto()
    OVER = auto()


class Turns(Protocol):
    """Raises LedgerUnavailable when the database is missing, locked for too long, full or of another version."""

    def claim(self, task_id: str, *, partly: bool = False) -> AbstractContextManager[int]:
        """The exclusive right to change a task for 30 s; gives the claim's epoch. Waits for another's claim.

        Others take it that everything was done that was wanted until it was taken, unless it ends in an error or was
        meant `partly`.
        """
        ...

    def leave_rest(self, task_id: str) -> None:
        """Say of a task whose claim is held here that not everything will be done under it, as with `partly`."""
        ...

    def extend(self, task_id: str, claim: int) -> None:
        """Hold the claim for another 30 s. Raises WrongState when it was lost."""
        ...

    def take(self, task_id: str, *, since: int | None = None) -> Turn:
        """Claim a task without waiting; `claim` goes on with it. One that the ledger does not know is everybody's.

        `since` is the newest claim of the task when it became known what is wanted of it: where a later one has done
        everything, that is done.
        """
        ...

    def take_due(
        self, now: datetime, limit: int, *, besides: Collection[str] = (), only_held: bool = False
    ) -> list[str]:
        """Claim up to `limit` of the tasks whose time has come and that nobody works on, and none of `besides`: a
        renewal or a heartbeat is due, a window is over, a revocation is to be tried again, a task can be sealed. Those
        that hold access come first; `only_held`: no others.

        No two workers get the same one, and none waits for another. `claim` goes on with what was taken here; what is
        not looked after is given back. Whatever is left lying is free for others after 30 s.
        """
        ...

    def due_after(self, at: datetime) -> list[str]:
        """The tasks that may hold access or are not sealed yet, and that nobody looks at before `at`."""
        ...

    def give_back(self, task_id: str) -> None:
        """Let others have at once what was taken and `claim` was not asked for."""
        ...

    def give_all_back(self) -> None:
        """The same for everything that was taken: this process ends."""
        ...

    def newest_claims(self, task_ids: Collection[str]) -> Mapping[str, int]:
        """Of those tasks that the ledger knows the epoch of the newest claim, for `take`."""
        ...
