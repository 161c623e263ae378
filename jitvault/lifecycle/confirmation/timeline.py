"""Find a credential's lines in the audit stream.

These are the lines of its issue, its revocation, its look-ups and its expiry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from jitvault.audit.observation import Kind, Observation, renewed_until
from jitvault.audit.trail import (
    AuditTrail,
    Canary,
    Point,
    canary_after,
    derived_tokens,
    done,
    follows,
    listed,
    owning_token,
    segment,
)
from jitvault.model.states import Verdict


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential that is to be proven dead, and how audit lines name it.

    - `subject` is the lease id, or the HMAC of the token's accessor. `other_hmacs` are the HMACs of the same accessor
      under other salts of the audit device.
    - `lookup_subject` is how a look-up's line names the credential; it is always an HMAC.
    - `reported` is the verdict that Vault reports without proof, at most `gone`.
    - `lookup_ops` are the ids of look-ups that Vault answered with "there is no such thing", and `gone_errors` the
      wordings of that answer in the stream. `live_ops` are the ids of look-ups that found the credential, and
      `found_last` says that the newest of all look-ups is one of them.
    - `listing_ops` are the ids of listings of the task's prefixes that left no lease unaccounted for.
    - `alias` is the lease path of a token whose accessor was lost: such a token is revoked and looked up by it.
      `alias_lookup` is the HMAC of that path.
    - `lease_path` is the lease's id. For a token, it is the path below which Vault keeps the token's own lease.
    - `forced` says that Vault was made to forget the lease.
    - `last_end` is the latest end of a token that its role allows.
    """

    kind: str
    subject: str
    lookup_subject: str
    mount: str
    reported: Verdict
    lookup_ops: frozenset[str]
    gone_errors: frozenset[str]
    expires_at: datetime | None = None
    alias: str = ""
    alias_lookup: str = ""
    other_hmacs: frozenset[str] = frozenset()
    live_ops: frozenset[str] = frozenset()
    found_last: bool = False
    listing_ops: frozenset[str] = frozenset()
    lease_path: str = ""
    forced: bool = False
    last_end: datetime | None = None


def issue_line(credential: Credential, lines: Iterable[Observation]) -> Observation | None:
    """Return the response line of the credential's issue."""
    kind = Kind.LEASE_ISSUED if credential.kind == "lease" else Kind.TOKEN_CREATED
    return next((o for o in lines if o.kind is kind and o.subject == credential.subject and done(o)), None)


def revocation_line(credential: Credential, trail: AuditTrail, *, after: Observation | None) -> Observation | None:
    """Return the error-free response line of the revocation that counts.

    The result is None where there is no such line.
    """
    lines = [o for o in trail.observations if o.closing and follows(o, after)]
    if credential.kind == "token":
        names = {credential.subject, *credential.other_hmacs}
        named = (o for o in lines if o.kind is Kind.TOKEN_REVOKED and o.subject in names)
        # for a token that does not exist Vault answers 200 with a warning
        by_accessor = next((o for o in named if not o.failed and "warnings" not in o.detail), None)
        return (
            by_accessor
            or _repeated_revocation(names, trail, after)
            or _prefix_revocation(credential, lines)
            or _own_lease_revocation({credential.alias, credential.alias_lookup}, lines, trail)
        )
    return _own_lease_revocation({credential.subject, credential.lookup_subject}, lines, trail)


def _prefix_revocation(credential: Credential, lines: Iterable[Observation]) -> Observation | None:
    """Return a revocation by prefix, by anyone, that covers the token's role.

    A token has no backend that could fail. So a mere acceptance counts as well: 202, which is what
    `bao lease revoke -prefix` gets, shows as failed without an error.
    """
    return next((o for o in lines if not o.error and credential.lease_path and _covers(o, credential)), None)


def _covers(line: Observation, credential: Credential) -> bool:
    """Return whether a line revokes by a prefix that the credential is below."""
    prefix = prefix_of(line.path, "revoke-prefix")
    return prefix is not None and is_below(credential.lease_path, prefix)


def prefix_of(path: str, act: str) -> str | None:
    """Return the prefix of a path `sys/leases/<act>/<prefix>`.

    The prefix ends with a slash. Any other path gives None; the older `sys/<act>/<prefix>` counts, too.
    """
    for start in (f"sys/leases/{act}/", f"sys/{act}/"):
        if path.startswith(start):
            return path.removeprefix(start).rstrip("/") + "/"
    return None


def is_below(lease_path: str, prefix: str) -> bool:
    """Return whether a lease is below `prefix`, which may be its own id."""
    return f"{lease_path.rstrip('/')}/".startswith(f"{prefix.rstrip('/')}/")


