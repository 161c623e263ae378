"""`jitvault worker` as a process of its own, with the worker's identity and nobody else's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from attended import wait_for
from rig import Rig

JITVAULT = (sys.executable, "-m", "jitvault")


class WorkerProcess:
    """Runs from the moment that it works until the block is left; what it logs lies in a file."""

    def __init__(self, rig: Rig, *options: str, program: Sequence[str] = JITVAULT, **extra: str) -> None:
        self._file = rig.cli.home / f"worker-{time.monotonic_ns()}.log"
        self._argv = [*program, "worker", "--log", "json", "--sweep-every", "never", *options]
        self._environment = {**rig.cli.environment(None), **extra}

    def __enter__(self) -> WorkerProcess:
        with self._file.open("w") as log:
            self.process = subprocess.Popen(self._argv, env=self._environment, stderr=log)
        wait_for(lambda: self.said("working") or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL: it has no moment to leave anything in order."""
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        return self._file.read_text()

    def said(self, event: str) -> list[dict[str, Any]]:
        """The entries of one event; a last line that is not whole yet is none."""
        found = []
        for line in self.log.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("event") == event:
                found.append(entry)
        return found

    def end(self, *, within_s: float = 10.0, code: int = 0) -> float:
        """SIGTERM; gives the seconds until it was gone."""
        begun = time.monotonic()
        os.kill(self.process.pid, signal.SIGTERM)
        ended = self.process.wait(within_s)
        assert ended == code, (ended, self.log)
        return time.monotonic() - begun
