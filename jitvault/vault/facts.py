"""What Vault answered to reads, for as long as a turn may go by it.

A turn asks several questions about the same people, keys and documents. It reads each of them once: an answer counts
that was asked for after the turn began. An answer that is a fact counts for longer, and for the turns of other threads:
as long as the audit stream shows no change of it, for each turn after whose trigger a canary was sent, once the stream
was read up to that canary. A write makes a fact invalid from the line of its request until a read that began after the
line of its response. Nothing is older than `AGE_S`, whatever the stream shows: a restored storage has no line, and with
several audit devices a line may be missing in the one that is read.

The memory is that of one process, which looks through each line itself, whoever ingested it. Everything is dropped
where lines may be missing. docs/architecture.md, "Facts", has what depends on what.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from jitvault.audit.changes import EVERYTHING
from jitvault.audit.observation import Kind
from jitvault.audit.source import Batch, Position
from jitvault.audit.trail import Canary
from jitvault.vault.one_for_all import OneForAll

RECENT_S = 1.0
"""How old an answer may be at most, in seconds, that no stream keeps."""
AGE_S = 10.0
"""How old a fact may be at most, in seconds, and how long a write without a response keeps facts from counting."""
_WORTH_A_CANARY = 4
"""From how many facts on a canary is cheaper than reading them again: it costs a request and a look into the stream."""

T = TypeVar("T")


class _Turn(threading.local):
    """The present turn of one thread: when it began, and when that which it is for had happened."""

    began = math.inf
    trigger = math.inf
    is_due = False


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer. It is as old as its question, since a change on the way may not be in it."""

    asked: float
    answer: Any
    own: tuple[str, ...]
    """Where this process would write it."""
    places: tuple[str, ...]
    """Where a line shows a change of it; empty for an answer that is no fact."""
    read: float
    """When this process asked, or had written it itself."""


