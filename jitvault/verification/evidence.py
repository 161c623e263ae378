"""Read the evidence of a check, in each of the forms that jitvault writes.

The forms are those of `jitvault.lifecycle.confirmation.checks` and `quiet_rules`. Evidence in another form proves
nothing. What a target answered (check 6) is a text of its engine: no form of it is known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from jitvault.model.proof_check import QUIET_N, TARGET_N
from jitvault.verification.receipt import StatedCheck

_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?\+00:00"
_LINE = re.compile(rf"line ([0-9a-f]{{16}}) (.*) at ({_TIME})", re.DOTALL)
_EXPIRED = re.compile(rf"its TTL was over at ({_TIME}), by Vault's clock")
_NONE_BETWEEN = re.compile(rf"none from ({_TIME}) to ({_TIME})")
_CONTIGUOUS = re.compile(r".+ bytes (\d{1,18}) to (\d{1,18}) read contiguously", re.DOTALL)
_OVER_GAP = re.compile(
    r"interrupted; nothing unaccounted for was listed \(line ([0-9a-f]{16})\); "
    r"(?:its end came before the gap|it revoked itself after the gap|and the target refuses it"
    r"|Vault had it after the gap \(line ([0-9a-f]{16})\), revoked"
    r"|it was alive after the gap \(line ([0-9a-f]{16})\))"
)
_QUIET = re.compile(r"nothing newer in (\d{1,15}) ms up to a matching canary(?:; .+: listed)?", re.DOTALL)
_NO_TOKEN = "no token was ever created"  # noqa: S105 - not a password
QUIET_MS = 1000


@dataclass(frozen=True, slots=True)
class Stated:
    """What the evidence of a check that holds says.

    - `line`, `path` and `at`: the audit line that shows it, by the first 16 digits of its SHA-256;
    - `expired`: no line, but the time `at` at which its TTL was over;
    - `begin` and `end`: the interval in which nothing else happened;
    - `listing` and `alive`: lines of a listing, and of a look-up that found the credential, after a gap;
    - `quiet_ms`: for how long nothing happened; None without a token.
    """

    line: str = ""
    path: str = ""
    at: datetime | None = None
    expired: bool = False
    begin: datetime | None = None
    end: datetime | None = None
    listing: str = ""
    alive: str = ""
    quiet_ms: int | None = None


def stated(check: StatedCheck) -> Stated | None:
    """Return what the evidence says, None for a form that is never written."""
    text = check.evidence
    if check.n in (1, 2, 3):
        return _line(text) or (_expiry(text) if check.n != 1 else None)
    if check.n == 4:
        return _interval(text)
    if check.n == 5:
        return _trust(text)
    if check.n == TARGET_N:
        return Stated() if text.strip() else None
    return _quiet(text) if check.n == QUIET_N else None


def _line(text: str) -> Stated | None:
    found = _LINE.fullmatch(text)
    at = _at(found[3]) if found else None
    return Stated(line=found[1], path=found[2], at=at) if found and at else None


def _expiry(text: str) -> Stated | None:
    found = _EXPIRED.fullmatch(text)
    at = _at(found[1]) if found else None
    return Stated(at=at, expired=True) if at else None


def _interval(text: str) -> Stated | None:
    found = _NONE_BETWEEN.fullmatch(text)
    begin, end = (_at(found[1]), _at(found[2])) if found else (None, None)
    return Stated(begin=begin, end=end) if begin and end else None


def _trust(text: str) -> Stated | None:
    if found := _CONTIGUOUS.fullmatch(text):
        return Stated() if int(found[1]) < int(found[2]) else None
    found = _OVER_GAP.fullmatch(text)
    return Stated(listing=found[1], alive=found[2] or found[3] or "") if found else None


def _quiet(text: str) -> Stated | None:
    if text == _NO_TOKEN:
        return Stated()
    found = _QUIET.fullmatch(text)
    return Stated(quiet_ms=int(found[1])) if found else None


def _at(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        # the thirteenth month
        return None
