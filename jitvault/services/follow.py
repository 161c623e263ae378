"""Keep reading the audit stream: the ledger knows within milliseconds what Vault did, and a tripwire ends its task."""

from __future__ import annotations

from collections.abc import Callable

from jitvault.errors import AuditUntrusted, JitvaultError, VaultUnavailable, WrongState
from jitvault.services.advance import advance
from jitvault.services.context import Worker
from jitvault.services.observe import observe
from jitvault.services.watch import watch

POLL_S = 0.01
RETRY_S = 1.0
_LOOK_AROUND_S = 1.0


def follow(worker: Worker, *, stopped: Callable[[], bool], tell: Callable[[str], None]) -> None:
    """Read on until `stopped()`. `tell` hears what has to be known: why that is not possible now, and what ended.

    Raises LedgerUnavailable and whatever else does not pass by itself.
    """
    known, looked, seen = "", -_LOOK_AROUND_S, dict[str, int]()
    while not stopped():
        now = worker.clock.monotonic()
        # a file that is not ours may grow all the time, and each look at it costs Vault a request
        around = now - looked >= _LOOK_AROUND_S
        looked = now if around else looked
        try:
            if observe(worker, look_around=around):
                end_tripped(worker, seen, tell)
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
