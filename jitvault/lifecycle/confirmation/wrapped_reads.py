"""Find wrapped reads.

The own audit lines of such a read of a task's path do not show its credential.

The lease shows only where the wrapping is unwrapped, and the login name is an HMAC there. When a JWT wrapping token is
given in the body, the unwrap does not even show whose lease it is (docs/vault-facts.md, "Audit entries"). Vault's lease
list afterwards says that no lease is left, but nothing about the target: a login that was dropped under an open
session, or was not dropped at all, has no lease any more. So the target has to be asked. It names its credentials with
the second in which Vault made them, and that second lies between the read's request and its answer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappop, heappush

from msgspec import structs

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import AuditTrail, Canary, Point, done
from jitvault.engines.interface import ProbeResult
from jitvault.formats.canonical_json import sha256_hex
from jitvault.lifecycle.confirmation.hazards import first_write_to_mount
from jitvault.lifecycle.confirmation.timeline import Credential
from jitvault.model.evidence import (
    MOST_SIGNED,
    MOST_TEXT,
    Evidence,
    Lack,
    Missing,
    Read,
    ReadKind,
    SignedAnswer,
    TargetAnswer,
)
from jitvault.model.proof_check import TARGET_N, Check
from jitvault.model.states import Verdict

CLOCK_STEP = timedelta(seconds=1)
"""By how much Vault's clock may have been set back between a request's line and the making of its credential."""

UNNAMED = "(of a wrapped read)"
"""The name under which the target is asked about sessions of a credential whose name is not known."""


@dataclass(frozen=True, slots=True)
class WrappedRead:
    """A read whose credential was wrapped, made between `begun` and `ended`.

    Both times are by Vault's clock. `line` is the digest of the read's first audit line. `lease_id` is the lease that
    an unwrap of its answer showed, if any. `in_gap` says that no line shows the read, but a gap in the stream may hide
    one. `unanswered` says that no line shows what the read returned, wrapped or not.
    """

    line: str
    path: str
    begun: datetime
    ended: datetime
    lease_id: str
    in_gap: bool = False
    unanswered: bool = False

    def may_have_made(self, at: datetime) -> bool:
        """Return whether this read may have made a credential at `at`.

        `at` is the start of the second in which the credential was made.
        """
        return self.begun - CLOCK_STEP < at + timedelta(seconds=1) and at <= self.ended + CLOCK_STEP

    @property
    def shown(self) -> Read:
        """Return what evidence says of this read."""
        if self.in_gap:
            return Read(ReadKind.IN_GAP, self.path)
        how = ReadKind.UNANSWERED if self.unanswered else ReadKind.WRAPPED
        return Read(how, self.path, self.begun, self.line)


def wrapped_reads(
    tokens: frozenset[str], trail: AuditTrail, *, leased: frozenset[str], settle: timedelta
) -> tuple[WrappedRead, ...]:
    """Return the wrapped reads of `leased` paths by `tokens`, in stream order.

    `settle` is the server's longest request: for that long a read without an answer may have made its credential. A
    read that was denied or failed returned none.
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
    """Return one assumed read for each of `paths`, as a gap may hide one.

    Vault's lease list does not rule it out: a login that was dropped under an open session has no lease any more.
    """
    return tuple(WrappedRead(f"gap: {path}", path, begun, ended, "", in_gap=True) for path in sorted(paths))


def unanswered_reads(lines: Iterable[Observation], settle: timedelta) -> tuple[WrappedRead, ...]:
    """Return one read for each of these request lines, which got no answer.

    That a wrapping was for less than a second shows in the answer alone, and a listing does not show what was gone
    before it.
    """
    return tuple(
        WrappedRead(line.line, line.path, line.at, line.at + settle, "", unanswered=True)
        for line in lines
        if not is_wrapped([line])
    )


def unexplained(made: Mapping[str, datetime], reads: Iterable[WrappedRead]) -> list[str]:
    """Return the leases that none of `reads` can have made.

    `made` has Vault's issue time of each lease; all leases and reads are of one path. A read makes one lease, so of two
    leases that only one read can have made, one is returned.
    """
    waiting = sorted(reads, key=lambda read: read.begun, reverse=True)
    open_ends: list[datetime] = []
    without_read: list[str] = []
    for lease_id, at in sorted(made.items(), key=lambda pair: (pair[1], pair[0])):
        while waiting and waiting[-1].begun <= at:
            heappush(open_ends, waiting.pop().ended)
        while open_ends and open_ends[0] < at:
            heappop(open_ends)
        if open_ends:
            # use the read that ended first: it can explain the fewest of the later leases
            heappop(open_ends)
        else:
            without_read.append(lease_id)
    return without_read


def made_by(reads: Iterable[WrappedRead]) -> Callable[[datetime], bool]:
    """Return a function that says whether a time lies within one of `reads`.

    A time lies within a read when it is between the read's request and its answer.
    """
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
    """Return whether a request asked for a wrapped answer, or got one."""
    return any("wrapped" in line.detail or line.wrapping for line in lines)


