"""Explain why a credential is gone that is alive in the ledger.

It was revoked, or it expired, or its end is unexplained. That Vault says "there is no such thing" proves nothing, so an
explanation is no proof either; the task's own end is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from jitvault.audit.observation import Kind, Observation, renewed_until
from jitvault.audit.trail import done
from jitvault.audit.tripwires.trip import origin
from jitvault.lifecycle.confirmation.timeline import is_below, prefix_of
from jitvault.sweep.compare import Owned


class MissingCause(StrEnum):
    ENDED = "ended"
    EXPIRED = "expired"
    WITH_ITS_TOKEN = "with_its_token"  # noqa: S105 - not a password
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class MissingCredential:
    """A credential that Vault does not have any more, and why.

    `line` is the audit line that ended it, if any, and `at` Vault's time of that line.
    """

    owned: Owned
    how: MissingCause
    why: str
    line: str = ""
    at: datetime | None = None


def explain(
    owned: Owned,
    names: frozenset[str],
    lines: Sequence[Observation],
    *,
    sessions: frozenset[str],
    expires_at: datetime | None,
    step: timedelta,
    now: datetime,
    token_is_gone: bool,
) -> MissingCredential:
    """Return why a credential is gone.

    `names` are the names that lines use for it, and `sessions` the accessor HMACs of the worker's tokens. `expires_at`
    is when it expires if no line shows a renewal, and `step` for how long the worker renews it. An act that took the
    record away without calling the backend explains nothing: the credential may still work.
    """
    ended = next((o for o in lines if _ends(o, owned, names)), None)
    if ended is not None:
        return MissingCredential(owned, MissingCause.ENDED, _by_whom(ended, owned, sessions), ended.line, ended.at)
    renewals = [o for o in lines if o.kind is Kind.RENEWED and done(o) and o.subject in names]
    expires_at = _latest_end(expires_at, renewals, sessions, step)
    if expires_at is not None and now >= expires_at:
        return MissingCredential(
            owned, MissingCause.EXPIRED, f"its time was over at {expires_at:%Y-%m-%d %H:%M:%S} UTC, by Vault's clock"
        )
    forced = next((o for o in lines if _drops_records(o, owned)), None)
    if forced is not None:
        why = f"{forced.path} by {origin(forced)} at {forced.at:%H:%M:%S} UTC may have dropped its record"
        return MissingCredential(owned, MissingCause.UNEXPLAINED, why, forced.line, forced.at)
    if owned.kind == "lease" and token_is_gone:
        return MissingCredential(owned, MissingCause.WITH_ITS_TOKEN, "Vault ends the leases of a token with it")
    return MissingCredential(owned, MissingCause.UNEXPLAINED, "no line of the audit stream says who ended it")


def _latest_end(
    expires_at: datetime | None, renewals: Iterable[Observation], sessions: frozenset[str], step: timedelta
) -> datetime | None:
    """Return until when a credential can have lived that was renewed.

    The result is None where that is not known.

    Where a line does not show for how long, the worker (`sessions`) gave it a step, and anybody else as much as Vault
    allows.
    """
    if expires_at is None:
        return None
    latest = expires_at
    for renewal in renewals:
        until = renewed_until(renewal)
        if until is None and renewal.actor in sessions:
            until = renewal.at + step
        if until is None:
            return None
        latest = max(latest, until)
    return latest


def _ends(o: Observation, owned: Owned, names: frozenset[str]) -> bool:
    if not done(o):
        return False
    if o.kind is Kind.HAZARD and (prefix := prefix_of(o.path, "revoke-prefix")):
        return _made_before(owned, o) and is_below(_lease_of(owned), prefix)
    kind = Kind.TOKEN_REVOKED if owned.kind == "token" else Kind.LEASE_REVOKED
    # for a token that does not exist Vault answers 200 with a warning
    return o.kind is kind and o.subject in names and "warnings" not in o.detail


def _lease_of(owned: Owned) -> str:
    """Return its lease, or the path below which Vault keeps an unknown lease."""
    return owned.subject if owned.kind == "lease" else owned.token_lease or owned.path


def _drops_records(o: Observation, owned: Owned) -> bool:
    return done(o) and _made_before(owned, o) and (_is_forced(o, "revoke-force/") or _is_forced(o, "tidy"))


def _is_forced(o: Observation, act: str) -> bool:
    return o.kind is Kind.HAZARD and o.path.startswith((f"sys/leases/{act}", f"sys/{act}", f"auth/token/{act}"))


def _made_before(owned: Owned, o: Observation) -> bool:
    return owned.issued_at is None or o.at >= owned.issued_at


def _by_whom(o: Observation, owned: Owned, sessions: frozenset[str]) -> str:
    when = f"at {o.at:%Y-%m-%d %H:%M:%S} UTC"
    if o.actor == owned.subject:
        return f"the token revoked itself {when}"
    if o.actor in sessions:
        return f"the worker revoked it {when}, and the ledger does not hold that: was it restored?"
    what = f"everything below {o.path.partition('revoke-prefix/')[2]}" if o.kind is Kind.HAZARD else "it"
    return f"somebody else revoked {what} from {origin(o)} {when}"
