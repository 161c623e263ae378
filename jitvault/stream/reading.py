"""Read the audit stream up to now, and know whether it can be trusted.

One call to `sys/audit-hash` proves three things at once when its own line appears in the stream: the stream
belongs to this Vault, the device's salt is unchanged, and this is how far behind we are. HMACs do not
authenticate lines: whoever can write the audit file is outside the threat model.

There can be several sources: the files of all nodes, or connections that a receiver keeps apart. The record is
their union. The lines of a source count once such a canary was found in it, so what somebody else sends counts for
nothing; a source that was cut or replaced has to show another one.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from datetime import datetime, timedelta

from jitvault.audit.audit_form import ELIDED
from jitvault.audit.observation import Kind
from jitvault.audit.source import Batch, Position, Source
from jitvault.audit.trail import Canary
from jitvault.context import WorkerContext, new_id
from jitvault.errors import AuditLagging, AuditMissing, AuditUntrusted, LedgerUnavailable, WrongState
from jitvault.formats.clocks import MAX_SKEW
from jitvault.formats.product import another_server
from jitvault.ledger.stream_model import SourceReading

PATIENCE_S = 5.0
# where only reading on is asked for: revoking must not wait for a stream that does not come
SHORT_PATIENCE_S = 1.0
_POLL_S = 0.005
_ANEW = "the audit device was made anew: its salt is another one"
_BY_LISTING = "Tasks that were held meanwhile are proven by look-ups and a listing, or not at all."
_ANEW_SO = (
    "Lines from before name the same tokens by other HMACs, and what was done without it has no line. "
    f"{_BY_LISTING} Find out who made it anew."
)
_SET_UP_ANEW = "Set the device up without that option: docs/operations/audit-sources.md."
# each time another has read on
_RACES = 100


def observe(worker: WorkerContext, *, look_around: bool = True, until: float | None = None) -> bool:
    """Enter into the ledger everything that the trusted sources say up to their present end; False if that is nothing.

    Where one that does not count yet has lines, it is asked whether it is ours, unless `look_around` is False: another
    node may have become the active one, and then the old one's file stays as it is and says nothing of it.

    Raises AuditLagging where more is left to read at `until`, by the worker's monotonic clock; what was read by then is
    entered. Raises AuditUntrusted where none can be read, or none of them shows that it is ours.
    """
    readings, failure = worker.ledger.readings(), None
    counted = broken = news = False
    for source in worker.sources.present():
        reading = readings.get(source.name)
        if reading is None or not reading.vouched:
            broken = broken or (look_around and _has_news(source, reading))
            continue
        try:
            if source.continues(reading.position):
                counted = True
                news = _read_on(worker, source, reading, until=until) or news
            else:
                broken = True
        except AuditLagging:
            raise
        except AuditUntrusted as error:
            failure = failure or error
    if failure and not counted:
        raise failure
    if broken or not counted:
        canary(worker, patience_s=min(PATIENCE_S, SHORT_PATIENCE_S))
        news = True
    return news


def read_on(worker: WorkerContext, source: Source) -> bool:
    """Enter what one source says up to its present end, if its lines count; False where that is nothing.

    Raises AuditUntrusted where it cannot be read.
    """
    reading = worker.ledger.readings().get(source.name)
    return reading is not None and _counts(source, reading) and _read_on(worker, source, reading)


def canary(worker: WorkerContext, *, patience_s: float | None = None) -> Canary:
    """Read the stream up to a fresh canary. Raises AuditUntrusted when it does not show up in time."""
    patience_s = PATIENCE_S if patience_s is None else patience_s
    search = _Search(worker)
    sent, own = worker.clock.monotonic(), worker.clock.now()
    owed = _answered_without_lines(worker)
    expected = worker.hasher.hash(new_id())
    # only now has Vault told the time
    sent_at = worker.now() - timedelta(seconds=worker.clock.monotonic() - sent)
    while True:
        found = search.find(expected)
        if found is not None and not worker.ledger.is_own(expected) and register_session(worker):
            # its line does not name us as those before did, and what was owed was owed under the salt before
            return canary(worker, patience_s=patience_s)
        if found is not None:
            _own_lines_are_there(worker, owed)
            _clocks_agree(worker, found, own, worker.clock.now())
            _date_agrees(found, sent_at, worker.now())
            return found
        waited = worker.clock.monotonic() - sent
        if waited > patience_s or (search.is_blind and waited > min(patience_s, SHORT_PATIENCE_S)):
            raise search.failure(patience_s)
        worker.clock.sleep(_POLL_S)


def register_session(worker: WorkerContext) -> bool:
    """Remember this worker's token by its HMAC: operation ids count only in its own lines.

    The HMAC of a constant shows whether the device still has the salt that everything before was hashed with. True if
    it is another one: then every stretch is broken, and a finding of no task says so. Where Vault hashes nothing,
    nothing is trusted, and access is taken away all the same.
    """
    me = worker.tokens.lookup_self()
    now, is_anew = worker.now(), False
    _know_the_server(worker, now)
    with suppress(AuditUntrusted):
        is_anew = worker.ledger.salt(worker.hasher.hash(f"jitvault/{worker.installation}"), now)
        if is_anew:
            worker.ledger.break_stretches(_ANEW, now)
            seen = f"By {now:%Y-%m-%d %H:%M:%S} UTC {_ANEW}. {_ANEW_SO}"
            worker.ledger.finding(None, "audit_device_anew", seen, now)
        worker.ledger.session(worker.hasher.hash(me.accessor), now)
    return is_anew


def _know_the_server(worker: WorkerContext, now: datetime) -> None:
    """Break every stretch, with a finding of no task, where the ledger was used with the other product before.

    Its storage was moved from one to the other, or another server stands at the same address: the lines have another
    form, and what happened in between has none.
    """
    release = worker.release()
    before = worker.ledger.product()
    if release is None or release.product is before:
        return
    if why := another_server(before, release.product):
        worker.ledger.break_stretches(why, now)
        seen = f"By {now:%Y-%m-%d %H:%M:%S} UTC {why}. {_BY_LISTING} Find out who moved it."
        worker.ledger.finding(None, "another_server", seen, now)
    worker.ledger.set_product(release.product)


class _Search:
    """Where a canary can show up, from before it was sent."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._readings = worker.ledger.readings()
        self._before = {name: reading.position for name, reading in self._readings.items()}
        self._errors: list[AuditUntrusted] = []
        # where to look in sources whose lines do not count yet: what comes from now on
        self._lookouts: dict[str, Position] = {}
        for source in worker.sources.present():
            # one that cannot be read says so when it is looked into
            with suppress(AuditUntrusted):
                if not _counts(source, self._reading(source)):
                    self._lookouts[source.name] = source.end()

    @property
    def is_blind(self) -> bool:
        """Whether at the last look no source could be read at all."""
        return len(self._errors) == len(self._worker.sources.present())

    def find(self, expected: str) -> Canary | None:
        self._errors = []
        # what counts first: of what does not there may be as much as strangers like
        counting = {name for name, reading in self._readings.items() if reading.vouched}
        for source in sorted(self._worker.sources.present(), key=lambda source: source.name not in counting):
            try:
                found = self._find_in(source, expected)
            except AuditUntrusted as error:
                self._errors.append(error)
                continue
            if found is not None:
                return found
        self._readings = self._worker.ledger.readings()
        return None

    def failure(self, patience_s: float) -> AuditUntrusted:
        """Why nothing was found."""
        if self._errors:
            return self._errors[0]
        sources = sorted(self._worker.sources.present(), key=lambda source: source.name)
        for source in sources:
            # that a listing is not shown keeps no canary from being found
            if (wrong := source.wrong_form()) and wrong != ELIDED:
                return AuditUntrusted(f"nothing can be proven by {source.name}: {wrong}", hint=_SET_UP_ANEW)
        names = ", ".join(source.name for source in sources)
        if not names:
            return AuditUntrusted(
                "there is no audit source: the directory that JITVAULT_AUDIT_FILE names has no files yet",
                hint="Is `jitvault audit receive --into DIR` running, and does Vault send to it?",
            )
        readings = self._worker.ledger.readings()
        if any(readings[name].position != before for name, before in self._before.items()):
            return AuditLagging(
                f"the audit stream ({names}) is more than {patience_s:.0f} s behind: lines arrive, but not yet the one "
                "that Vault was just asked for"
            )
        return AuditUntrusted(
            f"the audit stream ({names}) does not show what Vault was just asked: it belongs to another Vault, its "
            f"device was re-created, or it is more than {patience_s:.0f} s behind"
        )

    def _find_in(self, source: Source, expected: str) -> Canary | None:
        worker, reading = self._worker, self._reading(source)
        if not reading.position.identity and not source.passing and not source.end().identity:
            raise AuditMissing(f"the audit file {source.name} cannot be read: No such file or directory")
        counts = _counts(source, reading)
        if not counts and not self._shows(source, expected):
            return None
        if not counts:
            # first of all: until its receiver knows, it treats the sender as a stranger
            source.vouch()
            worker.ledger.start_source(source.name, reading.position)
            with worker.ledger.claim_source(source.name) as claim:
                worker.ledger.vouch(source.name, claim=claim)
        found = _read(worker, source, expected)
        if found is not None:
            source.vouch()
        return found

    def _shows(self, source: Source, expected: str) -> bool:
        """Whether the canary stands in what came to a source whose lines do not count yet."""
        position = self._lookouts.setdefault(source.name, source.start())
        if source.passing and not source.has_more(position):
            return False
        # its lines may be anybody's: only those that name the canary are decoded
        for batch in source.read(position, only=expected):
            self._lookouts[source.name] = batch.position
            if any(o.kind is Kind.CANARY and o.closing and o.subject == expected for o in batch.observations):
                return True
        return False

    def _reading(self, source: Source) -> SourceReading:
        """How far a source was read; a new one begins where it says."""
        ledger = self._worker.ledger
        if source.name not in self._readings and source.passing:
            # whoever connects to a receiver makes one: nothing is written down of those that do not count
            return SourceReading(source.name, source.start(), vouched=False, read_at=None)
        if source.name not in self._readings:
            ledger.start_source(source.name, source.start())
            self._readings = ledger.readings()
        return self._readings[source.name]


