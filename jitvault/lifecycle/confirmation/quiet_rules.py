"""Check 7: whether a task as a whole is quiet.

This includes what the task's audit lines alone leave open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from msgspec.structs import replace

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.trail import AuditTrail, Canary, derived_tokens, done, follows, is_elided, listed, segment
from jitvault.lifecycle.confirmation.wrapped_reads import (
    WrappedRead,
    unanswered_reads,
    unproven_read,
    unseen_reads,
    wrapped_reads,
)
from jitvault.model.evidence import Lack, Missing, NoToken, Quiet
from jitvault.model.proof_check import Check

QUIET = timedelta(seconds=1)
"""How long after the last line of its tokens a task has to be quiet: the quiet second."""
# a token's requests about itself make no lease, even when they are wrapped
_LEASELESS = ("auth/token/", "sys/", "cubbyhole/")


@dataclass(frozen=True, slots=True)
class OpenQuestions:
    """Why the lines alone do not show which leases a task had.

    - `gap`, `hidden` and `unanswered` each say what is missing, if anything. A listing of the task's prefixes settles
      them.
    - `elsewhere` names a wrapped read of a path that is none of the task's: no listing of the task covers it.
    - `pending` are the ids of requests that have no answer yet.
    - `unleased` names a credential without a lease: Vault cannot revoke it, and no listing shows it.
    - `wrapped` are the reads that a listing alone does not settle: the target has to be asked what they returned.

    A request of a path that is open to everybody gives no lease, so it is neither `elsewhere` nor `pending`.
    """

    gap: Missing | None = None
    hidden: Missing | None = None
    elsewhere: Missing | None = None
    unanswered: Missing | None = None
    pending: tuple[str, ...] = ()
    unleased: Missing | None = None
    wrapped: tuple[WrappedRead, ...] = ()

    @property
    def why_list(self) -> Missing | None:
        """Return why a listing is needed; None where none is."""
        return self.gap or self.hidden or self.unanswered


def open_questions(
    tokens: frozenset[str],
    trail: AuditTrail,
    *,
    leased: frozenset[str],
    settle: timedelta,
    newest: Canary,
    interrupted: bool = False,
    nameable: frozenset[str] = frozenset(),
    by_target: frozenset[str] = frozenset(),
) -> OpenQuestions:
    """Return what the lines of a task's tokens up to `newest` leave open.

    `leased` are the paths whose every read makes a lease. A request whose answer did not come within `settle`, the
    server's longest request, never gets one. `interrupted` says that there is a gap which none of these lines shows.
    `nameable` are the paths whose target can name what it still has, even where no line shows it. `by_target` are the
    paths whose credentials are proven by their target.
    """
    acts = _acts(tokens, trail)
    derived = derived_tokens(trail.observations)
    unwrapped_for = [o for o in trail.observations if o.kind is Kind.LEASE_ISSUED and derived.get(o.token) in tokens]
    own = acts + unwrapped_for + [o for o in trail.observations if _begins_or_ends(o, tokens)]
    segments = {segment(o.place) for o in own}
    if own:
        segments.add(segment(newest.place))
    answered = {o.request_id for o in acts if o.closing}
    without_answer = [o for o in acts if not o.closing and o.request_id not in answered and _may_lease(o, leased)]
    never = [o for o in without_answer if newest.at - o.at > settle]
    unwrapped = {o.token for o in trail.observations if o.kind is Kind.LEASE_ISSUED and o.token}
    reads = [o for o in acts if o.kind is Kind.USED and done(o) and (o.alias or o.path in leased)]
    unknown = [o for o in reads if o.alias not in unwrapped and not o.path.startswith(_LEASELESS)]
    hidden = [o for o in unknown if o.path in leased]
    unleased = [o for o in hidden if not o.alias]
    elsewhere = [o for o in unknown if o.path not in leased and _may_lease(o, leased)]
    gap = len(segments) > 1 or interrupted
    created = [o.at for o in own if o.kind is Kind.TOKEN_CREATED]
    # a token reads nothing before it is created; without the line of its creation the token itself is not proven dead
    begun = min(created, default=newest.at)
    return OpenQuestions(
        gap=Missing(lack=Lack.GAP) if gap else None,
        hidden=Missing(lack=Lack.HIDDEN_LEASE, about=hidden[0].path) if hidden else None,
        elsewhere=Missing(lack=Lack.READ_ELSEWHERE, about=elsewhere[0].path) if elsewhere else None,
        unanswered=Missing(lack=Lack.UNANSWERED, count=len(never)) if never else None,
        pending=tuple(sorted({o.request_id for o in without_answer} - {o.request_id for o in never})),
        unleased=Missing(lack=Lack.UNLEASED, about=unleased[0].path, at=unleased[0].at) if unleased else None,
        wrapped=(
            *wrapped_reads(tokens, trail, leased=leased, settle=settle),
            *unanswered_reads((o for o in never if o.kind is Kind.USED and o.path in by_target), settle),
            *(unseen_reads(nameable, begun, newest.at) if gap else ()),
        ),
    )


def is_quiet(
    tokens: frozenset[str],
    trail: AuditTrail,
    *,
    leases_dead: bool,
    now_canary: datetime | None,
    open_questions: OpenQuestions,
    settled: bool,
    target_answers: Mapping[str, Check] = MappingProxyType({}),
) -> Check:
    """Make check 7 for a task whose tokens have these accessor HMACs.

    `now_canary` is Vault's time of the newest canary. `settled` says that a listing of the task's prefixes after its
    last line left no lease unaccounted for. `target_answers` is what the targets say of the wrapped reads, by the
    digest of each read's line.
    """
    acts = _acts(tokens, trail)
    if not leases_dead:
        return Check(7, ok=False, evidence=Missing(lack=Lack.LEASE_UNPROVEN))
    if open_questions.pending:
        waiting = open_questions.pending
        return Check(7, ok=False, evidence=Missing(lack=Lack.PENDING, count=len(waiting), about=waiting[0]))
    if never := open_questions.elsewhere or open_questions.unleased:
        return Check(7, ok=False, evidence=never)
    if open_questions.why_list and not settled:
        return Check(7, ok=False, evidence=replace(open_questions.why_list, elided=is_elided(trail)))
    if unproven := unproven_read(open_questions.wrapped, target_answers):
        return Check(7, ok=False, evidence=unproven)
    if not tokens and now_canary is not None:
        return Check(7, ok=True, evidence=NoToken())
    ended = [o for o in trail.observations if _begins_or_ends(o, tokens) and done(o)]
    last = max((o.at for o in ended + acts), default=None)
    if now_canary is None or last is None:
        return Check(7, ok=False, evidence=Missing(lack=Lack.CANARY_SINCE))
    if now_canary - last < QUIET:
        return Check(7, ok=False, evidence=Missing(lack=Lack.QUIET_SECOND))
    quiet_ms = (now_canary - last) // timedelta(milliseconds=1)
    return Check(7, ok=True, evidence=Quiet(quiet_ms, open_questions.why_list))


def listing_covers_all(tokens: frozenset[str], trail: AuditTrail, ops: frozenset[str], *, at: Place) -> bool:
    """Return whether a lease listing was made after the tokens' last act.

    `ops` are the ids of the listings that count; only those in the segment of `at` do. A listing from before an act
    cannot show what that act created.
    """
    listing = listed(trail, ops, in_segment_of=at)
    lines = _acts(tokens, trail) + [o for o in trail.observations if _begins_or_ends(o, tokens)]
    return listing is not None and all(follows(listing, o) for o in lines)


def settles_at(tokens: frozenset[str], trail: AuditTrail, window: timedelta) -> datetime | None:
    """Return when no request of the tokens can be in flight any more.

    The time is Vault's. `window` is the server's longest request. None where no line is about the tokens.
    """
    about = (o for o in trail.observations if o.subject in tokens or o.actor in tokens)
    # a look-up or a hash of the accessor keeps nothing in flight, and must not hold up the seal
    acts = [o.at for o in about if o.kind not in (Kind.TOKEN_LOOKUP, Kind.CANARY)]
    return max(acts) + window if acts else None


def _acts(tokens: frozenset[str], trail: AuditTrail) -> list[Observation]:
    return [o for o in trail.observations if o.actor in tokens and o.kind is not Kind.TOKEN_REVOKED]


def _may_lease(line: Observation, leased: frozenset[str]) -> bool:
    """Return whether a request may have made a lease.

    Each one of a leased path may, whatever else its line says.
    """
    return line.path in leased or "open_to_all" not in line.detail


def _begins_or_ends(line: Observation, tokens: frozenset[str]) -> bool:
    """Return whether a line creates or revokes one of the tokens.

    A token may also be revoked by its lease path.
    """
    if line.kind in (Kind.TOKEN_CREATED, Kind.TOKEN_REVOKED):
        return line.subject in tokens
    return line.kind is Kind.LEASE_REVOKED and line.subject.startswith("auth/token/create/")
