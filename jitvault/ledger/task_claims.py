"""Claims on tasks, and the due tasks that several workers share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, TextClause, bindparam, func, null, or_, select, update

from jitvault.errors import WrongState
from jitvault.ledger.claim_clock import LIFE_S
from jitvault.ledger.claim_clock import now as claim_clock
from jitvault.ledger.claims import DONE, LEFT, Taken, extend, give_back, held, is_free, is_ours, take, taking
from jitvault.ledger.kept_tasks import LATE
from jitvault.ledger.model import Turn
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import batches, now_s
from jitvault.model.states import LIVE_STATES, LIVING, State

_TASK = schema.tasks.c
# Each statement is built once: building one takes longer than running it, and an idle worker runs these all the time.
_CLAIM_STATE = select(_TASK.claim_epoch, _TASK.claim_until, is_free(schema.tasks).label("free")).where(
    _TASK.task_id == bindparam("task_id")
)
_NEXT_DUE = select(func.min(_TASK.due_at)).where(schema.IS_OPEN, _TASK.due_at > bindparam("now"))
_EARLIEST_DUE = select(func.min(_TASK.due_at)).where(schema.IS_OPEN)


_HOLDING = _TASK.state.in_([state.value for state in LIVE_STATES])
_MAY_HOLD = _TASK.state.in_([state.value for state in LIVING])


def _is_due(*, only_held: bool) -> list[ColumnElement[bool] | TextClause]:
    """Return the conditions for a due task without a worker.

    Tasks that are over are excluded by the index: there may be millions.
    """
    found: list[ColumnElement[bool] | TextClause] = [
        schema.IS_OPEN,
        _TASK.due_at <= bindparam("now"),
        is_free(schema.tasks),
        or_(_TASK.keeper.is_(None), _TASK.keeper == bindparam("this"), _TASK.due_at <= bindparam("late")),
        _TASK.task_id.not_in(bindparam("besides", expanding=True)),
    ]
    return [*found, _MAY_HOLD] if only_held else found


def _in_turn(*, only_held: bool) -> Select[str]:
    """Return the query for due tasks in the order in which they are taken, held ones first.

    Nobody's second task comes before another requester's first, however early it is due.
    """
    whose = (_HOLDING, _TASK.requester)
    nth = func.row_number().over(partition_by=whose, order_by=(_TASK.due_at, _TASK.task_id)).label("nth")
    turns = select(_TASK.task_id, nth).where(*_is_due(only_held=only_held)).subquery()
    served = _TASK.requester.in_(bindparam("served", expanding=True))
    order = (_HOLDING.desc(), turns.c.nth, served, _TASK.due_at, _TASK.task_id)
    query = select(_TASK.task_id).join(turns, turns.c.task_id == _TASK.task_id).where(*_is_due(only_held=only_held))
    return query.order_by(*order).limit(bindparam("most"))


_DUE = {only_held: select(_TASK.task_id).where(*_is_due(only_held=only_held)).limit(1) for only_held in (False, True)}
# rows that another worker locks at this moment are skipped, not waited for
_LOCK_DUE = {
    only_held: _in_turn(only_held=only_held).with_for_update(key_share=True, skip_locked=True, of=schema.tasks)
    for only_held in (False, True)
}


_FREE = (
    select(_TASK.task_id)
    .where(_TASK.task_id.in_(bindparam("tasks", expanding=True)), is_free(schema.tasks))
    .with_for_update(key_share=True, skip_locked=True)
)
_EXTEND = (
    update(schema.tasks)
    # one that was given back meanwhile is nobody's
    .where(_TASK.task_id == bindparam("key"), _TASK.claim_epoch == bindparam("epoch_held"), _TASK.claim_until > LEFT)
    .values(claim_until=now_s() + LIFE_S)
)
_KEEPS_NOTHING = update(schema.tasks).where(schema.IS_OPEN, _TASK.keeper == bindparam("this")).values(keeper=null())


class TaskClaims:
    """Claim tasks for one worker at a time; a part of `Ledger`.

    A claim that one thread took is known to all threads of the process.
    """

    _db: Database
    _taken: dict[str, Taken]
    _lent: dict[str, Taken]
    _held: dict[str, Taken]
    _unfinished: set[str]
    _staying: set[str]
    _this: str

    @contextmanager
    def claim(self, task_id: str, *, partly: bool = False) -> Iterator[int]:
        """Hold the exclusive right to change a task; yield the claim's epoch.

        The claim lasts 30 s; where another process holds it, this waits. When it is given back, other workers assume
        that everything wanted until it was taken was done, unless the block raises, `partly` is set or `leave_rest` was
        called.
        """
        taken = self._taken.pop(task_id, None) or self._lent.pop(task_id, None)
        since = taken.at if taken and taken.is_fresh else claim_clock()
        is_held = True

        def end() -> Mapping[str, Any] | None:
            keeper = self._this if task_id in self._staying else None
            self._staying.discard(task_id)
            if task_id in self._unfinished:
                return {"claim_until": LEFT, "keeper": keeper}
            return {"claim_until": DONE, "keeper": keeper} if is_held else None

        with held(self._db, _TASK.task_id, task_id, f"task {task_id}", taken=taken, end=end) as epoch:
            self._held[task_id] = Taken(epoch, since)
            # not before the claim is ours: until then, the mark is that of another thread
            self._unfinished.discard(task_id)
            self._staying.discard(task_id)
            if partly:
                self.leave_rest(task_id)
            try:
                yield epoch
            finally:
                is_held = self._held.pop(task_id, None) is not None

    def leave_rest(self, task_id: str) -> None:
        """Mark a task claimed here: not everything will be done under the claim.

        The effect is that of `partly` in `claim`.
        """
        self._unfinished.add(task_id)

    def stay(self, task_id: str) -> None:
        """Mark a task claimed here: this process renews it from memory.

        Others leave it alone until it is late by `LATE`.
        """
        self._staying.add(task_id)

    def extend(self, task_id: str, claim: int) -> None:
        """Hold the claim for another 25 s at least. Raises WrongState when it was lost.

        A claim that was taken or extended less than 5 s ago lasts that long.
        """
        known = self._held.get(task_id)
        if known is not None and known.epoch == claim and known.is_fresh:
            return
        extended_at = claim_clock()
        if not extend(self._db, _TASK.task_id, task_id, claim):
            raise WrongState(f"another process took over task {task_id}", hint="Run the command again.")
        self._held[task_id] = Taken(claim, extended_at)

    def check_claim(self, task_id: str, claim: int) -> None:
        """Raise WrongState where another process has claimed the task since.

        The claim may have been given back.
        """
        with self._db.read() as connection:
            found = connection.execute(_CLAIM_STATE, {"task_id": task_id}).first()
        if found is None or found.claim_epoch != claim:
            raise WrongState(f"another process took over task {task_id}", hint="Run the command again.")

    def take(self, task_id: str, *, since: int | None = None) -> Turn:
        """Claim a task without waiting, for a later `claim` to continue.

        A task that the ledger does not know is OURS. `since` is the epoch of the task's newest claim when the work
        became known: where a later claim ended with everything done, the work is done and the result is OVER.
        """
        # what was lent and is not begun yet is done in this turn as well
        taken = self._taken.pop(task_id, None) or self._lent.pop(task_id, None)
        if taken is not None and is_ours(self._db, _TASK.task_id, task_id, taken):
            self._taken[task_id] = taken if taken.is_fresh else Taken(taken.epoch)
            return Turn.OURS
        # a read costs no commit, and shows most tasks that another worker has
        with self._db.read() as connection:
            claimed = connection.execute(_CLAIM_STATE, {"task_id": task_id}).first()
        if claimed is None:
            return Turn.OURS
        if since is not None and claimed.claim_epoch > since and claimed.claim_until == DONE:
            return Turn.OVER
        epoch = take(self._db, _TASK.task_id, task_id) if claimed.free else None
        if epoch is None:
            return Turn.ANOTHERS
        self._taken[task_id] = Taken(epoch)
        return Turn.OURS

    def take_all(self, task_ids: Collection[str]) -> list[str]:
        """Claim the tasks that no process holds, in one commit; return them.

        `claim` continues each. Until then `extend_taken` keeps the claims from ending.
        """

        def unit(connection: Connection) -> dict[str, int]:
            epochs: dict[str, int] = {}
            for batch in batches(sorted(task_ids)):
                if free := list(connection.execute(_FREE, {"tasks": batch}).scalars()):
                    take = taking(schema.tasks).where(_TASK.task_id.in_(free))
                    rows = connection.execute(take.returning(_TASK.task_id, _TASK.claim_epoch))
                    epochs |= {row.task_id: row.claim_epoch for row in rows}
            return epochs

        epochs = self._db.write(unit)
        self._taken |= {task_id: Taken(epoch) for task_id, epoch in epochs.items()}
        return [task_id for task_id in task_ids if task_id in epochs]

    @property
    def waiting_claims(self) -> int:
        """How many claims were taken here that `claim` was not called for."""
        return len(self._taken)

    def extend_taken(self) -> None:
        """Hold every claim for longer that was taken here and that `claim` was not called for."""
        taken = dict(self._taken)
        claims = [{"key": task_id, "epoch_held": each.epoch} for task_id, each in taken.items()]
        if claims:
            self._db.write(lambda connection: connection.execute(_EXTEND, claims))
        for task_id, each in taken.items():
            # one that a thread has continued meanwhile is not put back
            if self._taken.get(task_id) is each:
                self._taken[task_id] = Taken(each.epoch)

    def take_due(
        self,
        now: datetime,
        limit: int,
        *,
        besides: Collection[str] = (),
        served: Collection[str] = (),
        only_held: bool = False,
    ) -> list[str]:
        """Claim up to `limit` due tasks that no worker holds, none of `besides`.

        A task is due when a renewal, a heartbeat, the end of its window, the retry of a revocation or its sealing is
        due. Tasks that hold access come first; `only_held` takes these and those that are being ended. Among them the
        requesters take turns, those in `served` last. Returns their ids in this order.

        A task that another process renews from its memory is due `LATE` later.

        No two workers get one task, and none waits for another. `claim` continues a claim that was taken here; a task
        that is not worked on has to be given back. Otherwise other workers can claim it after 30 s.
        """
        asked = {"now": now, "late": now - LATE, "this": self._this, "besides": list(besides)}

        def unit(connection: Connection) -> dict[str, int]:
            most = {"most": limit, "served": list(served)}
            found = list(connection.execute(_LOCK_DUE[only_held], {**asked, **most}).scalars())
            if not found:
                return {}
            take = taking(schema.tasks).where(_TASK.task_id.in_(found)).returning(_TASK.task_id, _TASK.claim_epoch)
            epochs = {row.task_id: row.claim_epoch for row in connection.execute(take)}
            return {task_id: epochs[task_id] for task_id in found}

        with self._db.read() as connection:
            # mostly no task is due, and a read does not block writers
            if connection.execute(_DUE[only_held], asked).first() is None:
                return []
        taken = {task_id: Taken(epoch) for task_id, epoch in self._db.write(unit).items()}
        self._taken |= taken
        return list(taken)

    def next_due(self, now: datetime) -> datetime | None:
        """Return when the next open task becomes due after `now`, None for never."""
        with self._db.read() as connection:
            found: datetime | None = connection.execute(_NEXT_DUE, {"now": now}).scalar_one()
        return found

    def earliest_due(self) -> datetime | None:
        """Return when the first of all open tasks is or was due, None where none ever is."""
        with self._db.read() as connection:
            found: datetime | None = connection.execute(_EARLIEST_DUE).scalar_one()
        return found

    def due_after(self, at: datetime) -> list[str]:
        """Return open tasks that no worker looks at before `at`.

        Those that may hold access or are not sealed yet.
        """
        states = [state.value for state in LIVE_STATES | {State.ENDING, State.CONFIRMED}]
        query = select(_TASK.task_id).where(schema.IS_OPEN, _TASK.state.in_(states), _TASK.due_at > at)
        with self._db.read() as connection:
            return list(connection.execute(query.order_by(_TASK.task_id)).scalars())

    def lend(self, task_id: str) -> bool:
        """Leave a claim that was taken here to whoever renews the task, until a thread takes it back.

        Returns False where a thread has continued the claim already.
        """
        taken = self._taken.pop(task_id, None)
        if taken is not None:
            self._lent[task_id] = taken
        return taken is not None

    def give_back(self, task_id: str) -> None:
        """Give up a task that was taken and that `claim` was not called for.

        Other workers can claim it at once.
        """
        self._give_back(task_id, self._taken)

    def give_lent_back(self, task_id: str) -> None:
        """Give up a task whose claim was lent, where nothing was begun with it."""
        self._give_back(task_id, self._lent)

    def _give_back(self, task_id: str, claims: dict[str, Taken]) -> None:
        taken = claims.pop(task_id, None)
        if taken is not None:
            give_back(self._db, _TASK.task_id, task_id, taken.epoch, {"claim_until": LEFT})

    def give_all_back(self) -> None:
        """Give up every task that was taken or is kept, because this process ends."""
        for claims in (self._taken, self._lent):
            for task_id in list(claims):
                self._give_back(task_id, claims)
        self._db.write(lambda c: c.execute(_KEEPS_NOTHING, {"this": self._this}))

    def newest_claims(self, task_ids: Collection[str]) -> Mapping[str, int]:
        """Return the epoch of the newest claim of each known task, for `take`."""
        found: dict[str, int] = {}
        for batch in batches(list(task_ids)):
            query = select(_TASK.task_id, _TASK.claim_epoch).where(_TASK.task_id.in_(batch))
            with self._db.read() as connection:
                found |= {row.task_id: row.claim_epoch for row in connection.execute(query)}
        return found