def _has_news(source: Source, reading: SourceReading | None) -> bool:
    """Whether a source that does not count has lines that nobody looked at; one that cannot be read has none."""
    with suppress(AuditUntrusted):
        return source.has_more(reading.position if reading else source.start())
    return False


def _counts(source: Source, reading: SourceReading) -> bool:
    return reading.vouched and source.continues(reading.position)


def _read_on(worker: WorkerContext, source: Source, reading: SourceReading, *, until: float | None = None) -> bool:
    if not source.has_more(reading.position):
        return False
    _read(worker, source, until=until)
    return True


def _read(
    worker: WorkerContext, source: Source, expected: str | None = None, *, until: float | None = None
) -> Canary | None:
    """Read on to the present end; gives the canary `expected`, also if another process read it before.

    Several may read the same at once: what one of them enters is refused to the others, who go on from there.
    """
    with worker.ledger.turn(source.name):
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
    """The same from where it was read to; raises WrongState where it was read further meanwhile."""
    ledger, found = worker.ledger, None
    for batch in source.read(position):
        if until is not None and worker.clock.monotonic() > until:
            raise AuditLagging(f"the audit stream ({source.name}) has more lines than could be read in time")
        if _is_of_a_device(batch) and register_session(worker):
            # from here on it is another stretch: what stands under the new salt does not continue the one before
            raise WrongState("the audit device was made anew")
        seen = ledger.observe(
            source.name, batch, after=position, at=worker.now(), expected=expected, shared=worker.shared_hosts
        )
        found, position = seen or found, batch.position
    return found or (ledger.keep_canary(source.name, expected) if expected else None)


