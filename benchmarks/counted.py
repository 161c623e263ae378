"""What a worker that is a process of its own costs: counted in stretches of time, each with one kind of work.

Requests come from the audit log, where each stands with the entity of its token; commits and statements from the
worker's process, which is `python -m benchmarks.counted FILE worker …`: jitvault, and on SIGUSR1 its counts so far.
Nothing here knows how the worker divides its work, so that a change of that changes figures and not their meaning.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine, event, func, select

from benchmarks.latency import working
from benchmarks.measure import cpu_s
from benchmarks.scene import Scene
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database, opened

READERS = ("observe ", "sources", "canary")
"""The threads that read the audit stream, by the beginning of their names: they work for all tasks at once."""
_LOOK_S, _PATIENCE_S = 0.01, 20.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What was done up to a moment, or between two. `commits` and `statements` are by thread, `requests` by path."""

    at: float
    cpu_s: float
    audit_bytes: int
    events: int
    commits: Counter[str]
    statements: Counter[str]
    requests: Counter[str] = field(default_factory=Counter)

    def of_work(self, counted: Counter[str]) -> int:
        """Without what the readers of the stream did."""
        return sum(n for name, n in counted.items() if not name.startswith(READERS))

    def sent(self, *beginnings: str) -> int:
        """How many requests went to paths that begin so; all where none is given."""
        return sum(n for path, n in self.requests.items() if path.startswith(beginnings or ""))


class CountedWorker:
    """A worker whose counts can be read while it works."""

    def __init__(self, world: Scene, process: Popen[bytes], file: Path) -> None:
        self._world, self._process, self._file = world, process, file
        self._entity = world.world.entity_ids["worker"]
        self._ledger = opened(world.variables["JITVAULT_LEDGER"], create=False)

    def now(self) -> Counts:
        """What it did up to now, without the requests."""
        told = self._told()
        with self._ledger.read() as connection:
            events = connection.execute(select(func.coalesce(func.sum(schema.tasks.c.seq), 0))).scalar_one()
        return Counts(
            at=time.monotonic(),
            cpu_s=cpu_s(self._process.pid),
            audit_bytes=self._world.world.audit_file.stat().st_size,
            events=int(events),
            commits=Counter(told["commits"]),
            statements=Counter(told["statements"]),
        )

    def since(self, before: Counts) -> Counts:
        """What it did since then, with its requests."""
        after = self.now()
        return Counts(
            at=after.at - before.at,
            cpu_s=after.cpu_s - before.cpu_s,
            audit_bytes=after.audit_bytes - before.audit_bytes,
            events=after.events - before.events,
            commits=after.commits - before.commits,
            statements=after.statements - before.statements,
            requests=self._requests(before.audit_bytes, after.audit_bytes),
        )

    def _told(self) -> Any:
        """What the process counted, written anew when it is asked."""
        self._file.unlink(missing_ok=True)
        self._process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + _PATIENCE_S
        while not self._file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the worker does not tell what it counted")
            time.sleep(_LOOK_S)
        return json.loads(self._file.read_text())

    def _requests(self, first: int, last: int) -> Counter[str]:
        """The requests of the worker's entity in this part of the audit file, by path."""
        found = Counter[str]()
        entity = self._entity.encode()
        with self._world.world.audit_file.open("rb") as file:
            file.seek(first)
            for line in file.read(last - first).splitlines():
                # mostly others' lines: these need not be read as JSON
                if entity not in line or b'"type":"request"' not in line:
                    continue
                entry = json.loads(line)
                if entry["type"] == "request" and entry["auth"].get("entity_id") == self._entity:
                    found[entry["request"]["path"]] += 1
        return found


@contextmanager
def counted_worker(world: Scene, *options: str) -> Iterator[CountedWorker]:
    """A worker on the scene's ledger that counts, until the block is left."""
    with TemporaryDirectory() as name:
        file = Path(name) / "counts.json"
        with working(world, *options, program=("benchmarks.counted", str(file))) as process:
            yield CountedWorker(world, process, file)


def main() -> None:
    """Be jitvault, and write the counts so far into the first argument's file on SIGUSR1."""
    file = Path(sys.argv.pop(1))
    commits, statements = Counter[str](), Counter[str]()
    _count_commits(commits)
    event.listen(Engine, "before_cursor_execute", lambda *_: statements.update((threading.current_thread().name,)))

    def tell(*_: Any) -> None:
        # copied first: other threads go on counting
        text = json.dumps({"commits": dict(commits), "statements": dict(statements)})
        new = file.with_suffix(".new")
        new.write_text(text)
        # whole, or not there
        new.replace(file)

    signal.signal(signal.SIGUSR1, tell)
    # an import of its own: what it imports has to be what was changed above
    from jitvault.cli.app import main as jitvault

    jitvault()


def _count_commits(commits: Counter[str]) -> None:
    write = Database.write

    def counted(self: Database, unit: Callable[..., Any], **how: Any) -> Any:
        commits[threading.current_thread().name] += 1
        return write(self, unit, **how)

    Database.write = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
