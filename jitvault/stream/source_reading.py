"""Ingest one audit source up to its present end."""

from __future__ import annotations

from contextlib import suppress

from jitvault.audit.observation import Kind
from jitvault.audit.source import Batch, Position, Source
from jitvault.audit.trail import Canary
from jitvault.context import WorkerContext
from jitvault.errors import AuditLagging, AuditUntrusted, WrongState
from jitvault.ledger.stream.model import SourceReading
from jitvault.stream.session import register_session

# tries, each failed because another process has read on
_RACES = 100


def read_on(worker: WorkerContext, source: Source) -> bool:
    """Ingest one source up to its present end, if its lines count.

    Returns False where there was nothing new. Raises AuditUntrusted where the source cannot be read.
    """
    reading = worker.ledger.readings().get(source.name)
    return reading is not None and is_counted(source, reading) and ingest_news(worker, source, reading)


def has_news(source: Source, reading: SourceReading | None) -> bool:
    """Return whether an untrusted source has lines that were not looked at.

    False for a source that cannot be read.
    """
    with suppress(AuditUntrusted):
        return source.has_more(reading.position if reading else source.start())
    return False


def is_counted(source: Source, reading: SourceReading) -> bool:
    """Return whether a source is trusted and continues where it was read to."""
    return reading.vouched and source.continues(reading.position)


def ingest_news(worker: WorkerContext, source: Source, reading: SourceReading, *, until: float | None = None) -> bool:
    """Ingest a trusted source; return False where there was nothing new."""
    if not source.has_more(reading.position):
        return False
    ingest(worker, source, until=until)
    return True


def ingest(
    worker: WorkerContext, source: Source, expected: str | None = None, *, until: float | None = None
) -> Canary | None:
    """Ingest a source up to its present end.

    Returns the canary `expected`, also if another process ingested its line. Several processes may read a source at
    once: what one of them ingests is refused to the others, which continue from there.
    """
    with worker.ledger.reading_lock(source.name):
        for _ in range(_RACES):
            try:
                position = worker.ledger.readings()[source.name].position
                return _read_from(worker, source, position, expected, until=until)
            except WrongState:
                continue
    raise WrongState(f"other processes read audit source {source.name} all the time", hint="Run the command again.")


def _read_from(
    worker: WorkerContext, source: Source, position: Position, expected: str | None, *, until: float | None
) -> Canary | None:
    """Ingest a source from `position` on.

    Returns the canary `expected`. Raises WrongState where another process has read on meanwhile, and AuditLagging where
    `until` passes.
    """
    ledger = worker.ledger
    found: Canary | None = None
    for batch in source.read(position):
        if until is not None and worker.clock.monotonic() > until:
            raise AuditLagging(f"the audit stream ({source.name}) has more lines than could be read in time")
        if _changes_devices(batch) and register_session(worker):
            # A new segment begins here: lines with the new salt do not continue those before.
            raise WrongState("the audit device was made anew")
        seen = ledger.observe(
            source.name, batch, after=position, at=worker.now(), expected=expected, shared=worker.shared_hosts
        )
        found = seen or found
        position = batch.position
    if found is None and expected:
        return ledger.keep_canary(source.name, expected)
    return found


def _changes_devices(batch: Batch) -> bool:
    """Return whether an audit device was set up or removed.

    Lines after it can have another salt.
    """
    return any(o.kind is Kind.HAZARD and o.path.startswith("sys/audit/") for o in batch.observations)
