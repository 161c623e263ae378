"""What is known about the audit stream: can it be trusted now, how far was it read, what is missing in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from jitvault.context import WorkerContext
from jitvault.errors import AuditLagging, AuditUntrusted
from jitvault.ledger.stream_model import CountedLines, Freeze, Gap
from jitvault.stream.reading import canary

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger


class Trust(StrEnum):
    TRUSTED = "trusted"
    LAGGING = "lagging"
    UNTRUSTED = "untrusted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source as the ledger knows it. `counts` says that a canary of ours was found in it, `there` that it is."""

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
    """The stream as a whole. `lag` is how long the canary took, `skew` Vault's clock less ours (positive: ahead)."""

    trust: Trust
    why: str | None
    hint: str | None
    lag: timedelta | None
    skew: timedelta | None
    sources: tuple[SourceFacts, ...]
    freeze: Freeze | None
    not_kept: tuple[CountedLines, ...] = ()

    def as_json(self) -> dict[str, Any]:
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
                {"kind": one.kind, "lines": one.lines, "last_at": _iso(one.last_at), "last_from": one.last_remote}
                for one in self.not_kept
            ],
            "frozen": self.freeze and {"why": self.freeze.reason, "at": _iso(self.freeze.at), "line": self.freeze.line},
        }


def examine(worker: WorkerContext) -> StreamStatus:
    """Send a canary and say what became of it."""
    sent, sent_at = worker.clock.monotonic(), worker.now()
    try:
        found = canary(worker)
    except AuditUntrusted as error:
        trust = Trust.LAGGING if isinstance(error, AuditLagging) else Trust.UNTRUSTED
        return _examined(worker.ledger, trust, str(error), error.hint, names=_configured(worker))
    lag = timedelta(seconds=worker.clock.monotonic() - sent)
    # Vault took it somewhere between sending and seeing it
    skew = found.at - (sent_at + lag / 2)
    return _examined(worker.ledger, Trust.TRUSTED, lag=lag, skew=skew, names=_configured(worker))


def _configured(worker: WorkerContext) -> frozenset[str]:
    return frozenset(source.name for source in worker.sources.present())


def stream_status_from_ledger(ledger: Ledger) -> StreamStatus:
    """What the ledger remembers; whether it can be trusted now only the worker's identity can ask."""
    why = "only the worker's identity can ask Vault for a canary"
    return _examined(
        ledger,
        Trust.UNKNOWN,
        why,
        "Run it where the worker's identity is set: JITVAULT_WORKER_TOKEN, its file, or JITVAULT_WORKER_LOGIN.",
    )


def _examined(
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
    """The sources that are configured; without knowing which, those that ever counted."""
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
    return at.isoformat() if at else None