class Facts:
    """Answers to reads, shared by the threads of a process.

    Outside of a turn every read goes to Vault. An error is not kept: the next caller asks again. `may_keep` says
    whether the stream shows every change at all.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, may_keep: Callable[[], bool] = lambda: True
    ) -> None:
        self.now = clock
        self.drops = 0
        """How often everything was dropped, because lines may be missing or another server answers."""
        self.canaries = OneForAll[Canary]()
        self.short_canaries = OneForAll[Canary]()
        self.looks = OneForAll[None]()
        self._may_keep = may_keep
        self._lock = threading.Lock()
        self._answers: dict[Hashable, _Known] = {}
        # when this process wrote
        self._written: dict[str, float] = {}
        # when the last line of a change was read
        self._changed: dict[str, float] = {}
        # own writes whose content is known, by operation id and place, and when they were sent
        self._own_writes: dict[tuple[str, str], float] = {}
        # requests without a response, and when their line was read
        self._open: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._read_to: dict[str, Position] = {}
        # the HMACs of canaries and the lines of created tokens that were read, and when
        self._marks: dict[str, float] = {}
        # when the newest canary was sent up to which lines were read, and were ingested as well
        self._reached = self._ingested = -math.inf
        self._is_arriving = True
        self._address = ""
        self._swept = clock()
        self._turn = _Turn()

    # -- turns ---------------------------------------------------------------------------------------------

    @contextmanager
    def turn(self, *shown: str) -> Iterator[None]:
        """Let this thread go by what is true from now on.

        `shown` are the places of all documents that the turn is for. Where this process has lately read a line of each,
        the turn goes by facts that were true a second ago: a canary that was sent since then serves it.
        """
        now = self.now()
        with self._lock:
            is_shown = bool(shown) and all(place in self._changed for place in shown)
        with self._set(now, now - RECENT_S if is_shown else now, is_due=False):
            yield

    @contextmanager
    def since(self, sent: float) -> Iterator[None]:
        """Let this thread go by what is true from `sent` on, when it sent an act that it asks about."""
        with self._set(self.now(), sent, is_due=False):
            yield

    @contextmanager
    def due(self, late_s: float) -> Iterator[None]:
        """Let this thread's turn go by facts that were true `late_s` seconds ago, at most a second.

        What the turn is for was due then: one canary serves all turns that were due before it was sent.
        """
        turn = self._turn
        was_due = self.now() - min(late_s, RECENT_S)
        with self._set(turn.began, min(turn.trigger, was_due), is_due=was_due < turn.began):
            yield

    @contextmanager
    def _set(self, began: float, trigger: float, *, is_due: bool) -> Iterator[None]:
        turn = self._turn
        before = (turn.began, turn.trigger, turn.is_due)
        turn.began, turn.trigger, turn.is_due = began, trigger, is_due
        try:
            yield
        finally:
            turn.began, turn.trigger, turn.is_due = before

    @property
    def is_due(self) -> bool:
        """Whether this thread's turn goes by what was true when it was due."""
        return self._turn.is_due

    @property
    def is_covered(self) -> bool:
        """Whether the stream was read up to a canary that was sent after this turn's trigger."""
        return self._reached >= self._turn.trigger

    def is_ingested(self, late_s: float) -> bool:
        """Return whether the ledger has the stream up to a canary that was sent after this turn's trigger.

        The canary was also sent in the last `late_s` seconds.
        """
        return self._ingested >= max(self._turn.trigger, self.now() - late_s)

    @property
    def needs_canary(self) -> bool:
        """Whether a canary would spare this turn more than it costs."""
        if self.is_covered or not self._is_arriving or self._turn.trigger == math.inf:
            return False
        now = self.now()
        with self._lock:
            kept = sum(self._is_kept(known, now) for known in self._answers.values())
        return kept >= _WORTH_A_CANARY

    # -- answers -------------------------------------------------------------------------------------------

    def of(
        self,
        key: Hashable,
        ask: Callable[[], T],
        *,
        own: tuple[str, ...] = (),
        places: Callable[[T], tuple[str, ...]] = lambda _: (),
    ) -> T:
        """Return an answer for `key` that counts in this turn, or ask.

        `own` says where this process would write it, and `places` where a line shows a change of the answer.
        """
        if self._turn.began == math.inf:
            return ask()
        now = self.now()
        with self._lock:
            known = self._answers.get(key)
            if known is not None and self._counts(known, now):
                found: T = known.answer
                return found
        # several threads may ask at once: none waits for another thread's connection
        answer = ask()
        with self._lock:
            self._answers[key] = _Known(now, answer, own, places(answer), read=now)
            self._forget_old(now)
        return answer

    def recent(self, key: Hashable, ask: Callable[[], T]) -> T:
        """Return an answer that is younger than a second, whatever it is about, or ask."""
        now = self.now()
        with self._lock:
            known = self._answers.get(key)
            if known is not None and now - known.asked < RECENT_S:
                found: T = known.answer
                return found
        answer = ask()
        with self._lock:
            self._answers[key] = _Known(now, answer, (), (), read=now)
        return answer

    def also(self, key: Hashable, known: Hashable) -> None:
        """Let the answer for `known` answer `key` as well."""
        with self._lock:
            if (answer := self._answers.get(known)) is not None:
                self._answers[key] = answer

    @contextmanager
    def own_write(
        self, op: str, place: str
    ) -> Iterator[Callable[[Hashable, Any, tuple[str, ...], tuple[str, ...]], None]]:
        """Write the document of a place under an operation id; yield what takes the answer of a read after it.

        The write's own line does not change that answer, and any other line does. Where the block raises, nobody knows
        what is there: the write counts as anybody's.
        """
        sent = self.now()
        with self._lock:
            self._own_writes[op, place] = sent

        def know(key: Hashable, answer: Any, own: tuple[str, ...], places: tuple[str, ...]) -> None:
            with self._lock:
                before = self._answers.pop(key, None)
                # of two writes or a read at the same time, nobody knows which was the last
                if before is None or before.read < sent:
                    self._answers[key] = _Known(sent, answer, own, places, read=self.now())

        try:
            yield know
        except BaseException:
            with self._lock:
                self._own_writes.pop((op, place), None)
            raise

    def _counts(self, known: _Known, now: float) -> bool:
        if known.read < self._last(self._written, known.own):
            return False
        if known.asked >= self._turn.began and now - known.asked < RECENT_S:
            return True
        return self.is_covered and self._is_kept(known, now)

    def _is_kept(self, known: _Known, now: float) -> bool:
        """Return whether an answer is a fact of which no line so far shows a change."""
        if not known.places or now - known.asked >= AGE_S or known.asked < self._last(self._changed, known.places):
            return False
        return all(set(places).isdisjoint(known.places) for _, places in self._open.values())

    @staticmethod
    def _last(times: Mapping[str, float], places: Iterable[str]) -> float:
        return max((times.get(place, -math.inf) for place in places), default=-math.inf)

    # -- changes -------------------------------------------------------------------------------------------

    def wrote(self, *places: str) -> None:
        """Note that something was written now: no answer counts any more that was asked for before."""
        with self._lock:
            self._written |= dict.fromkeys(places, self.now())

    def begin_at(self, source: str, position: Position) -> None:
        """Drop everything, and read a source from there on: lines before may be missing."""
        with self._lock:
            self._read_to[source] = position
            self._drop()

    def read_to(self, source: str) -> Position | None:
        """Return how far this process has read a source; None where it has not."""
        with self._lock:
            return self._read_to.get(source)

    def has_read(self, mark: str) -> bool:
        """Return whether the line was read of a canary, by its HMAC, or of a token's creation, and all before."""
        with self._lock:
            return mark in self._marks

    def saw(self, source: str, after: Position, batch: Batch) -> None:
        """Take in which facts the lines may change that follow `after`.

        Nothing is done where another thread has taken them in.
        """
        now = self.now()
        with self._lock:
            if self._read_to.get(source) != after:
                return
            self._read_to[source] = batch.position
            if batch.gaps:
                self._drop()
            for o in batch.observations:
                if o.closing and o.kind in (Kind.CANARY, Kind.TOKEN_CREATED):
                    self._marks[o.subject if o.kind is Kind.CANARY else o.line] = now
            for change in batch.changes:
                # a document's own place is the first
                write = (change.op, change.places[0])
                if write not in self._own_writes:
                    self._changed |= dict.fromkeys(change.places, now)
                if change.closing:
                    self._open.pop(change.request_id, None)
                    # it has one response: others may use the same operation id
                    self._own_writes.pop(write, None)
                else:
                    self._open[change.request_id] = (now, change.places)
            self._forget_old(now)

    def reached(self, sent: float, *, ingested: bool) -> None:
        """Note that the stream was read up to a canary that was sent at `sent`, by the clock of `now`.

        `ingested` says that the ledger has the lines.
        """
        may_keep = self._may_keep()
        with self._lock:
            self._is_arriving = True
            if ingested:
                self._ingested = max(self._ingested, sent)
            if may_keep:
                self._reached = max(self._reached, sent)

    def is_behind(self) -> None:
        """Let no turn wait for the stream to spare requests, until a canary comes that was needed in any case."""
        with self._lock:
            self._is_arriving = False

    def lost_stream(self) -> None:
        """Drop everything: a canary did not come, so the stream shows nothing at the moment."""
        with self._lock:
            self._is_arriving = False
            self._drop()

    def asks(self, address: str) -> None:
        """Note which server is asked now; everything is dropped where another one was asked before."""
        with self._lock:
            if self._address not in ("", address):
                self._drop()
            self._address = address

    def drop(self) -> None:
        """Drop everything: lines may be missing, or another server answers."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        self.drops += 1
        self._changed[EVERYTHING] = self.now()

    def _forget_old(self, now: float) -> None:
        if now - self._swept < RECENT_S:
            return
        self._swept = now
        self._answers = {key: known for key, known in self._answers.items() if now - known.asked < AGE_S}
        self._written = {place: at for place, at in self._written.items() if now - at < AGE_S}
        self._own_writes = {write: at for write, at in self._own_writes.items() if now - at < AGE_S}
        self._changed = {place: at for place, at in self._changed.items() if now - at < AGE_S}
        self._open = {request: (at, places) for request, (at, places) in self._open.items() if now - at < AGE_S}
        self._marks = {mark: at for mark, at in self._marks.items() if now - at < AGE_S}