def _is_of_a_device(batch: Batch) -> bool:
    """Whether an audit device was set up or taken away: lines after it can have another salt."""
    return any(o.kind is Kind.HAZARD and o.path.startswith("sys/audit/") for o in batch.observations)


def _answered_without_lines(worker: WorkerContext) -> set[str]:
    """The acts of all workers that were answered a second ago or earlier, and of which no line was read yet.

    Whoever answered them may have another clock, so it is what the ledger has before the canary is sent that counts.
    """
    return set(worker.ledger.unseen_operations(worker.now() - timedelta(seconds=1)))


def _own_lines_are_there(worker: WorkerContext, owed: set[str]) -> None:
    """Every act that was answered before the canary was sent has a line before it, or somebody filters them."""
    missing = owed & _answered_without_lines(worker) if owed else owed
    if missing:
        raise AuditUntrusted(
            f"the audit stream lacks lines of jitvault's own acts (operation {min(missing)})",
            hint="Lines are filtered or lost on their way. When that is mended: `jitvault audit accept --reason WHY`.",
        )


def _clocks_agree(worker: WorkerContext, found: Canary, sent_at: datetime, seen_at: datetime) -> None:
    """Raise AuditUntrusted, and keep a finding, where this host's clock is not Vault's.

    What is ended goes by Vault's clock then. A grant or a proof is one more thing that rests on both clocks: of a host
    that is wrong about the time nobody knows what else is wrong.
    """
    if (off := _off(found, sent_at, seen_at)) is None:
        return
    ahead = "ahead of" if off > timedelta(0) else "behind"
    own = "behind" if off > timedelta(0) else "ahead of"
    message = f"the clock of host {socket.gethostname()} was more than {MAX_SKEW.seconds} s {own} Vault's"
    # a ledger that takes nothing keeps nobody from being told
    with suppress(LedgerUnavailable):
        worker.ledger.finding(None, "wrong_clock", message, worker.now())
    raise AuditUntrusted(
        f"Vault's clock is {abs(off).total_seconds():.0f} s {ahead} this host's",
        hint="Set both by NTP. Nothing is granted or confirmed until they agree; what is due to end goes by Vault's.",
    )


def _date_agrees(found: Canary, sent_at: datetime, seen_at: datetime) -> None:
    """Raise AuditUntrusted where the `Date` of Vault's answers is not the time in its audit lines."""
    if (off := _off(found, sent_at, seen_at)) is not None:
        raise AuditUntrusted(
            f"the answers of Vault are dated {abs(off).total_seconds():.0f} s away from its own audit lines",
            hint="Something between here and Vault writes the header `Date` by its own clock: set that by NTP.",
        )


def _off(found: Canary, sent_at: datetime, seen_at: datetime) -> timedelta | None:
    """By how much Vault's time of a canary is away from both ends of the wait for it; None where they agree."""
    off = found.at - sent_at if found.at < sent_at else found.at - seen_at
    return off if found.at < sent_at - MAX_SKEW or found.at > seen_at + MAX_SKEW else None
