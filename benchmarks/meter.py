"""Where the time of an act of jitvault goes: every Vault request, ledger transaction and read of the audit file.

It is measured from outside, at the last function that is jitvault's or a library's public one, so what is
measured is the product as it is.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import Engine, event

from benchmarks.measure import Figure
from jitvault.audit.files.file_source import FileSource
from jitvault.ledger.storage.database import Database
from jitvault.vault.http_transport import Session

VAULT, COMMIT, LEDGER_READ, AUDIT = "vault", "commit", "ledger_read", "audit"
STATEMENT = "statement"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Request:
    """One request to Vault, enough to send it again. Its body may hold secrets: it is never shown."""

    method: str
    path: str
    body: Any = field(repr=False)
    wrap_ttl: str | None

    @classmethod
    def of(cls, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Request:
        path = unquote(urlsplit(url).path).removeprefix("/v1/")
        return cls(method, path, json.loads(body) if body else None, headers.get("X-Vault-Wrap-TTL"))

    @property
    def shown(self) -> str:
        """Method and path, with what differs from task to task left out."""
        path = re.sub(r"bench-[0-9a-f]+", "<task>", _UUID.sub("<id>", self.path))
        if path.startswith("sys/leases/revoke/"):
            path = re.sub(r"/[^/]+$", "/<lease>", path)
        return f"{self.method} {path}"


@dataclass(slots=True)
class Meter:
    """What was done in one measured stretch. `seconds` and `calls` are by kind, `what` by kind and name."""

    total_s: float = 0.0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: Counter[str] = field(default_factory=Counter)
    what: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests: list[Request] = field(default_factory=list)

    def add(self, kind: str, name: str, seconds: float) -> None:
        self.seconds[kind] += seconds
        self.calls[kind] += 1
        self.what[kind, name] += 1

    @property
    def total_ms(self) -> float:
        return self.total_s * 1000

    def ms(self, kind: str) -> float:
        return self.seconds[kind] * 1000

    @property
    def rest_ms(self) -> float:
        """What is neither of the four: JSON, policy, signatures, waiting."""
        return self.total_ms - sum(self.ms(kind) for kind in (VAULT, COMMIT, LEDGER_READ, AUDIT))


@contextmanager
def metered() -> Iterator[Meter]:
    """Measure everything that this process does inside. Not for two threads at once."""
    meter = Meter()
    with (
        _counted_statements(meter),
        _instead(Session, "send", _timed_send(meter)),
        _instead(Database, "write", _timed_write(meter)),
        _instead(Database, "read", _timed_read(meter)),
        _instead(FileSource, "read", _timed_source(meter)),
    ):
        started = time.perf_counter()
        try:
            yield meter
        finally:
            meter.total_s = time.perf_counter() - started


def component_figures(name: str, meters: list[Meter], most: Mapping[str, int]) -> list[Figure]:
    """Return the parts of an act, as medians: where its time went, and how often it asked.

    `most` has the bar of each count: Vault requests, ledger commits and SQL statements. Counts are the same on every
    machine, so that they show a request too many where times drown it.
    """
    share = f"{name}, {len(meters)} times"
    parts = {VAULT: "Vault requests", COMMIT: "ledger commits", LEDGER_READ: "ledger reads", AUDIT: "audit reading"}
    figures = [
        Figure(f"{name}_{kind}_ms", median(m.ms(kind) for m in meters), "ms", f"{said} within one {share}")
        for kind, said in parts.items()
    ]
    figures.append(
        Figure(
            f"{name}_rest_ms", median(m.rest_ms for m in meters), "ms", f"the rest, waiting included, of one {share}"
        )
    )
    for kind, unit in ((VAULT, "requests"), (COMMIT, "commits"), (STATEMENT, "statements")):
        calls = median(m.calls[kind] for m in meters)
        figures.append(Figure(f"{name}_{kind}_calls", calls, unit, f"one {share}", bar=most[kind]))
    return figures


@contextmanager
def _counted_statements(meter: Meter) -> Iterator[None]:
    """Count every SQL statement that SQLAlchemy sends to any database of this process."""

    def count(*_: Any) -> None:
        meter.calls[STATEMENT] += 1

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", count)


@contextmanager
def _instead(owner: type, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, wrap(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


def _timed_send(meter: Meter) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(send: Callable[..., Any]) -> Callable[..., Any]:
        def timed(self: object, *request: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return send(self, *request, **options)
            finally:
                seconds = time.perf_counter() - started
                sent = Request.of(*request[:4])
                meter.requests.append(sent)
                meter.add(VAULT, sent.shown, seconds)

        return timed

    return wrap


def _timed_write(meter: Meter) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(write: Callable[..., Any]) -> Callable[..., Any]:
        def timed(self: object, unit: Callable[..., Any], **how: Any) -> Any:
            name, started = _who(1), time.perf_counter()
            try:
                return write(self, unit, **how)
            finally:
                meter.add(COMMIT, name, time.perf_counter() - started)

        return timed

    return wrap


def _timed_read(meter: Meter) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(read: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def timed(self: object) -> Iterator[Any]:
            # contextlib's __enter__ stands between us and whoever asked
            name, started = _who(2), time.perf_counter()
            try:
                with read(self) as connection:
                    yield connection
            finally:
                meter.add(LEDGER_READ, name, time.perf_counter() - started)

        return timed

    return wrap


def _timed_source(meter: Meter) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(read: Callable[..., Any]) -> Callable[..., Any]:
        def timed(self: object, *args: Any, **named: Any) -> Iterator[Any]:
            batches = read(self, *args, **named)
            while True:
                started = time.perf_counter()
                batch = next(batches, None)
                meter.add(AUDIT, "read" if batch else "end", time.perf_counter() - started)
                if batch is None:
                    return
                # what is done with the batch is not part of reading it
                yield batch

        return timed

    return wrap


def _who(above: int) -> str:
    """The ledger's function that asks, with the event it writes or the claim it takes."""
    frame = sys._getframe(above + 1)
    change, claimed = frame.f_locals.get("change"), frame.f_locals.get("what")
    detail = getattr(change, "event", None) or (claimed and claimed.rpartition(" ")[0])
    return f"{frame.f_code.co_name} {detail}" if detail else frame.f_code.co_name
