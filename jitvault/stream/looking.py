"""Look through the lines of a source for what this process keeps in memory: facts and held tasks.

Each process reads every line itself, whoever ingested it. The position in the ledger says how far others have read.
"""

from __future__ import annotations

import math

from jitvault.audit.source import Batch, Position, Source
from jitvault.context import WorkerContext

# What a busy fleet writes in some seconds, and what one process looks through in a fraction of one.
_MOST_BYTES = 16 * 1024 * 1024


def look_through(worker: WorkerContext, source: Source, position: Position) -> None:
    """Look through the lines up to `position` that another process has ingested.

    What this process keeps, facts and tasks, goes by its own reading alone: the ledger's position says how far to read,
    and nothing about what is there. Everything is dropped where lines may be missing: in another segment, and where
    they are more than can be looked through while others wait.
    """
    known = worker.facts.read_to(source.name)
    if known is None or known.epoch != position.epoch or position.offset - known.offset > _MOST_BYTES:
        worker.facts.begin_at(source.name, position)
    elif known.offset < position.offset:
        look_on(worker, source, known, up_to=position.offset)


def look_on(worker: WorkerContext, source: Source, known: Position, *, up_to: float = math.inf) -> None:
    """Look through a source from where this process has read it to, without ingesting anything.

    Reads to the present end, or to where the offset `up_to` is passed.
    """
    for batch in source.read(known):
        take_in(worker, source, known, batch)
        known = batch.position
        if known.offset >= up_to:
            return


def take_in(worker: WorkerContext, source: Source, after: Position, batch: Batch) -> None:
    """Let what this process keeps go by the lines after `after`, unless it has looked through them before."""
    if worker.facts.read_to(source.name) == after:
        # first: facts say how far was read
        worker.kept.saw(batch.changes)
        worker.facts.saw(source.name, after, batch)
