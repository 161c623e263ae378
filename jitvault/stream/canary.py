"""Send a canary and find it in the audit stream, which is trusted by that.

One call to `sys/audit-hash` (a canary) proves three things when its own line appears in the stream: the stream belongs
to this Vault, the device's salt is unchanged, and the ledger is this far behind. HMACs do not authenticate lines: an
attacker who can write the audit file is outside the threat model.

The lines of a source count once a canary was found in it, so that what others send counts for nothing. A source that
was truncated or replaced has to show another canary.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from datetime import datetime, timedelta

from jitvault.audit.audit_form import ELIDED
from jitvault.audit.observation import Kind
from jitvault.audit.source import Position, Source
from jitvault.audit.trail import Canary
from jitvault.context import WorkerContext, new_id
from jitvault.errors import AuditLagging, AuditMissing, AuditUntrusted, LedgerUnavailable
from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.stream.model import SourceReading
from jitvault.stream.session import register_session
from jitvault.stream.source_reading import ingest, is_counted

PATIENCE_S = 5.0
# where only reading on is needed: a revocation must not wait for a stream that does not arrive
SHORT_PATIENCE_S = 1.0
_POLL_S = 0.005
_SET_UP_HINT = "Set the device up without that option: docs/operations/audit-sources.md."


def canary(worker: WorkerContext, *, patience_s: float | None = None) -> Canary:
    """Send a canary and read the stream until it appears.

    Raises AuditUntrusted when it does not appear in time. Before the canary is trusted, the lines of earlier own
    operations have to be there, and the clocks of this host and of Vault have to agree.
    """
    patience_s = PATIENCE_S if patience_s is None else patience_s
    search = _Search(worker)
    sent = worker.clock.monotonic()
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
            return canary(worker, patience_s=patience_s)
        if found is not None:
            _check_own_lines(worker, missing_before)
            _check_own_clock(worker, found, own_sent_at, worker.clock.now())
            _check_date(found, sent_at, worker.now())
            return found
        waited = worker.clock.monotonic() - sent
        if waited > patience_s or (search.is_blind and waited > min(patience_s, SHORT_PATIENCE_S)):
            raise search.failure(patience_s)
        worker.clock.sleep(_POLL_S)


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
                if not is_counted(source, self._reading(source)):
                    self._search_from[source.name] = source.end()

    @property
    def is_blind(self) -> bool:
        """Whether no source at all could be read at the last look."""
        return len(self._errors) == len(self._worker.sources.present())

    def find(self, expected: str) -> Canary | None:
        """Read the sources once; return the canary, None where it is not there."""
        self._errors = []
        # trusted sources first: strangers can fill the others without limit
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
        counts = is_counted(source, reading)
        if not counts and not self._shows(source, expected):
            return None
        if not counts:
            # before anything else: until its receiver knows, it treats the sender as a stranger
            source.vouch()
            worker.ledger.start_source(source.name, reading.position)
            with worker.ledger.claim_source(source.name) as claim:
                worker.ledger.trust_source(source.name, claim=claim)
        found = ingest(worker, source, expected)
        if found is not None:
            source.vouch()
        return found

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
