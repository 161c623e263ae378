"""Keep reading the audit stream: the ledger knows within milliseconds what Vault did, and a tripwire ends its task.

What is due is done on the way: a task whose time is over ends, what could not be revoked is tried again until it is
proven, and what has settled is sealed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from jitvault.domain.lifecycle import State
from jitvault.domain.revision import Revision
from jitvault.errors import AuditUntrusted, JitvaultError, VaultUnavailable, WrongState
from jitvault.services.advance import advance
from jitvault.services.context import Worker
from jitvault.services.observe import observe
from jitvault.services.papers import freezes
from jitvault.services.watch import watch

POLL_S = 0.01
RETRY_S = 1.0
_LOOK_AROUND_S = 1.0
_TRY_AGAIN_S = 10.0
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def follow(worker: Worker, *, stopped: Callable[[], bool], tell: Callable[[str], None]) -> None:
    """Read on until `stopped()`. `tell` hears what has to be known: why that is not possible now, and what ended.

    Raises LedgerUnavailable and whatever else does not pass by itself.
    """
    known, looked, seen = "", -_LOOK_AROUND_S, dict[str, int]()
    tried: dict[str, _Tried] = {}
    # before the first look there may have been anything
    word = _EVER
    while not stopped():
        now = worker.clock.monotonic()
        # a file that is not ours may grow all the time, and each look at it costs Vault a request
        around = now - looked >= _LOOK_AROUND_S
        looked = now if around else looked
        try:
            if observe(worker, look_around=around):
                end_tripped(worker, seen, tell)
            if around:
                if newest := worker.ledger.last_written("freezes/", after=word):
                    end_frozen(worker, tell)
                    word = newest
                _do_what_is_due(worker, tried, tell)
        except (AuditUntrusted, VaultUnavailable, WrongState) as error:
            if str(error) != known:
                tell(f"not trusted: {error}\n  {error.hint}")
            known = str(error)
            worker.clock.sleep(RETRY_S)
            continue
        if known:
            tell("trusted again")
            known = ""
        worker.clock.sleep(POLL_S)


_Tried = tuple[datetime | None, float]
"""What a task was due at when it was tried last, and until when it is left alone if it stays due."""


def _do_what_is_due(worker: Worker, tried: dict[str, _Tried], tell: Callable[[str], None]) -> None:
    """Advance every task whose time has come; what stays due as it was is not looked at again for a while.

    A renewal that failed has several tries before its step is over.
    """
    wait_s = min(_TRY_AGAIN_S, worker.rolling_step.total_seconds() / 8)
    for task_id in worker.ledger.due(worker.now()):
        now, before = worker.clock.monotonic(), worker.ledger.task(task_id)
        due_at = before.due_at if before else None
        last = tried.get(task_id)
        if last is not None and last[0] == due_at and now < last[1]:
            continue
        tried[task_id] = (due_at, now + wait_s)
        try:
            after = advance(worker, task_id, deadline=now + _TRY_AGAIN_S).task
        except (AuditUntrusted, VaultUnavailable):
            raise
        except JitvaultError as error:
            tell(f"{task_id} is due and could not be looked after: {error}")
            continue
        if before is None or after.state is not before.state:
            tell(f"{task_id} is {after.state}" + (f" ({after.end_reason})" if after.end_reason else ""))


def end_frozen(worker: Worker, tell: Callable[[str], None]) -> dict[str, State]:
    """End every held task that an operator's freeze covers: all doors first. Gives what became of each that ended."""
    covered, ended = _covered(worker), dict[str, State]()
    for task_id in covered:
        # nothing but the first act on its token is done in no time; what fails is done again below, and told
        with suppress(JitvaultError):
            advance(worker, task_id, deadline=worker.clock.monotonic())
    for task_id, why in covered.items():
        try:
            ended[task_id] = advance(worker, task_id).task.state
        except JitvaultError as error:
            tell(f"{task_id}: {why}. It could not be ended: {error}")
        else:
            tell(f"{task_id} is {ended[task_id]}: {why}")
    return ended


def _covered(worker: Worker) -> dict[str, str]:
    """The held tasks that are frozen by operators, each with why."""
    words, found = freezes(worker), dict[str, str]()
    for task_id in worker.ledger.held() if words else ():
        file = worker.ledger.file(task_id)
        content = Revision.of(file.revision.body).content if file else None
        word = next((word for word in words if content and word.scope.covers(content)), None)
        if word is not None:
            found[task_id] = f"{word.by} froze {word.scope}: {word.reason}"
    return found


def end_tripped(worker: Worker, seen: dict[str, int], tell: Callable[[str], None]) -> None:
    """End every held task that touched a tripwire, and all of them while everything is frozen.

    `seen` remembers how far each task had come, so that only those with news are looked at.
    """
    frozen = worker.ledger.freeze() is not None
    for task_id, seq in worker.ledger.held().items():
        if not frozen and seen.get(task_id) == seq:
            continue
        seen[task_id] = seq
        file = worker.ledger.file(task_id)
        trips = watch(worker, file) if file else []
        if not frozen and not trips:
            continue
        why = "everything is frozen" if frozen else trips[0].message
        try:
            ended = advance(worker, task_id).task
        except JitvaultError as error:
            tell(f"{task_id}: {why} It could not be ended: {error}")
        else:
            tell(f"{task_id} is {ended.state} ({ended.end_reason}): {why} See `jitvault status {task_id}`.")
