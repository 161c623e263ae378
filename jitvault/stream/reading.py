"""Read the audit stream up to now, and decide whether it can be trusted.

One call to `sys/audit-hash` (a canary) proves three things when its own line appears in the stream: the stream belongs
to this Vault, the device's salt is unchanged, and the ledger is this far behind. HMACs do not authenticate lines: an
attacker who can write the audit file is outside the threat model.

There can be several sources: the files of all nodes, or connections that a receiver keeps apart. The record is their
union. The lines of a source count once a canary was found in it, so that those of another Vault, or of a standby that
answers by itself, count for nothing. A source that was truncated or replaced has to show another canary.
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
from jitvault.formats.server_product import another_server
from jitvault.ledger.model import GapKind
from jitvault.ledger.stream.model import SourceReading
from jitvault.stream.looking import look_through, take_in

PATIENCE_S = 5.0
# where only reading on is needed: a revocation must not wait for a stream that does not arrive
SHORT_PATIENCE_S = 1.0
# A line is mostly there at once. Who waits longer for it looks less often, since each look reads the ledger.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _PAUSE_PART = 0.005, 0.1, 0.1
_DEVICE_ANEW = "the audit device was made anew: its salt is another one"
_BY_LISTING = "Tasks that were held meanwhile are proven by look-ups and a listing, or not at all."
_DEVICE_ANEW_HINT = (
    "Lines from before name the same tokens by other HMACs, and acts without a device have no line. "
    f"{_BY_LISTING} Find out who made it anew."
)
_SET_UP_HINT = "Set the device up without that option: docs/operations/audit-sources.md."
# tries, each failed because another process has read on
_RACES = 100


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
            needs_canary = needs_canary or (look_around and _has_news(source, reading))
            continue
        try:
            if source.continues(reading.position):
                counted = True
                news = _read_on(worker, source, reading, until=until) or news
            else:
                needs_canary = True
        except AuditLagging:
            raise
        except AuditUntrusted as error:
            failure = failure or error
    if failure and not counted:
        raise failure
    if needs_canary or not counted:
        find_canary(worker, min(PATIENCE_S, SHORT_PATIENCE_S))
        news = True
    return news


def read_on(worker: WorkerContext, source: Source) -> bool:
    """Ingest one source up to its present end, if its lines count.

    Returns False where there was nothing new. Raises AuditUntrusted where the source cannot be read.
    """
    reading = worker.ledger.readings().get(source.name)
    return reading is not None and is_counting(source, reading) and _read_on(worker, source, reading)


def canary(worker: WorkerContext) -> Canary:
    """Send a canary and read the stream until it appears.

    One canary serves all threads that waited when it was sent. Raises AuditUntrusted when it does not appear in time.
    Before the canary is trusted, the lines of earlier own operations have to be there, and the clocks of this host and
    of Vault have to agree.
    """
    return worker.facts.canaries.of(lambda: find_canary(worker, PATIENCE_S))


def find_canary(worker: WorkerContext, patience_s: float) -> Canary:
    """Send a canary of this thread's own, and return it.

    Raises AuditUntrusted where it does not appear within `patience_s`.
    """
    try:
        return _sent_canary(worker, patience_s)
    except AuditUntrusted:
        worker.facts.lost_stream()
        raise


def _sent_canary(worker: WorkerContext, patience_s: float) -> Canary:
    search = _Search(worker)
    begun, sent = worker.facts.now(), worker.clock.monotonic()
    own_sent_at = worker.clock.now()
    missing_before = _answered_without_lines(worker)
    expected = worker.hasher.hash(new_id())
    # only after its answer is Vault's time known
    sent_at = worker.now() - timedelta(seconds=worker.clock.monotonic() - sent)
    while True:
        found = search.find(expected)
        if found is not None and not worker.ledger.is_own_canary(expected) and register_session(worker):
            # The device has a new salt: this line names the session by another HMAC, and the missing lines were
            # expected under the old salt.
            return _sent_canary(worker, patience_s)
        if found is not None:
            _check_own_lines(worker, missing_before)
            _check_own_clock(worker, found, own_sent_at, worker.clock.now())
            _check_date(found, sent_at, worker.now())
            _let_facts_count(worker, expected, begun)
            return found
        waited = worker.clock.monotonic() - sent
        if waited > patience_s or (search.is_blind and waited > min(patience_s, SHORT_PATIENCE_S)):
            raise search.failure(patience_s)
        worker.clock.sleep(min(max(_FIRST_PAUSE_S, waited * _PAUSE_PART), _LONGEST_PAUSE_S))


def _let_facts_count(worker: WorkerContext, expected: str, sent: float) -> None:
    """Let facts count by a canary, unless it is only the ledger that says that its line was read."""
    if worker.facts.has_read(expected):
        worker.facts.reached(sent, ingested=True)
    else:
        worker.facts.drop()


def register_session(worker: WorkerContext) -> bool:
    """Record this worker's token by its HMAC; return whether the salt is new.

    Operation ids count only in lines of recorded sessions. The HMAC of a constant shows whether the device still has
    the salt of all earlier lines. If the salt is new, every source begins a new segment, and a finding of no task
    reports it. Where Vault refuses to hash, nothing is trusted, and access can still be revoked.
    """
    me = worker.tokens.lookup_self()
    now = worker.now()
    is_anew = False
    _check_product(worker, now)
    with suppress(AuditUntrusted):
        is_anew = worker.ledger.record_salt(worker.hasher.hash(f"jitvault/{worker.installation}"), now)
        if is_anew:
            worker.ledger.start_segments(_DEVICE_ANEW, now, kind=GapKind.DEVICE_ANEW)
            message = f"By {now:%Y-%m-%d %H:%M:%S} UTC {_DEVICE_ANEW}. {_DEVICE_ANEW_HINT}"
            worker.ledger.finding(None, "audit_device_anew", message, now)
        worker.ledger.record_session(worker.hasher.hash(me.accessor), now)
    return is_anew


def _check_product(worker: WorkerContext, now: datetime) -> None:
    """Begin a new segment in every source where the server's product changed.

    Also records a finding of no task. Vault's storage was moved from one product to the other, or another server stands
    at the address: the lines have another form, and what happened in between has no line.
    """
    release = worker.release()
    before = worker.ledger.product()
    if release is None or release.product is before:
        return
    if why := another_server(before, release.product):
        worker.ledger.start_segments(why, now)
        message = f"By {now:%Y-%m-%d %H:%M:%S} UTC {why}. {_BY_LISTING} Find out who moved it."
        worker.ledger.finding(None, "another_server", message, now)
    worker.ledger.set_product(release.product)


class _Search:
    """Where a canary can appear, noted before the canary is sent."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._readings = worker.ledger.readings()
        self._before = {name: reading.position for name, reading in self._readings.items()}
        self._errors: list[AuditUntrusted] = []
        # where to look in sources whose lines do not count yet: at what comes from now on
        self._search_from: dict[str, Position] = {}
        for source in worker.sources.present():
            # an unreadable source raises again when it is searched
            with suppress(AuditUntrusted):
                if not is_counting(source, self._reading(source)):
                    self._search_from[source.name] = source.end()

    @property
    def is_blind(self) -> bool:
        """Whether no source at all could be read at the last look."""
        return len(self._errors) == len(self._worker.sources.present())

    def find(self, expected: str) -> Canary | None:
        """Read the sources once; return the canary, None where it is not there."""
        self._errors = []
        # trusted sources first: nothing bounds what is written to the others
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
        """Return the error that says why the canary was not found."""
        if self._errors:
            return self._errors[0]
        sources = sorted(self._worker.sources.present(), key=lambda source: source.name)
        for source in sources:
            wrong = source.wrong_form()
            # an elided listing does not hide a canary
            if wrong and wrong != ELIDED:
                return AuditUntrusted(f"nothing can be proven by {source.name}: {wrong}", hint=_SET_UP_HINT)
        names = ", ".join(source.name for source in sources)
        if not names:
            return AuditUntrusted(
                "there is no audit source: the directory that JITVAULT_AUDIT_FILE names has no files yet",
                hint="Is `jitvault audit receive --into DIR` running, and does Vault send to it?",
            )
        readings = self._worker.ledger.readings()
        if any(readings[name].position != before for name, before in self._before.items()):
            return AuditLagging(
                f"the audit stream ({names}) is more than {patience_s:.0f} s behind: lines arrive, but not yet the "
                "line of the request that was just sent"
            )
        return AuditUntrusted(
            f"the audit stream ({names}) does not show the request that was just sent to Vault: it belongs to another "
            f"Vault, its device was re-created, or it is more than {patience_s:.0f} s behind"
        )

    def _find_in(self, source: Source, expected: str) -> Canary | None:
        """Read on in one source; return the canary, None where it is not there.

        A source that shows the canary for the first time is trusted from then on. Raises AuditMissing for a missing
        file.
        """
        worker = self._worker
        reading = self._reading(source)
        if not reading.position.identity and not source.passing and not source.end().identity:
            raise AuditMissing(f"the audit file {source.name} cannot be read: No such file or directory")
        counts = is_counting(source, reading)
        if not counts and not self._shows(source, expected):
            return None
        if not counts:
            worker.ledger.start_source(source.name, reading.position)
            with worker.ledger.claim_source(source.name) as claim:
                worker.ledger.trust_source(source.name, claim=claim)
        return _read(worker, source, expected)

    def _shows(self, source: Source, expected: str) -> bool:
        """Return whether new lines of an untrusted source contain the canary."""
        position = self._search_from.setdefault(source.name, source.start())
        if source.passing and not source.has_more(position):
            return False
        # The lines may come from anyone: only those that name the canary are decoded.
        for batch in source.read(position, only=expected):
            self._search_from[source.name] = batch.position
            if any(o.kind is Kind.CANARY and o.closing and o.subject == expected for o in batch.observations):
                return True
        return False

    def _reading(self, source: Source) -> SourceReading:
        """Return how far a source was read.

        A new source begins where it says.
        """
        ledger = self._worker.ledger
        if source.name not in self._readings and source.passing:
            # Each connection to a receiver is a source: those that do not count are not recorded.
            return SourceReading(source.name, source.start(), vouched=False, read_at=None)
        if source.name not in self._readings:
            ledger.start_source(source.name, source.start())
            self._readings = ledger.readings()
        return self._readings[source.name]


