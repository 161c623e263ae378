"""Claim all tasks that are about to be revoked, so that no worker renews them meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

from jitvault.errors import LedgerUnavailable
from jitvault.kill_switch.threads import CONCURRENCY

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

_EXTEND_EVERY_S = 4.0
"""How often claims that nobody continues yet are extended, in seconds: one that is fresh costs its task no commit."""


@contextmanager
def claimed(ledger: Ledger, tasks: Sequence[str]) -> Iterator[list[str]]:
    """Hold the claims of as many tasks as can be had; yield all tasks, those that are claimed first.

    A worker that renews a task at this moment has its claim for two seconds more: such tasks come last. Where the
    ledger accepts no writes, nothing is claimed: the tasks are revoked all the same. Where Vault does not answer here,
    the claims end soon: it may answer another process, which ends the tasks then.
    """
    taken: list[str] = []
    with suppress(LedgerUnavailable):
        taken = ledger.take_all(tasks)
    over = Event()
    keeper = Thread(target=_keep, args=(ledger, over), daemon=True)
    keeper.start()
    try:
        yield list(dict.fromkeys([*taken, *tasks]))
    finally:
        over.set()
        keeper.join()
        for task_id in taken:
            with suppress(LedgerUnavailable):
                ledger.give_back(task_id)


def _keep(ledger: Ledger, over: Event) -> None:
    waiting = ledger.waiting_claims
    while not over.wait(_EXTEND_EVERY_S):
        before, waiting = waiting, ledger.waiting_claims
        # no thread that waits for Vault continues two
        if before - waiting > CONCURRENCY:
            with suppress(LedgerUnavailable):
                ledger.extend_taken()
