"""Whose turn a task is, on a database: claims on tasks, and the due work that several workers share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from operator import contains

from sqlalchemy import Connection, Select, bindparam, select

from jitvault.errors import WrongState
from jitvault.ledger import schema
from jitvault.ledger.claims import DONE, LEFT, Taken, extend, give_back, held, is_free, is_ours, take, taking
from jitvault.ledger.database import Database
from jitvault.ledger.dialect import batches
from jitvault.ledger.model import Turn
from jitvault.model.states import LIVE_STATES, State

_TASK = schema.tasks.c
_CLAIMED = select(_TASK.claim_epoch, _TASK.claim_until, is_free(schema.tasks).label("free")).where(
    _TASK.task_id == bindparam("task_id")
)


class TaskClaims:
    """Claim tasks for one worker at a time; a part of `Ledger`.

    What was taken is known to all threads of the process.
    """

    _db: Database
    _taken: dict[str, Taken]
    _left: set[str]

    @contextmanager
    def claim(self, task_id: str, *, partly: bool = False) -> Iterator[int]:
        """The exclusive right to change a task for 30 s; gives the claim's epoch. Waits for another's claim.

        Others take it that everything was done that was wanted until it was taken, unless it ends in an error or was
        meant `partly`.
        """
        taken = self._taken.pop(task_id, None)
        self._left.discard(task_id)
        if partly:
            self.leave_rest(task_id)
        leaves = partial(contains, self._left, task_id)
        with held(self._db, _TASK.task_id, task_id, f"task {task_id}", taken=taken, leaves_rest=leaves) as epoch:
            yield epoch

    def leave_rest(self, task_id: str) -> None:
        """Say of a task whose claim is held here that not everything will be done under it, as with `partly`."""
        self._left.add(task_id)

    def extend(self, task_id: str, claim: int) -> None:
        """Hold the claim for another 30 s. Raises WrongState when it was lost."""
        if not extend(self._db, _TASK.task_id, task_id, claim):
            raise WrongState(f"another process took over task {task_id}", hint="Run the command again.")

    def take(self, task_id: str, *, since: int | None = None) -> Turn:
        """Claim a task without waiting; `claim` goes on with it. One that the ledger does not know is everybody's.

        `since` is the newest claim of the task when it became known what is wanted of it: where a later one has done
        everything, that is done.
        """
        taken = self._taken.pop(task_id, None)
        if taken is not None and is_ours(self._db, _TASK.task_id, task_id, taken):
            self._taken[task_id] = taken if taken.is_fresh else Taken(taken.epoch)
            return Turn.OURS
        # most turns that are not ours are seen by a read, which costs no commit
        with self._db.read() as connection:
            found = connection.execute(_CLAIMED, {"task_id": task_id}).first()
        if found is None:
            return Turn.OURS
        if since is not None and found.claim_epoch > since and found.claim_until == DONE:
            return Turn.OVER
        epoch = take(self._db, _TASK.task_id, task_id) if found.free else None
        if epoch is None:
            return Turn.ANOTHERS
        self._taken[task_id] = Taken(epoch)
        return Turn.OURS

    def take_due(
        self, now: datetime, limit: int, *, besides: Collection[str] = (), only_held: bool = False
    ) -> list[str]:
        """Claim up to `limit` of the tasks whose time has come and that nobody works on, and none of `besides`: a
        renewal or a heartbeat is due, a window is over, a revocation is to be tried again, a task can be sealed. Those
        that hold access come first; `only_held`: no others.

        No two workers get the same one, and none waits for another. `claim` goes on with what was taken here; what is
        not looked after is given back. Whatever is left lying is free for others after 30 s.
        """
        free = _due(now, only_held=only_held).where(is_free(schema.tasks), _TASK.task_id.not_in(besides))
        # those that another worker takes at this moment are passed by and not waited for
        query = free.limit(limit).with_for_update(key_share=True, skip_locked=True)

        def unit(connection: Connection) -> dict[str, int]:
            found = list(connection.execute(query).scalars())
            take = taking(schema.tasks).where(_TASK.task_id.in_(found)).returning(_TASK.task_id, _TASK.claim_epoch)
            epochs = {row.task_id: row.claim_epoch for row in connection.execute(take)} if found else {}
            return {task_id: epochs[task_id] for task_id in found}

        with self._db.read() as connection:
            # mostly there is none, and nobody who writes is kept from it
            if connection.execute(free.limit(1)).first() is None:
                return []
        taken = {task_id: Taken(epoch) for task_id, epoch in self._db.write(unit).items()}
        self._taken |= taken
        return list(taken)

    def due_after(self, at: datetime) -> list[str]:
        """The tasks that may hold access or are not sealed yet, and that nobody looks at before `at`."""
        states = [state.value for state in LIVE_STATES | {State.ENDING, State.CONFIRMED}]
        query = select(_TASK.task_id).where(schema.IS_OPEN, _TASK.state.in_(states), _TASK.due_at > at)
        with self._db.read() as connection:
            return list(connection.execute(query.order_by(_TASK.task_id)).scalars())

    def give_back(self, task_id: str) -> None:
        """Let others have at once what was taken and `claim` was not asked for."""
        taken = self._taken.pop(task_id, None)
        if taken is not None:
            give_back(self._db, _TASK.task_id, task_id, taken.epoch, LEFT)

    def give_all_back(self) -> None:
        """The same for everything that was taken: this process ends."""
        for task_id in list(self._taken):
            self.give_back(task_id)

    def newest_claims(self, task_ids: Collection[str]) -> Mapping[str, int]:
        """Of those tasks that the ledger knows the epoch of the newest claim, for `take`."""
        found: dict[str, int] = {}
        for some in batches(list(task_ids)):
            query = select(_TASK.task_id, _TASK.claim_epoch).where(_TASK.task_id.in_(some))
            with self._db.read() as connection:
                found |= {row.task_id: row.claim_epoch for row in connection.execute(query)}
        return found


def _due(now: datetime, *, only_held: bool = False) -> Select[str]:
    """Which tasks are due, those that hold access first. What is over is not even looked at: there may be millions."""
    holding = _TASK.state.in_([state.value for state in LIVE_STATES])
    query = select(_TASK.task_id).where(schema.IS_OPEN, _TASK.due_at <= now, *([holding] if only_held else []))
    return query.order_by(holding.desc(), _TASK.due_at, _TASK.task_id)
