"""Checks of the audit stream and of freezes.

Can the stream's files be read, is it trusted, and how far behind is it?
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jitvault.doctor.check import Ability, About, Check, Known, Unknown
from jitvault.errors import AuditUntrusted, Denied, Frozen
from jitvault.formats.plural import listed
from jitvault.model.scope import FreezeStatement

_PROOF = frozenset({Ability.GRANT, Ability.PROVE})
FILES = About("audit", "files", AuditUntrusted)
TRUST = About("audit", "trust", AuditUntrusted, _PROOF)
LAG = About("audit", "lag", AuditUntrusted)
SALT = About("audit", "salt", AuditUntrusted)
TRIPWIRE = About("freezes", "by a tripwire", Frozen, frozenset({Ability.GRANT}))
BY_OPERATORS = About("freezes", "by operators", Denied, frozenset({Ability.GRANT}))

NAME_FILE = "Name the file that Vault's audit device writes."
NOTABLE_LAG = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class File:
    """One name in JITVAULT_AUDIT_FILE; `why` says why it cannot be read.

    `wrong_form` says why nothing can be proven by the lines that its device writes.
    """

    path: str
    why: str
    wrong_form: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """The result of a canary.

    `why` says why the stream is not trusted, None where it is. `anew` is when the audit device was created anew, None
    where it was not.
    """

    why: str | None
    mend: str
    lag: timedelta | None
    gaps: int
    anew: datetime | None


@dataclass(frozen=True, slots=True)
class Tripped:
    """Why and since when a tripwire froze everything."""

    why: str
    at: datetime


def judge_files(files: Sequence[File]) -> Check:
    if not files:
        return FILES.skipped(Unknown("JITVAULT_AUDIT_FILE is not set", NAME_FILE))
    unreadable = [f"{file.path}: {file.why}" for file in files if file.why]
    if unreadable:
        return FILES.fail(
            "; ".join(unreadable), "Correct the path or its mode: nothing is proven without reading these files."
        )
    useless = [f"{file.path}: {file.wrong_form}" for file in files if file.wrong_form]
    if useless:
        return FILES.fail("; ".join(useless), "Set the device up without it: docs/operations/audit-sources.md.")
    return FILES.ok(f"{listed([file.path for file in files])} can be read")


def judge_stream(stream: Known[Stream]) -> Iterator[Check]:
    if isinstance(stream, Unknown):
        yield from (about.skipped(stream) for about in (TRUST, LAG, SALT))
        return
    if stream.why is not None or stream.lag is None:
        yield TRUST.fail(stream.why or "no canary came", stream.mend)
        yield LAG.skipped(Unknown("no canary came through", "Repair `trust` first."))
    else:
        gaps = f"; {stream.gaps} gaps are behind it" if stream.gaps else ""
        yield TRUST.ok(f"a canary came through{gaps}")
        ms = stream.lag // timedelta(milliseconds=1)
        late = stream.lag > NOTABLE_LAG
        seen = f"{ms} ms from a request to its line here"
        mend = "Check what transports the lines to this machine, and the load."
        yield LAG.warn(seen, mend) if late else LAG.ok(seen)
    yield _salt(stream)


def _salt(stream: Stream) -> Check:
    if stream.anew is None:
        return SALT.ok("the device was not created again since the ledger was made")
    mend = "Find out who made it anew: nothing from before is confirmed without look-ups and a listing."
    return SALT.warn(f"the device was made anew {stream.anew:%Y-%m-%d %H:%M:%S} UTC", mend)


def judge_freezes(tripped: Known[Tripped | None], words: Known[Sequence[FreezeStatement]]) -> Iterator[Check]:
    """Judge the freezes: `tripped` is the tripwires', None without one.

    `words` are the operators' in force.
    """
    if isinstance(tripped, Unknown):
        yield TRIPWIRE.skipped(tripped)
    elif tripped is None:
        yield TRIPWIRE.ok("none is active")
    else:
        yield TRIPWIRE.fail(f"everything, since {tripped.at:%Y-%m-%d %H:%M:%S} UTC: {tripped.why}", Frozen.default_hint)
    if isinstance(words, Unknown):
        yield BY_OPERATORS.skipped(words)
        return
    shown = listed([f"{w.scope} by {w.by} since {w.at:%Y-%m-%d %H:%M:%S} UTC ({w.reason})" for w in words], 5)
    mend = "`jitvault unfreeze` with the same scope lifts it."
    if any(word.scope.is_all for word in words):
        yield BY_OPERATORS.fail(shown, mend)
    else:
        yield BY_OPERATORS.warn(shown, mend) if words else BY_OPERATORS.ok("none is active")
