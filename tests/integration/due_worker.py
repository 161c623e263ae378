"""Advances what is due until so many tasks are issued, and prints those that it had. A program of tests, not a test."""

from __future__ import annotations

import sys
import time

from jitvault.lifecycle.advance import advance
from jitvault.model.states import State
from jitvault.settings import load
from jitvault.wiring import Wiring


def main(wanted: int) -> None:
    worker = Wiring(load()).worker
    until = time.monotonic() + 90
    while time.monotonic() < until:
        for task_id in worker.ledger.take_due(worker.now(), 2):
            advance(worker, task_id)
            print(task_id)  # noqa: T201
        if sum(task.state is State.ISSUED for task in worker.ledger.tasks()) == wanted:
            return
        time.sleep(0.05)
    sys.exit("not all was done in time")


if __name__ == "__main__":
    main(int(sys.argv[1]))