def _repeated_revocation(names: set[str], trail: AuditTrail, after: Observation | None) -> Observation | None:
    """Return a worker's revocation that found its unanswered one already done.

    Where the response line of a revocation could not be written, or the server died before it, the token may be revoked
    nevertheless (docs/vault-facts.md, "Audit devices"). A later revocation then finds no such token. So the request
    line of the earlier revocation shows the act, and the answer to the later one shows its success. Where the server
    died in the middle, the later revocation fails. Then a look-up that shows that the revocation has begun is the
    answer: Vault does not accept such a token.
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
    begun = (o for o in trail.observations if _shows_begun(o, trail) and o.subject in names)
    answers = [*(o for o in own if o.closing and "warnings" in o.detail), *begun]
    return next((o for o in answers if follows(o, unanswered)), None)


def _shows_begun(line: Observation, trail: AuditTrail) -> bool:
    """Return whether a look-up found that the token's revocation has begun.

    Only look-ups by a worker count.
    """
    is_lookup = line.kind is Kind.TOKEN_LOOKUP and line.actor in trail.worker_accessors
    return is_lookup and done(line) and "revocation_begun" in line.detail


def _own_lease_revocation(names: set[str], lines: Iterable[Observation], trail: AuditTrail) -> Observation | None:
    """Return the worker's successful revocation of a lease.

    `names` are the lease id and its HMAC: a request that has the id in its body shows the HMAC. Returns None where
    another entity's revocation came first. Whether that one reached the backend is not known, and the worker's own then
    found nothing to do and still got 204.
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
    """Return the line of a worker's look-up that found no such credential.

    It is the first one with a canary after it in its segment: where the stream was cut off right after a look-up, a
    later look-up counts. Over a gap, check 5 needs a listing in the same segment as well: where a second gap lies
    between look-up and listing, the look-up counts whose segment has a listing.
    """
    found = list(_gone_lines(credential, trail, after))
    closed = [o for o in found if canary_after(trail, o.place) is not None]
    if not closed:
        return next(iter(found), None)
    first = closed[0]
    issue = issue_line(credential, trail.observations)
    if issue is None or segment(first.place) == segment(issue.place):
        return first
    return next((o for o in _first_per_segment(closed) if _has_listing(credential, trail, o)), first)


def _first_per_segment(lines: Iterable[Observation]) -> list[Observation]:
    """Return the first of the lines in each segment."""
    firsts: dict[tuple[str, int], Observation] = {}
    for line in lines:
        firsts.setdefault(segment(line.place), line)
    return list(firsts.values())


def _has_listing(credential: Credential, trail: AuditTrail, line: Observation) -> bool:
    """Return whether a good listing lies in the segment of `line`."""
    return listed(trail, credential.listing_ops, in_segment_of=line.place) is not None


def _gone_lines(credential: Credential, trail: AuditTrail, after: Observation | None) -> Iterator[Observation]:
    """Yield the worker's look-ups after `after` that found no such credential."""
    # a renewal is how a look-up asks Vault's storage, and names the lease in plain
    names: dict[Kind, set[str]] = {Kind.LEASE_LOOKUP: {credential.lookup_subject}, Kind.RENEWED: {credential.subject}}
    if credential.kind != "lease":
        names = {
            Kind.TOKEN_LOOKUP: {credential.lookup_subject, *credential.other_hmacs},
            Kind.LEASE_LOOKUP: {credential.alias_lookup},
            Kind.RENEWED: {credential.alias},
        }
    return (
        o
        for o in trail.observations
        if o.closing
        and o.subject in names.get(o.kind, ())
        and o.op in credential.lookup_ops
        and o.actor in trail.worker_accessors
        and (_says_gone(o, credential) or _shows_begun(o, trail))
        and follows(o, after)
    )


def _says_gone(line: Observation, credential: Credential) -> bool:
    return line.failed and any(error in line.error for error in credential.gone_errors)


def alive_line(credential: Credential, trail: AuditTrail, *, before: Observation) -> Observation | None:
    """Return the last look-up that found the credential before `before`.

    The look-up is the worker's. Only look-ups in the segment of `before`, which is a revocation, count.
    """
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
    """Return the worker's last look-up that found what an earlier one missed.

    A credential reappears where Vault was restored from a snapshot.
    """
    gone = next(_gone_lines(credential, trail, after), None)
    if gone is None:
        return None
    own = (o for o in reversed(trail.observations) if o.op in credential.live_ops and o.actor in trail.worker_accessors)
    return next((o for o in own if done(o) and follows(o, gone)), None)


def expiry_canary(credential: Credential, trail: AuditTrail) -> Canary | None:
    """Return the first canary after a token's TTL was over, if any.

    Vault writes no line when a token expires, so the time of a canary, by Vault's clock, has to show it. A renewal that
    was done, by anyone, says in its line how long it gave. A renewal without an answer may still be under way: then a
    look-up after it has to say that the token is gone. A renewal whose line does not say how long it gave counts as the
    longest that the token's role allows.
    """
    if credential.kind != "token" or credential.expires_at is None:
        return None
    names = {credential.subject, *credential.other_hmacs}
    derived = derived_tokens(trail.observations)
    # a renewal may name the token by a derived token's HMAC
    asked = [o for o in trail.observations if o.kind is Kind.RENEWED and owning_token(o, derived) in names]
    # a request that Vault denied has no answer, and renews nothing
    renewals = [o for o in asked if "denied" not in o.detail]
    answered = {o.request_id for o in renewals if o.closing}
    unanswered = [o for o in renewals if not o.closing and o.request_id not in answered]
    ends = [renewed_until(o) or credential.last_end for o in [*filter(done, renewals), *unanswered]]
    if None in ends:
        return None
    expired_at = max(filter(None, (credential.expires_at, *ends)))
    gone = lookup_line(credential, trail, after=unanswered[-1]) if unanswered else None
    if unanswered and gone is None:
        return None
    return next((c for c in trail.canaries if c.at >= expired_at and _comes_after(c, gone)), None)


def _comes_after(canary: Canary, line: Observation | None) -> bool:
    """Return whether the canary comes after the line, if there is one."""
    return line is None or Point(line.place, line.at).before(Point(canary.place, canary.at))
