"""Where a credential's life shows in the audit stream: the lines of its issue, its end, and what was seen of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from jitvault.audit.observation import Kind, Observation, renewed_until
from jitvault.audit.token_links import derived_tokens, owning_token
from jitvault.audit.trail import AuditTrail, Canary, Point, canary_after, done, follows, listed, segment
from jitvault.model.states import Verdict


@dataclass(frozen=True, slots=True)
class Credential:
    """What is to be proven dead.

    `subject` is the lease id or the HMAC of the token's accessor. `lookup_subject` is how a lookup line
    names it (always an HMAC). `lookup_ops` are the operation ids of lookups that Vault answered with
    "there is no such thing"; `gone_errors` are the ways in which such an answer reads in the stream.
    `claimed` is the verdict without proof, at most `gone`. A token whose accessor was lost is revoked and
    looked up by its lease path instead: `alias`, and that path's HMAC `alias_lookup`. `live_ops` are the look-ups
    that found it alive, and `there` says that the newest of all look-ups is one; `listing_ops` are the listings of the
    task's prefixes that found nothing unaccounted for. `also` are the HMACs of the same accessor under other salts of
    the audit device. `lease_path` is the lease's id, or below what Vault keeps the token's own lease. `forced` says
    that Vault was made to forget it. `last_end` is the latest end of a token that its role allows.
    """

    kind: str
    subject: str
    lookup_subject: str
    mount: str
    claimed: Verdict
    lookup_ops: frozenset[str]
    gone_errors: frozenset[str]
    expires_at: datetime | None = None
    alias: str = ""
    alias_lookup: str = ""
    also: frozenset[str] = frozenset()
    live_ops: frozenset[str] = frozenset()
    there: bool = False
    listing_ops: frozenset[str] = frozenset()
    lease_path: str = ""
    forced: bool = False
    last_end: datetime | None = None


def issue_line(credential: Credential, lines: Iterable[Observation]) -> Observation | None:
    """The response line of its issue."""
    kind = Kind.LEASE_ISSUED if credential.kind == "lease" else Kind.TOKEN_CREATED
    return next((o for o in lines if o.kind is kind and o.subject == credential.subject and done(o)), None)


def revocation_line(credential: Credential, trail: AuditTrail, *, after: Observation | None) -> Observation | None:
    """The response line of the revocation that counts, without an error."""
    lines = [o for o in trail.observations if o.closing and follows(o, after)]
    if credential.kind == "token":
        names = {credential.subject, *credential.also}
        named = (o for o in lines if o.kind is Kind.TOKEN_REVOKED and o.subject in names)
        # for a token that is not there Vault answers 200 and only warns
        by_accessor = next((o for o in named if not o.failed and "warnings" not in o.detail), None)
        return (
            by_accessor
            or _found_done(names, trail, after)
            or _with_all_of_its_role(credential, lines)
            or _own_lease_revocation({credential.alias, credential.alias_lookup}, lines, trail)
        )
    return _own_lease_revocation({credential.subject, credential.lookup_subject}, lines, trail)


def _with_all_of_its_role(credential: Credential, lines: Iterable[Observation]) -> Observation | None:
    """A revocation of everything below the token's role, by anybody: a token has no backend that could fail.

    So a mere acceptance (202, what `bao lease revoke -prefix` asks for) will do: it fails without an error.
    """
    return next((o for o in lines if not o.error and credential.lease_path and _revokes(o, credential)), None)


def _revokes(line: Observation, credential: Credential) -> bool:
    prefix = prefix_of(line.path, "revoke-prefix")
    return prefix is not None and is_below(credential.lease_path, prefix)


def prefix_of(path: str, act: str) -> str | None:
    """Of `sys/leases/<act>/<prefix>` the prefix, with a slash at its end; None for any other path."""
    for start in (f"sys/leases/{act}/", f"sys/{act}/"):
        if path.startswith(start):
            return path.removeprefix(start).rstrip("/") + "/"
    return None


def is_below(lease_path: str, prefix: str) -> bool:
    """Whether a lease is one of those below `prefix`, which may be its own id."""
    return f"{lease_path.rstrip('/')}/".startswith(f"{prefix.rstrip('/')}/")


def _found_done(names: set[str], trail: AuditTrail, after: Observation | None) -> Observation | None:
    """A revocation of the worker's that found no such token, after an earlier one of its own that has no answer.

    Where the answer's line could not be written, or the server died before it, the act may be done all the same
    (docs/vault-facts.md, "Audit devices"), and no later revocation has anything left to do. The request's own line
    stands for the act then, and what Vault says next for its success.
    """
    answered = {o.request_id for o in trail.observations if o.closing}
    own = [
        o
        for o in trail.observations
        if o.kind is Kind.TOKEN_REVOKED
        and o.actor in trail.worker_accessors
        and o.subject in names
        and not o.failed
        and follows(o, after)
    ]
    unanswered = next((o for o in own if not o.closing and o.request_id not in answered), None)
    if unanswered is None:
        return None
    return next((o for o in own if o.closing and "warnings" in o.detail and follows(o, unanswered)), None)


def _own_lease_revocation(names: set[str], lines: Iterable[Observation], trail: AuditTrail) -> Observation | None:
    """The worker's own successful revocation of a lease, unless somebody else's came before it.

    `names` are the lease id and its HMAC, which is how a request shows it that has it in its body. Whether
    theirs reached the backend is not known, and ours found nothing to do: 204 all the same.
    """
    for o in lines:
        if o.kind is not Kind.LEASE_REVOKED or o.subject not in names or not o.subject:
            continue
        if o.actor not in trail.worker_accessors:
            if "denied" in o.detail:
                continue
            return None
        if not o.failed:
            return o
    return None


def lookup_line(credential: Credential, trail: AuditTrail, *, after: Observation | None) -> Observation | None:
    """The line of a look-up of ours that Vault answered with "there is no such thing".

    The first with a canary after it in its stretch: where a line was cut off right after a look-up, a later one counts.
    Over a gap, check 5 needs a listing in the same stretch: where a second gap came between look-up and listing, a
    later look-up counts that has one.
    """
    found = list(_gone_lines(credential, trail, after))
    closed = [o for o in found if canary_after(trail, o.place) is not None]
    if not closed:
        return next(iter(found), None)
    first, issue = closed[0], issue_line(credential, trail.observations)
    if issue is None or segment(first.place) == segment(issue.place):
        return first
    return next((o for o in _one_a_stretch(closed) if _is_listed_beside(credential, trail, o)), first)


def _one_a_stretch(lines: Iterable[Observation]) -> list[Observation]:
    """The first of the lines in each stretch."""
    firsts: dict[tuple[str, int], Observation] = {}
    for line in lines:
        firsts.setdefault(segment(line.place), line)
    return list(firsts.values())


def _is_listed_beside(credential: Credential, trail: AuditTrail, line: Observation) -> bool:
    return listed(trail, credential.listing_ops, in_segment_of=line.place) is not None


def _gone_lines(credential: Credential, trail: AuditTrail, after: Observation | None) -> Iterator[Observation]:
    by: dict[Kind, set[str]] = (
        {Kind.LEASE_LOOKUP: {credential.lookup_subject}}
        if credential.kind == "lease"
        else {
            Kind.TOKEN_LOOKUP: {credential.lookup_subject, *credential.also},
            Kind.LEASE_LOOKUP: {credential.alias_lookup},
        }
    )
    return (
        o
        for o in trail.observations
        if o.closing
        and o.failed
        and o.subject in by.get(o.kind, ())
        and o.op in credential.lookup_ops
        and o.actor in trail.worker_accessors
        and any(error in o.error for error in credential.gone_errors)
        and follows(o, after)
    )


def alive_line(credential: Credential, trail: AuditTrail, *, before: Observation) -> Observation | None:
    """The last look-up of ours before a revocation, in its stretch, that found the credential there."""
    return next(
        (
            o
            for o in reversed(trail.observations)
            if o.op in credential.live_ops
            and done(o)
            and o.actor in trail.worker_accessors
            and segment(o.place) == segment(before.place)
            and o.place.offset < before.place.offset
        ),
        None,
    )


def reappearance(credential: Credential, trail: AuditTrail, *, after: Observation | None) -> Observation | None:
    """The last look-up of ours that found what an earlier one did not: a Vault that was restored has it back."""
    gone = next(_gone_lines(credential, trail, after), None)
    if gone is None:
        return None
    own = (o for o in reversed(trail.observations) if o.op in credential.live_ops and o.actor in trail.worker_accessors)
    return next((o for o in own if done(o) and follows(o, gone)), None)


def expiry(credential: Credential, trail: AuditTrail) -> Canary | None:
    """The first canary after a token's TTL was over. Expiry writes no line, so Vault's clock has to say it.

    A renewal that was done, by whomever, says in its line how long it gave. One whose answer is not there may still be
    under way: a look-up after it has to say that the token is gone. Where no line says how long it gave, it is taken to
    be as long as the token's role lets a token live.
    """
    if credential.kind != "token" or credential.expires_at is None:
        return None
    names, stands_for = {credential.subject, *credential.also}, derived_tokens(trail.observations)
    # a renewal that names the token itself shows whose it is by what the token stands for
    renewals = [o for o in trail.observations if o.kind is Kind.RENEWED and owning_token(o, stands_for) in names]
    answered = {o.request_id for o in renewals if o.closing}
    open_ = [o for o in renewals if not o.closing and o.request_id not in answered]
    ends = [renewed_until(o) or credential.last_end for o in [*filter(done, renewals), *open_]]
    if None in ends:
        return None
    over = max(filter(None, (credential.expires_at, *ends)))
    gone = lookup_line(credential, trail, after=open_[-1]) if open_ else None
    if open_ and gone is None:
        return None
    return next((c for c in trail.canaries if c.at >= over and _stands_after(c, gone)), None)


def _stands_after(canary: Canary, line: Observation | None) -> bool:
    return line is None or Point(line.place, line.at).before(Point(canary.place, canary.at))