def _requests(tokens: frozenset[str], trail: AuditTrail, leased: frozenset[str]) -> list[list[Observation]]:
    """Return the lines of each request to a leased path, grouped by request.

    Requests that were denied, and requests whose lines show their lease, are left out.
    """
    requests: dict[str, list[Observation]] = {}
    for line in trail.observations:
        if line.actor in tokens and line.path in leased:
            requests.setdefault(line.request_id or line.line, []).append(line)
    return [lines for lines in requests.values() if all(line.kind is Kind.USED for line in lines)]


class _Unwraps:
    """Finds the lease that an unwrap showed.

    The lease is found even if the wrapping was rewrapped.
    """

    def __init__(self, lines: Iterable[Observation]) -> None:
        self._leases: dict[str, str] = {}
        self._moved: dict[str, list[str]] = {}
        for line in lines:
            if line.kind is Kind.LEASE_ISSUED and line.token and done(line):
                self._leases.setdefault(line.token, line.subject)
            elif line.kind is Kind.REWRAPPED and line.alias:
                self._moved.setdefault(line.token, []).append(line.alias)

    def lease_of(self, lines: Iterable[Observation]) -> str:
        """Return the lease of the request with these lines.

        The result is empty where no line showed a lease.
        """
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


def target_check(engine: str, question: str, answer: ProbeResult) -> Check:
    """Return check 6 by what a target, asked by its engine, answered about a credential of this name."""
    text = answer.evidence[:MOST_TEXT]
    evidence: Evidence = Missing(lack=Lack.TARGET_SILENT, about=text)
    if answer.seen and answer.signed:
        form, der = answer.signed
        evidence = SignedAnswer(engine, question, text, form, sha256_hex(der), der)
        if len(der) > MOST_SIGNED:
            evidence = structs.replace(evidence, der=None)
    elif answer.seen:
        evidence = TargetAnswer(engine, question, text)
    return Check(TARGET_N, answer.is_over, evidence)


def judge_by_target(
    engine: str, read: WrappedRead, unknown: Mapping[str, datetime], probed: Mapping[str, ProbeResult]
) -> Check:
    """Return check 6 of a read by what the target says.

    It holds where the target has no credential that may be the read's. `unknown` are the credentials that the
    target still has and that no line shows as issued, with the second in which each was made. `probed` is what the
    probe said of each credential that may be a read's, by name. Under `UNNAMED` it says whether sessions are open that
    may belong to a credential which the target does not have any more.
    """
    own = sorted(name for name, at in unknown.items() if read.may_have_made(at))
    answers: list[str] = []
    for name in (*own, UNNAMED):
        answer = probed.get(name)
        text = answer.evidence if answer else "the probe said nothing of it"
        if answer is None or not answer.is_over:
            return open_read(read, text, name=name if name in own else "")
        answers.append(f"{name}: {text}")
    return Check(TARGET_N, ok=True, evidence=TargetAnswer(engine, read.path, "; ".join(answers)[:MOST_TEXT]))


def open_read(read: WrappedRead, why: str, *, name: str = "") -> Check:
    """Return check 6 of a read that does not hold, since the target says otherwise or nothing."""
    evidence = Missing(lack=Lack.READ_OPEN, read=read.shown, about=why[:MOST_TEXT], name=name)
    return Check(TARGET_N, ok=False, evidence=evidence)


def unproven_read(reads: Sequence[WrappedRead], target_answers: Mapping[str, Check]) -> Evidence | None:
    """Return why the credential of a read is not proven dead; None if all are.

    A read whose lease is known is left out: its lease is proven by itself. `target_answers` is what the targets said,
    by the digest of the read's line; a read that is not in it was not asked about.
    """
    for read in reads:
        if read.lease_id:
            continue
        answer = target_answers.get(read.line)
        if answer is None:
            return Missing(lack=Lack.READ_NOT_ASKED, read=read.shown)
        if not answer.ok:
            return answer.evidence
    return None


def written_since(
    tokens: frozenset[str], trail: AuditTrail, *, mount: str, path: str, newest: Canary
) -> Observation | None:
    """Return a write that can have changed how credentials are named.

    The write is to the credentials' mount. It is the first such write since the task's token was created that affects
    `path`; None where there was none.
    """
    created = (o for o in trail.observations if o.kind is Kind.TOKEN_CREATED and o.subject in tokens)
    begun = next(map(Point.of, created), None)
    credential = Credential(
        kind="lease",
        subject="",
        lookup_subject="",
        mount=mount,
        reported=Verdict.LIVE,
        lookup_ops=frozenset(),
        gone_errors=frozenset(),
        lease_path=f"{path}/",
    )
    last = Point(newest.place, newest.at)
    return first_write_to_mount(credential, trail, begun, last) if begun else None
