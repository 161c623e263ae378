"""The loops that read the audit stream, and see whether it is trusted."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from contextlib import closing
from datetime import timedelta
from functools import partial

from jitvault.audit.source import Source
from jitvault.backoff import doubled
from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError
from jitvault.ledger.storage.postgres import Listener
from jitvault.model.ledger_rebuild import HINT, why_nothing_is_granted
from jitvault.stream.reading import observe, read_on
from jitvault.stream.status import Trust, examine
from jitvault.worker.loop_base import LoopBase

CONNECTIONS = "the senders of receivers"
"""The name of the one loop that reads all sources that come and go."""
# the longest pause between two readings, and between two looks where nothing is written; a look costs a wake-up
_LONGEST_REST_S = 0.1
# how long a file may look as it did before it is opened all the same
_LONGEST_IDLE_S = 1.0
_REST_S = 0.05


class Changes:
    """Knows which sources may have lines that were not read.

    A look at a file costs next to nothing, and reading on costs a look into the ledger and into the file. What a look
    does not show is found after `_LONGEST_IDLE_S`.
    """

    def __init__(self) -> None:
        self._idle: dict[str, tuple[Hashable, float]] = {}

    def changed(self, sources: Iterable[Source], now: float) -> list[tuple[Source, Hashable]]:
        """Return the sources to read on, each with its stamp of before."""
        stamped = [(source, source.stamp()) for source in sources]
        idle = self._idle
        # connections come and go
        self._idle = {source.name: idle[source.name] for source, _ in stamped if source.name in idle}
        return [(source, stamp) for source, stamp in stamped if not self._is_idle(source, stamp, now)]

    def _is_idle(self, source: Source, stamp: Hashable, now: float) -> bool:
        before, at = self._idle.get(source.name, (None, 0.0))
        return stamp == before and now - at < _LONGEST_IDLE_S

    def read_to_end(self, source: Source, stamp: Hashable, now: float) -> None:
        """Note that nothing was left to read when a source had this stamp."""
        self._idle[source.name] = (stamp, now)


class StreamLoops(LoopBase):
    """Ingest the audit sources, and send canaries."""

    def sources(self, worker: WorkerContext) -> None:
        """Start a loop for each new source, and look for canaries in the others."""
        known = set[str]()

        def look_around() -> None:
            # not each time a file grows: a file that is not this Vault's may always grow, and each look costs a request
            for source in worker.sources.present():
                # each connection to a receiver is a source: all of these share a thread
                name = CONNECTIONS if source.passing else source.name
                if name not in known:
                    reader = self.hire()
                    known.add(name)
                    self.supervisor.start(f"observe {name}", partial(self._read, name, reader))
            if self.is_reader() and observe(worker):
                self.tell_news()

        self.every("sources", self.pace.look_around_s, look_around)

    def _read(self, name: str, worker: WorkerContext) -> None:
        """Ingest the sources of this name over and over."""
        changes = Changes()
        idle = 0

        def read_all() -> None:
            nonlocal idle
            begun = time.monotonic()
            if not self.is_reader():
                self.supervisor.stopping.wait(_LONGEST_REST_S)
                return
            idle += 1
            present = worker.sources.present()
            own = [source for source in present if name == (CONNECTIONS if source.passing else source.name)]
            sources = changes.changed(own, begun)
            # mostly nothing was written, and the ledger need not be asked to know that
            readings = worker.ledger.readings() if sources else {}
            for source, stamp in sources:
                reading = readings.get(source.name)
                if reading is None or not reading.vouched:
                    continue
                if read_on(worker, source):
                    idle = 0
                    self.health.count("readings", source=source.name)
                    self.tell_news()
                else:
                    changes.read_to_end(source, stamp, begun)
            # A batch costs much the same however many lines it has, so a busy worker reads more lines at a time.
            took_s = time.monotonic() - begun
            rest_s = doubled(self.pace.read_s, idle, _LONGEST_REST_S)
            self.supervisor.stopping.wait(min(_LONGEST_REST_S, max(rest_s, 2 * took_s)))

        self.every(f"observe {name}", 0, read_all)

    def others(self, listener: Listener) -> None:
        """Wake the loops that wait for lines as soon as any process has stored some."""

        def look() -> None:
            if listener.wait(self.pace.wake_s):
                self.tell_news()
                # each look costs the ledger something, so a busy stream is looked at less often than it is stored
                self.supervisor.stopping.wait(_REST_S)

        with closing(listener):
            self.every("others", 0, look)

    def canary(self, worker: WorkerContext) -> None:
        """Send canaries, and log when the stream becomes trusted or untrusted."""

        def look() -> None:
            status = examine(worker)
            trusted = status.trust is Trust.TRUSTED
            why = None if trusted else status.why or "the audit stream is not trusted"
            if status.lag is not None:
                self.health.set("stream_lag_seconds", status.lag / timedelta(seconds=1))
            if why != self.health.why_not_trusted:
                if trusted:
                    self.log.info("the audit stream is trusted", lag_ms=status.as_json()["lag_ms"])
                else:
                    self.log.error("the audit stream is not trusted", why=why, hint=status.hint)
            self.health.why_not_trusted = why
            self._look_at_ledger(worker)

        def failed(error: JitvaultError) -> None:
            self.health.why_not_trusted = str(error)

        self.every("canary", self.pace.canary_s, look, failed=failed)

    def _look_at_ledger(self, worker: WorkerContext) -> None:
        """Report, and log once, that the ledger has to be rebuilt."""
        since = worker.ledger.recovering()
        why = f"{why_nothing_is_granted(since)}. {HINT}" if since else None
        if why != self.health.why_not_granting:
            if since:
                self.log.error(why_nothing_is_granted(since), hint=HINT)
            else:
                self.log.info("the ledger was rebuilt: tasks are granted again")
        self.health.why_not_granting = why
