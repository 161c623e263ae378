"""Signals of a worker: SIGTERM and SIGINT end it, and SIGHUP has it read its files again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType


def leave_at_once(number: int) -> None:
    """End this process; nothing is in memory alone, and the next start continues from the ledger."""
    os._exit(128 + number)


@contextmanager
def handled(stopping: Event, at_once: Callable[[int], None] = leave_at_once) -> Iterator[Event]:
    """Handle signals inside the block; yield the event that SIGHUP sets.

    The first SIGTERM or SIGINT sets `stopping`. At the second `at_once` is called with its number.
    """
    reload = Event()
    is_told = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal is_told
        if is_told:
            at_once(number)
        is_told = True
        stopping.set()

    handlers = {
        signal.SIGTERM: stop,
        signal.SIGINT: stop,
        signal.SIGHUP: lambda *_: reload.set(),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield reload
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
