"""Read the stream so that a worker's kept facts count for a turn.

A fact counts for a turn once the stream was read up to a canary that was sent after the turn's trigger. Where nothing
else of the turn needs a canary, one is sent for the facts alone, if that is cheaper than reading them again. The lines
up to it are then only looked through for changes: ingesting them is left to whoever needs them in the ledger.
"""

from __future__ import annotations

from contextlib import suppress

from jitvault.context import WorkerContext, new_id
from jitvault.errors import AuditUntrusted
from jitvault.stream.looking import look_on
from jitvault.stream.reading import find_canary

# A stream that lags is not waited for: the turn then reads what it needs.
_PATIENCE_S = 0.25
_PAUSE_S = 0.002


def let_facts_count(worker: WorkerContext) -> None:
    """Look through the stream up to a canary, where that spares this turn more requests than it costs."""
    if worker.facts.needs_canary:
        with suppress(AuditUntrusted):
            worker.facts.looks.of(lambda: _look(worker))


def read_first(worker: WorkerContext) -> None:
    """Ingest the stream up to the canary that a turn needs in any case, where that spares it requests."""
    if worker.facts.needs_canary:
        with suppress(AuditUntrusted):
            worker.facts.short_canaries.of(lambda: find_canary(worker, _PATIENCE_S))


def _look(worker: WorkerContext) -> None:
    facts, clock = worker.facts, worker.clock
    sent, begun = facts.now(), clock.monotonic()
    expected = worker.hasher.hash(new_id())
    while not facts.has_read(expected):
        for source in worker.sources.present():
            known = facts.read_to(source.name)
            if known is not None and source.continues(known):
                look_on(worker, source, known)
        if clock.monotonic() - begun > _PATIENCE_S:
            facts.is_behind()
            return
        clock.sleep(_PAUSE_S)
    facts.reached(sent, ingested=False)
