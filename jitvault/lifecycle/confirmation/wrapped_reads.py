"""Reads of a task's paths that had their credential wrapped, so that their own lines do not show it.

The lease shows only where the wrapping is opened, and the login name is an HMAC there; opened as a JWT by the body, not
even the lease shows whose it is (docs/vault-facts.md, "Audit entries"). What Vault lists afterwards says that no lease
is left, and nothing about the target: a login that was dropped under an open session, or not at all, has no lease any
more. So the target has to be asked. It names its credentials with the second in which Vault made them, and that second
lies between the request and its answer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappop, heappush

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import AuditTrail, Canary, Point, done
from jitvault.engines.interface import ProbeResult
from jitvault.lifecycle.confirmation.hazards import shown_act, written_to
from jitvault.lifecycle.confirmation.timeline import Credential
from jitvault.model.states import Verdict

CLOCK_STEP = timedelta(seconds=1)
"""By how much Vault's clock may have been set back between a request's line and the making of its credential."""

NOBODY = "(of a wrapped read)"
"""The name under which the target is asked about a credential whose name nobody knows."""


@dataclass(frozen=True, slots=True)
class WrappedRead:
    """One read that had its credential wrapped, made between `begun` and `ended` by Vault's clock.

    `line` is the digest of its first audit line. `lease_id` is the lease that an unwrap of its answer showed, if any.
    `in_gap`: no line says that there was one, and a gap in the stream may hide it. `unanswered`: no line says what it
    gave, in a wrapping or not.
    """

    line: str
    path: str
    begun: datetime
    ended: datetime
    lease_id: str
    in_gap: bool = False
    unanswered: bool = False

    def may_have_made(self, at: datetime) -> bool:
        """Whether a credential that was made in the second that began at `at` may be the one of this read."""
        return self.begun - CLOCK_STEP < at + timedelta(seconds=1) and at <= self.ended + CLOCK_STEP

    def __str__(self) -> str:
        if self.in_gap:
            return f"a read of {self.path} that a gap in the stream may hide"
        if self.unanswered:
            return f"the read of {self.path} at {self.begun.isoformat()} that has no answer (line {self.line[:16]})"
        return f"the read of {self.path} in a wrapping at {self.begun.isoformat()} (line {self.line[:16]})"


def wrapped_reads(
    tokens: frozenset[str], trail: AuditTrail, *, leased: frozenset[str], settle: timedelta
) -> tuple[WrappedRead, ...]:
    """Return the wrapped reads of `leased` paths by a task's tokens, in the order of the stream.

    `settle` is the server's longest request: for that long a read without an answer may have made its credential. What
    was denied or failed gave the agent none.
    """
    unwraps = _Unwraps(trail.observations)
    found: list[WrappedRead] = []
    for lines in _requests(tokens, trail, leased):
        first, last = lines[0], lines[-1]
        if is_wrapped(lines) and not any(line.closing and line.failed for line in lines):
            found.append(
                WrappedRead(
                    line=first.line,
                    path=first.path,
                    begun=first.at - settle if first.closing else first.at,
                    ended=last.at if last.closing else first.at + settle,
                    lease_id=unwraps.lease_of(lines),
                )
            )
    return tuple(found)


def unseen_reads(paths: Iterable[str], begun: datetime, ended: datetime) -> tuple[WrappedRead, ...]:
    """Return one read for each of `paths`, of which no line is left: over a gap nobody knows whether there was any.

    What Vault lists shows leases alone, and a login that was dropped under an open session has none any more.
    """
    return tuple(WrappedRead(f"gap: {path}", path, begun, ended, "", in_gap=True) for path in sorted(paths))


def unanswered_reads(lines: Iterable[Observation], settle: timedelta) -> tuple[WrappedRead, ...]:
    """Return one read for each of these request lines, whose answers never came.

    A wrapping of less than a second shows in the answer alone, and no listing shows what was gone before.
    """
    return tuple(
        WrappedRead(line.line, line.path, line.at, line.at + settle, "", unanswered=True)
        for line in lines
        if not is_wrapped([line])
    )


def unexplained(made: Mapping[str, datetime], reads: Iterable[WrappedRead]) -> list[str]:
    """Return the leases that none of `reads` can have made; `made` has each with Vault's time of its issue.

    All of them are of one path. A read makes one lease, so of two leases that one read can have made one is left over.
    """
    waiting = sorted(reads, key=lambda read: read.begun, reverse=True)
    open_: list[datetime] = []
    left: list[str] = []
    for lease_id, at in sorted(made.items(), key=lambda pair: (pair[1], pair[0])):
        while waiting and waiting[-1].begun <= at:
            heappush(open_, waiting.pop().ended)
        while open_ and open_[0] < at:
            heappop(open_)
        if open_:
            # the one that is over first can explain the fewest of those that come
            heappop(open_)
        else:
            left.append(lease_id)
    return left


def made_by(reads: Iterable[WrappedRead]) -> Callable[[datetime], bool]:
    """Return what says whether a time lies between the request and the answer of one of `reads`."""
    begun: list[datetime] = []
    ended: list[datetime] = []
    for read in sorted(reads, key=lambda read: read.begun):
        if ended and read.begun <= ended[-1]:
            ended[-1] = max(ended[-1], read.ended)
        else:
            begun.append(read.begun)
            ended.append(read.ended)

    def is_within(at: datetime) -> bool:
        n = bisect_right(begun, at)
        return n > 0 and at <= ended[n - 1]

    return is_within


def is_wrapped(lines: Iterable[Observation]) -> bool:
    """Return whether a request asked for its answer in a wrapping, or got it in one."""
    return any("wrapped" in line.detail or line.wrapping for line in lines)


def _requests(tokens: frozenset[str], trail: AuditTrail, leased: frozenset[str]) -> list[list[Observation]]:
    """The lines of each request to a leased path, without those that were denied and those that show their lease."""
    requests: dict[str, list[Observation]] = {}
    for line in trail.observations:
        if line.actor in tokens and line.path in leased:
            requests.setdefault(line.request_id or line.line, []).append(line)
    return [lines for lines in requests.values() if all(line.kind is Kind.USED for line in lines)]


class _Unwraps:
    """Which lease shows where a wrapping is opened, also where it was moved into another one before."""

    def __init__(self, lines: Iterable[Observation]) -> None:
        self._leases: dict[str, str] = {}
        self._moved: dict[str, list[str]] = {}
        for line in lines:
            if line.kind is Kind.LEASE_ISSUED and line.token and done(line):
                self._leases.setdefault(line.token, line.subject)
            elif line.kind is Kind.REWRAPPED and line.alias:
                self._moved.setdefault(line.token, []).append(line.alias)

    def lease_of(self, lines: Iterable[Observation]) -> str:
        """The lease of the request with these lines; empty where none showed."""
        waiting = [line.wrapping for line in lines if line.wrapping]
        seen: set[str] = set()
        while waiting:
            wrapping = waiting.pop()
            if wrapping in self._leases:
                return self._leases[wrapping]
            if wrapping not in seen:
                seen.add(wrapping)
                waiting += self._moved.get(wrapping, ())
        return ""


def asked_of_target(
    read: WrappedRead, unknown: Mapping[str, datetime], probed: Mapping[str, ProbeResult]
) -> ProbeResult:
    """Return what the target says of a read: refused where it has no credential that may be the read's.

    `unknown` are the credentials that the target still has and that no line shows as issued to anybody, with the second
    in which each was made. `probed` is what the probe said of those that may be a read's, by name, and by `NOBODY` of
    what is open and may belong to one that the target does not have any more.
    """
    own = sorted(name for name, at in unknown.items() if read.may_have_made(at))
    for name in (*own, NOBODY):
        said = probed.get(name)
        if said is not None and said.is_over:
            continue
        whose = f"{name} is of no known lease and may have come from {read}" if name in own else str(read)
        evidence = f"{whose}: {said.evidence if said else 'the probe said nothing of it'}"
        return ProbeResult(refused=False, open_sessions=said.open_sessions if said else None, evidence=evidence)
    evidence = f"the target lets in no credential that may have come from {read}, and has no session of one"
    return ProbeResult(refused=True, open_sessions=0, evidence=evidence)


def unproven_read(reads: Sequence[WrappedRead], asked: Mapping[str, ProbeResult]) -> str | None:
    """Return why the credential of a read is not proven dead, None where each is or has a lease of its own to prove.

    `asked` is what the target said, by the digest of the read's line; what is not in it was not asked.
    """
    for read in reads:
        if read.lease_id:
            continue
        said = asked.get(read.line)
        if said is None:
            return f"the lease of {read} never showed, and no target was asked for it"
        if not said.is_over:
            return said.evidence
    return None


def written_since(tokens: frozenset[str], trail: AuditTrail, *, mount: str, path: str, newest: Canary) -> str | None:
    """Return the write to the mount, since a task's token was made, that can have changed how a credential of `path` is
    named; None where there was none.
    """
    created = (o for o in trail.observations if o.kind is Kind.TOKEN_CREATED and o.subject in tokens)
    begun = next(map(Point.of, created), None)
    credential = Credential(
        kind="lease",
        subject="",
        lookup_subject="",
        mount=mount,
        claimed=Verdict.LIVE,
        lookup_ops=frozenset(),
        gone_errors=frozenset(),
        lease_path=f"{path}/",
    )
    last = Point(newest.place, newest.at)
    written = written_to(credential, trail, begun, last) if begun else None
    return shown_act(written) if written else None
