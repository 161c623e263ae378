"""Status of the audit stream: whether it is trusted, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from jitvault.context import WorkerContext
from jitvault.errors import AuditLagging, AuditUntrusted
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.stream.model import CountedLines, Freeze, Gap
from jitvault.stream.reading import canary

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger


class Trust(StrEnum):
    """Whether the stream is trusted at this moment."""

    TRUSTED = "trusted"
    LAGGING = "lagging"
    UNTRUSTED = "untrusted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source as the ledger knows it.

    `counts` says that a canary of this worker was found in the source, `there` that the source exists.
    """

    name: str
    there: bool
    counts: bool
    stretch: int
    offset: int
    read_at: datetime | None
    last_canary: datetime | None
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """The status of the whole stream.

    `lag` is how long the canary took. `skew` is Vault's clock minus this host's, positive where Vault is ahead.
    """

    trust: Trust
    why: str | None
    hint: str | None
    lag: timedelta | None
    skew: timedelta | None
    sources: tuple[SourceFacts, ...]
    freeze: Freeze | None
    not_kept: tuple[CountedLines, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the status in the form of the command line's JSON output."""
        return {
            "state": self.trust.value,
            "why": self.why,
            "lag_ms": _ms(self.lag),
            "skew_ms": _ms(self.skew),
            "sources": [
                {
                    "name": source.name,
                    "there": source.there,
                    "counts": source.counts,
                    "stretch": source.stretch,
                    "offset": source.offset,
                    "read_at": _iso(source.read_at),
                    "last_canary": _iso(source.last_canary),
                    "gaps": [{"stretch": g.epoch, "what": g.what, "at": _iso(g.at)} for g in source.gaps],
                }
                for source in self.sources
            ],
            "not_kept": [
                {
                    "kind": counted.kind,
                    "lines": counted.lines,
                    "last_at": _iso(counted.last_at),
                    "last_from": counted.last_remote,
                }
                for counted in self.not_kept
            ],
            "frozen": self.freeze and {"why": self.freeze.reason, "at": _iso(self.freeze.at), "line": self.freeze.line},
        }


def examine(worker: WorkerContext) -> StreamStatus:
    """Send a canary; return the status of the stream after it."""
    sent = worker.clock.monotonic()
    sent_at = worker.now()
    try:
        found = canary(worker)
    except AuditUntrusted as error:
        trust = Trust.LAGGING if isinstance(error, AuditLagging) else Trust.UNTRUSTED
        return _status(worker.ledger, trust, str(error), error.hint, names=_configured_names(worker))
    lag = timedelta(seconds=worker.clock.monotonic() - sent)
    # Vault handled the canary between sending and seeing it: the middle is the best estimate.
    skew = found.at - (sent_at + lag / 2)
    return _status(worker.ledger, Trust.TRUSTED, lag=lag, skew=skew, names=_configured_names(worker))


def _configured_names(worker: WorkerContext) -> frozenset[str]:
    return frozenset(source.name for source in worker.sources.present())


def stream_status_from_ledger(ledger: Ledger) -> StreamStatus:
    """Return the status that the ledger remembers.

    Only the worker's identity can send a canary, so `trust` is UNKNOWN.
    """
    why = "only the worker's identity can ask Vault for a canary"
    return _status(
        ledger,
        Trust.UNKNOWN,
        why,
        "Run it where the worker's identity is set: JITVAULT_WORKER_TOKEN, its file, or JITVAULT_WORKER_LOGIN.",
    )


def _status(
    ledger: Ledger,
    trust: Trust,
    why: str | None = None,
    hint: str | None = None,
    lag: timedelta | None = None,
    skew: timedelta | None = None,
    names: frozenset[str] | None = None,
) -> StreamStatus:
    sources = tuple(_sources(ledger, ledger.gaps(), names))
    return StreamStatus(trust, why, hint, lag, skew, sources, ledger.freeze(), tuple(ledger.not_kept()))


def _sources(ledger: Ledger, gaps: Sequence[Gap], names: frozenset[str] | None) -> list[SourceFacts]:
    """Return the facts of the configured sources.

    `names` is None where the configuration is unknown; then those sources are returned that were ever trusted.
    """
    canaries = ledger.last_canaries()
    return [
        SourceFacts(
            name=name,
            there=bool(reading.position.identity),
            counts=reading.vouched,
            stretch=reading.position.epoch,
            offset=reading.position.offset,
            read_at=reading.read_at,
            last_canary=canaries.get(name),
            gaps=tuple(gap for gap in gaps if gap.source == name),
        )
        for name, reading in sorted(ledger.readings().items())
        if (reading.vouched if names is None else name in names)
    ]


def _ms(duration: timedelta | None) -> int | None:
    return duration // timedelta(milliseconds=1) if duration is not None else None


def _iso(at: datetime | None) -> str | None:
    return rfc3339(at) if at else None