def _has_news(source: Source, reading: SourceReading | None) -> bool:
    """Return whether an untrusted source has lines that were not looked at.

    False for a source that cannot be read.
    """
    with suppress(AuditUntrusted):
        return source.has_more(reading.position if reading else source.start())
    return False


def is_counting(source: Source, reading: SourceReading) -> bool:
    """Return whether a source is trusted and continues where it was read to."""
    return reading.vouched and source.continues(reading.position)


def _read_on(worker: WorkerContext, source: Source, reading: SourceReading, *, until: float | None = None) -> bool:
    """Ingest a trusted source; return False where there was nothing new."""
    if not source.has_more(reading.position):
        look_through(worker, source, reading.position)
        return False
    _read(worker, source, until=until)
    return True


def _read(
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
    worker.hasher.forget_at(source.name, position.epoch)
    look_through(worker, source, position)
    for batch in source.read(position):
        if until is not None and worker.clock.monotonic() > until:
            raise AuditLagging(f"the audit stream ({source.name}) has more lines than could be read in time")
        if _changes_devices(batch) and register_session(worker):
            # A new segment begins here: lines with the new salt do not continue those before.
            raise WrongState("the audit device was made anew")
        # before anyone learns of these lines
        take_in(worker, source, position, batch)
        seen = ledger.observe(
            source.name, batch, after=position, at=worker.now(), expected=expected, shared=worker.shared_hosts
        )
        found = seen or found
        position = batch.position
    if found is None and expected:
        # another process may have read the line, and all before it, since this one looked
        found = ledger.keep_canary(source.name, expected)
    if found is not None and expected and not worker.facts.has_read(expected):
        look_through(worker, source, ledger.readings()[source.name].position)
    return found


def _changes_devices(batch: Batch) -> bool:
    """Return whether an audit device was set up or removed.

    Lines after it can have another salt.
    """
    return any(o.kind is Kind.HAZARD and o.path.startswith("sys/audit/") for o in batch.observations)


def _answered_without_lines(worker: WorkerContext) -> set[str]:
    """Return operations of all workers that lack their audit line.

    Those that Vault answered at least a second ago. Another worker may have another clock, so only those count that the
    ledger lists before the canary is sent.
    """
    return set(worker.ledger.unseen_operations(worker.now() - timedelta(seconds=1)))


def _check_own_lines(worker: WorkerContext, missing_before: set[str]) -> None:
    """Raise AuditUntrusted where an operation's line is still missing.

    Every operation that was answered before the canary was sent has a line before the canary's. A missing one means
    that lines are filtered or lost.
    """
    if not missing_before:
        return
    missing = missing_before & _answered_without_lines(worker)
    if missing:
        raise AuditUntrusted(
            f"the audit stream lacks lines of jitvault's own acts (operation {min(missing)})",
            hint="Lines are filtered or lost on their way. When that is repaired, run `jitvault audit accept "
            "--reason WHY`.",
        )


def _check_own_clock(worker: WorkerContext, found: Canary, sent_at: datetime, seen_at: datetime) -> None:
    """Raise AuditUntrusted where this host's clock is not Vault's.

    Also records a finding. What ends then ends by Vault's clock. A grant or a proof rests on both clocks, and a host
    that is wrong about the time may be wrong about more.
    """
    off = _off(found, sent_at, seen_at)
    if off is None:
        return
    ahead = "ahead of" if off > timedelta(0) else "behind"
    own = "behind" if off > timedelta(0) else "ahead of"
    message = f"the clock of host {socket.gethostname()} was more than {MAX_SKEW.seconds} s {own} Vault's"
    # a ledger that cannot be written must not hide the error
    with suppress(LedgerUnavailable):
        worker.ledger.finding(None, "wrong_clock", message, worker.now())
    raise AuditUntrusted(
        f"Vault's clock is {abs(off).total_seconds():.0f} s {ahead} this host's",
        hint="Set both by NTP. Nothing is granted or confirmed until they agree; deadlines use Vault's clock.",
    )


def _check_date(found: Canary, sent_at: datetime, seen_at: datetime) -> None:
    """Raise AuditUntrusted where Vault's `Date` is not its audit lines' time."""
    off = _off(found, sent_at, seen_at)
    if off is not None:
        raise AuditUntrusted(
            f"the answers of Vault are dated {abs(off).total_seconds():.0f} s away from its own audit lines",
            hint="A proxy between here and Vault writes the `Date` header by its own clock: set that clock by NTP.",
        )


def _off(found: Canary, sent_at: datetime, seen_at: datetime) -> timedelta | None:
    """Return how far Vault's time of a canary lies outside the wait for it.

    Positive where Vault is ahead; None where both agree within MAX_SKEW.
    """
    off = found.at - sent_at if found.at < sent_at else found.at - seen_at
    return off if found.at < sent_at - MAX_SKEW or found.at > seen_at + MAX_SKEW else None
