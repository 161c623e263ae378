"""Say in words what a check rests on or lacks.

The words are for people alone: nothing that decides reads them.
"""

from __future__ import annotations

from jitvault.audit.audit_form import ELIDED
from jitvault.formats.rfc3339 import rfc3339
from jitvault.model.evidence import (
    Closed,
    Contiguous,
    Evidence,
    Expiry,
    Gap,
    Interval,
    Lack,
    Line,
    Missing,
    Quiet,
    Read,
    ReadKind,
    TargetAnswer,
)
from jitvault.model.proof_check import Check

NOT_ASKED = "revoked at Vault; the target was not asked"
"""What is said of an end that rests on the audit stream alone, where another one is called proven."""
_LINE_DIGITS = 16
"""How many digits of a line's SHA-256 people are shown."""
_CLOSED = {
    Closed.ENDED_BEFORE: "its end came before the gap",
    Closed.REVOKED_ITSELF: "it revoked itself after the gap",
    Closed.TARGET_REFUSES: "and the target refuses it",
    Closed.FOUND_REVOKED: "Vault had it after the gap (line {line}), revoked",
    Closed.SEEN_ALIVE: "it was alive after the gap (line {line})",
}
_READS = {
    ReadKind.IN_GAP: "a read of {path} that a gap in the stream may hide",
    ReadKind.UNANSWERED: "the read of {path} at {at} that has no answer (line {line})",
    ReadKind.WRAPPED: "the read of {path} in a wrapping at {at} (line {line})",
}
_LACKS = {
    Lack.ISSUE_LINE: "no issue line was seen",
    Lack.REVOCATION_LINE: "no revocation line without error was seen",
    Lack.GONE_LINE: "no look-up line that says it is gone was seen",
    Lack.LIVE_LINE: "no look-up line that found it was seen",
    Lack.INTERVAL: "the interval from issue to look-up is not known",
    Lack.HAZARD: "{about} at {at} (line {line})",
    Lack.CANARY_BEFORE: "no matching canary before it",
    Lack.CANARY_AFTER: "no matching canary after it",
    Lack.INTERRUPTED: "the stream was interrupted between issue and look-up",
    Lack.NOT_SEEN_ALIVE: "the stream was interrupted, and nobody saw it alive between gap and revocation",
    Lack.NOT_PROBED: "the target was not probed",
    Lack.TARGET_SILENT: "{about}",
    Lack.LEASE_UNPROVEN: "a credential of the task is not proven dead",
    Lack.PENDING: "{count} requests of the token have no answer yet: {about}",
    Lack.READ_ELSEWHERE: "something was read from {about} in a wrapping, and that path is none of the task's",
    Lack.UNLEASED: "{about} gave something at {at} that has no lease: nothing ends it",
    Lack.GAP: "the stream was interrupted after the token was made",
    Lack.HIDDEN_LEASE: "a credential was read from {about} in a wrapping, so its lease is not known",
    Lack.UNANSWERED: "{count} requests never got an answer",
    Lack.READ_NOT_ASKED: "the lease of {read} never showed, and no target was asked for it",
    Lack.READ_OPEN: "{name}{read}: {about}",
    Lack.READ_RENAMED: "{read}: {about} at {at} (line {line}) can have changed what its credential is called",
    Lack.CANARY_SINCE: "no canary after the last line of the token",
    Lack.QUIET_SECOND: "the newest canary is less than 1 s after the last line of the token",
    Lack.OPEN_BELOW: "not before the tasks below it are proven dead: {about}",
    Lack.GOING_ROUND: "its end was called proven {count} times and did not stay so ({about}): not again before its "
    "settle window is over",
    Lack.REOPENED: "it began to end again: {about}",
}


def evidence_in_words(evidence: Evidence) -> str:
    """Return what a check rests on or lacks, as one sentence for people."""
    match evidence:
        case Line(sha256=line, path=path, at=at):
            return f"line {line[:_LINE_DIGITS]} {path} at {rfc3339(at)}"
        case Expiry(at=at):
            return f"its TTL was over at {rfc3339(at)}, by Vault's clock"
        case Interval(begin=begin, end=end):
            return f"none from {rfc3339(begin)} to {rfc3339(end)}"
        case Contiguous(source=source, begin=first, end=last):
            return f"{source} bytes {first} to {last} read contiguously"
        case Gap(listing=listing, closed=closed, line=line):
            how = _CLOSED[closed].format(line=_short(line))
            return f"interrupted; nothing unaccounted for was listed (line {_short(listing)}); {how}"
        case TargetAnswer(answer=answer):
            return answer
        case Quiet(ms=ms, listed=listed):
            how = f"nothing newer in {ms} ms up to a matching canary"
            return f"{how}; {evidence_in_words(listed)}: listed" if listed else how
        case Missing():
            return _missing(evidence)
        case _:
            return "no token was ever created"


def _missing(it: Missing) -> str:
    name = f"{it.name} is of no known lease and may have come from " if it.name else ""
    what = _LACKS[it.lack].format(
        about=it.about,
        name=name,
        at=rfc3339(it.at) if it.at else "",
        line=_short(it.line),
        read=_read(it.read) if it.read else "",
        count=it.count,
    )
    elided = f"; of the listing that was made, {ELIDED}" if it.elided else ""
    return f"{what}{elided}" + (": nothing makes up for that" if it.for_good else "")


def _read(read: Read) -> str:
    at = rfc3339(read.at) if read.at else ""
    return _READS[read.how].format(path=read.path, at=at, line=_short(read.line))


def _short(line: str | None) -> str:
    return (line or "")[:_LINE_DIGITS]


def failure_in_words(check: Check) -> str:
    """Say that a check does not hold, and why."""
    return f"check {check.n} ({check.name}) does not hold: {evidence_in_words(check.evidence)}"
