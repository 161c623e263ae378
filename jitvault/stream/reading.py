"""Read the audit stream up to now.

There can be several sources: the files of all nodes, or connections that a receiver keeps apart. The record is their
union.
"""

from __future__ import annotations

from jitvault.context import WorkerContext
from jitvault.errors import AuditLagging, AuditUntrusted
from jitvault.stream.canary import SHORT_PATIENCE_S, canary
from jitvault.stream.source_reading import has_news, ingest_news


def observe(worker: WorkerContext, *, look_around: bool = True, until: float | None = None) -> bool:
    """Ingest all trusted sources up to their present end.

    Returns False if there was nothing new. Where an untrusted source has lines, a canary is sent to see whether the
    source is this Vault's, unless `look_around` is False: another node may have become the active one, and then the
    file of the old one ends without a sign.

    Raises AuditLagging where more is left to read at `until`, by the worker's monotonic clock; what was read by then is
    ingested. Raises AuditUntrusted where no source can be read, or none shows a canary.
    """
    readings = worker.ledger.readings()
    failure: AuditUntrusted | None = None
    counted = needs_canary = news = False
    for source in worker.sources.present():
        reading = readings.get(source.name)
        if reading is None or not reading.vouched:
            needs_canary = needs_canary or (look_around and has_news(source, reading))
            continue
        try:
            if source.continues(reading.position):
                counted = True
                news = ingest_news(worker, source, reading, until=until) or news
            else:
                needs_canary = True
        except AuditLagging:
            raise
        except AuditUntrusted as error:
            failure = failure or error
    if failure and not counted:
        raise failure
    if needs_canary or not counted:
        canary(worker, patience_s=SHORT_PATIENCE_S)
        news = True
    return news
