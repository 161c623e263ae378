"""`jitvault worker` as a process of its own, with the worker's identity and nobody else's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attended import wait_for
from forked import Child
from rig import Rig


class WorkerProcess:
    """Runs from the moment that it works until the block is left; what it logs lies in a file.

    It is forked, unless it has a `program` of its own, or what is loaded before all else (a clock that is wrong).
    """

    def __init__(self, rig: Rig, *options: str, program: Sequence[str] | None = None, **extra: str) -> None:
        if program is None and "LD_PRELOAD" in extra:
            program = (sys.executable, "-m", "jitvault")
        self._file = rig.cli.home / f"worker-{time.monotonic_ns()}.log"
        self._program = program
        self._words = ["worker", "--log", "json", "--sweep-every", "never", *options]
        self._environment = {**rig.cli.environment(None), **extra}

    def __enter__(self) -> WorkerProcess:
        with self._file.open("w") as log, Path(os.devnull).open("r+") as nothing:
            self.process: Child | subprocess.Popen[bytes]
            if self._program is None:
                streams = [nothing.fileno(), nothing.fileno(), log.fileno()]
                self.process = Child(self._words, self._environment, streams)
            else:
                argv = [*self._program, *self._words]
                self.process = subprocess.Popen(argv, env=self._environment, stderr=log)
        wait_for(lambda: self.said("working") or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL: it has no moment to leave anything in order."""
        self.process.kill()
        self.process.wait(20)

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
