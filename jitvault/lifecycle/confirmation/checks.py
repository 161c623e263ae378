"""The only place that decides that a credential is proven dead.

An HTTP status of Vault's proves nothing. The proof is evidence from the audit stream, from look-ups, and from the
target. It is checked here point by point, and a check without evidence fails. The checks, by number:

1. the lease or token is known from its issue line;
2. its revocation has a response line: with the right subject, without an error, and not a mere acceptance (202). Where
   Vault died during a token's revocation, a look-up shows that the revocation has begun;
3. a later look-up says that it does not exist, or that the token's revocation has begun, after which Vault does not
   accept the token. The look-up itself is in the stream;
4. nothing between issue and look-up can make a revocation look done that is not: no tidy, forced revocation, unmount or
   remount, no re-created audit device, no write to the mount's configuration or roles;
5. the stream was trusted from issue to look-up: one contiguous segment with matching canaries before and after. Over a
   gap, the stream is trusted again under two conditions. The credential had been revoked before the gap, or a look-up
   after the gap found it alive, so no act in the gap took its record away. And a listing of the task's prefixes showed
   no lease that belongs to no task;
6. where the template requires it: the target refuses the credential, and has no session of it. For a certificate, the
   target is its CRL and its OCSP responder. Its sessions are at servers that are not asked, and the check says nothing
   about them;
7. the task is quiet: every request of its token has an answer, every lease that was seen is dead, and a canary at least
   one second after the revocation shows nothing newer. A request that never gets its answer has to wait for the
   server's longest request and needs the listing of check 5. A wrapped read whose lease is not known needs the listing,
   and the target has to say that nothing is left that may have come from the read.

Vault's own answer is not enough in six ways: docs/vault-facts.md, "Revocation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import (
    AuditTrail,
    Canary,
    Point,
    canary_after,
    canary_before,
    follows,
    is_elided,
    listed,
    segment,
    shown,
)
from jitvault.lifecycle.confirmation.hazards import first_write_to_mount, hazards, in_the_way
from jitvault.lifecycle.confirmation.timeline import (
    Credential,
    alive_line,
    expiry_canary,
    issue_line,
    lookup_line,
    reappearance,
    revocation_line,
)
from jitvault.model.evidence import Closed, Contiguous, Expiry, Gap, Interval, Lack, Missing
from jitvault.model.proof_check import TARGET_N, Check
from jitvault.model.states import Verdict

_PROVEN = (Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED)


@dataclass(frozen=True, slots=True)
class Proof:
    """The verdict on one credential and the checks that it rests on."""

    verdict: Verdict
    checks: tuple[Check, ...]


def judge_credential(credential: Credential, trail: AuditTrail, *, probed: Check | None, target: bool) -> Proof:
    """Return the highest verdict that the evidence supports, with its checks.

    `target` says whether the template requires proof from the target; without it check 6 is not made. `probed` is that
    check by what the target said of the credential, None where it was not asked.
    """
    issue = issue_line(credential, trail.observations)
    # a credential that reappeared after it was gone needs a revocation after that
    end = revocation_line(credential, trail, after=reappearance(credential, trail, after=issue) or issue)
    by_revocation = _judge(credential, trail, issue, end, None, probed=probed, target=target)
    expired = expiry_canary(credential, trail)
    if expired is None or by_revocation.verdict in _PROVEN:
        return by_revocation
    # a revocation that cannot be proven does not matter once the TTL is over
    by_expiry = _judge(credential, trail, issue, None, expired, probed=probed, target=target)
    return by_expiry if by_expiry.verdict in _PROVEN or end is None else by_revocation


def _judge(
    credential: Credential,
    trail: AuditTrail,
    issue: Observation | None,
    end: Observation | None,
    expired: Canary | None,
    *,
    probed: Check | None,
    target: bool,
) -> Proof:
    """Make the checks for one way to end.

    That way is by the revocation `end`, or `expired`.
    """
    lookup = lookup_line(credential, trail, after=end or reappearance(credential, trail, after=issue) or issue)
    over = Expiry(expired.at) if expired else None
    answered = probed or Check(TARGET_N, ok=False, evidence=Missing(lack=Lack.NOT_PROBED))
    last = Point.of(lookup) or (Point(expired.place, expired.at) if expired else None)
    checks = [
        # 1
        Check(1, issue is not None, shown(issue, Lack.ISSUE_LINE)),
        # 2
        Check(2, bool(end or expired), shown(end, over or Lack.REVOCATION_LINE)),
        # 3
        Check(3, last is not None, shown(lookup, over or Lack.GONE_LINE)),
        # 4
        _check_hazards(credential, trail, Point.of(issue), end, last),
        # 5
        _check_trust(credential, trail, issue, end, last, refused=target and answered.ok),
    ]
    if target:
        # 6
        checks.append(answered)
    issued_at = Point.of(issue)
    mount_changed = (
        issued_at is None or last is None or first_write_to_mount(credential, trail, issued_at, last) is not None
    )
    return Proof(_verdict(credential, checks, expired=expired is not None, mount_changed=mount_changed), tuple(checks))


def _verdict(credential: Credential, checks: Sequence[Check], *, expired: bool, mount_changed: bool) -> Verdict:
    """Return the verdict that the checks support."""
    ok = {check.n: check.ok for check in checks}
    if credential.forced and not expired:
        # Vault was made to forget the lease, whether or not it was revoked. So of Vault's answers only those count that
        # found the lease. And where the mount was written to meanwhile, the target that was asked may not be the one
        # where the credential was made
        proven = all(ok.get(n) for n in (1, 3, 5, 6)) and not mount_changed
        return Verdict.TARGET_CONFIRMED if proven else Verdict.UNVERIFIABLE
    if all(ok[n] for n in (1, 2, 3, 4, 5)):
        if expired:
            return Verdict.EXPIRED
        return Verdict.TARGET_CONFIRMED if ok.get(6) else Verdict.AUDIT_CONFIRMED
    # a credential that the newest look-up found is back, whatever an older one said
    gone = credential.lookup_ops and not credential.found_last
    if gone and credential.reported not in (Verdict.REVOKE_FAILED, Verdict.IRREVOCABLE):
        return Verdict.GONE
    if credential.reported in _PROVEN:
        # a proven verdict comes from the checks alone
        return Verdict.ACKNOWLEDGED
    return credential.reported


def is_proven(proof: Proof, *, target: bool) -> bool:
    """Return whether the verdict reaches what the template requires."""
    if target:
        return proof.verdict is Verdict.TARGET_CONFIRMED
    return proof.verdict in _PROVEN


def _check_hazards(
    credential: Credential, trail: AuditTrail, issue: Point | None, end: Observation | None, last: Point | None
) -> Check:
    """Make check 4: no act between issue and look-up can have faked the end.

    A hazardous act that takes records away did not take this one where the credential was seen alive after the act and
    before its revocation. A write to the mount's own configuration changes what a revocation does at the target, and no
    look-up makes up for that.
    """
    if issue is None or last is None:
        return Check(4, ok=False, evidence=Missing(lack=Lack.INTERVAL))
    written = first_write_to_mount(credential, trail, issue, last)
    if written is not None:
        return Check(4, ok=False, evidence=in_the_way(written, for_good=True))
    alive = alive_line(credential, trail, before=end) if end else None
    for hazard in hazards(credential, trail, issue, last):
        if alive is None or not follows(alive, hazard):
            return Check(4, ok=False, evidence=in_the_way(hazard))
    return Check(4, ok=True, evidence=Interval(issue.at, last.at))


def _check_trust(
    credential: Credential,
    trail: AuditTrail,
    issue: Observation | None,
    end: Observation | None,
    last: Point | None,
    *,
    refused: bool,
) -> Check:
    """Make check 5: the stream was trusted from issue to look-up.

    `refused` says that the target refuses the credential.
    """
    if issue is None or last is None:
        return Check(5, ok=False, evidence=Missing(lack=Lack.INTERVAL))
    before = canary_before(trail, issue.place)
    after = canary_after(trail, last.place)
    if after is None:
        return Check(5, ok=False, evidence=Missing(lack=Lack.CANARY_AFTER))
    if before is not None and segment(issue.place) == segment(last.place):
        return Check(5, ok=True, evidence=Contiguous(issue.place.source, before, after))
    return _check_trust_over_gap(credential, trail, issue, end, last, has_canary=before is not None, refused=refused)


def _check_trust_over_gap(
    credential: Credential,
    trail: AuditTrail,
    issue: Observation,
    end: Observation | None,
    last: Point,
    *,
    has_canary: bool,
    refused: bool,
) -> Check:
    """Make check 5 over a gap: what the gap may hide has to be ruled out.

    A gap may hide a lease that belongs to no task, and an act that took the credential's record away. `has_canary` says
    that a canary comes before the issue. Without one (as for a lease from a node that has just become the active one)
    the credential must have been seen alive, whichever segment its revocation is in.
    """
    listing = listed(trail, credential.listing_ops, in_segment_of=last.place)
    if listing is None:
        missing = Lack.INTERRUPTED if has_canary else Lack.CANARY_BEFORE
        return Check(5, ok=False, evidence=Missing(lack=missing, elided=is_elided(trail)))
    here = listing.line
    if has_canary and (end is None or segment(issue.place) == segment(end.place)):
        return Check(5, ok=True, evidence=Gap(here, Closed.ENDED_BEFORE))
    alive = alive_line(credential, trail, before=end) if end else None
    if alive is None and credential.kind == "token" and end is not None and end.actor == end.subject:
        return Check(5, ok=True, evidence=Gap(here, Closed.REVOKED_ITSELF))
    if alive is None and end is not None and end.kind is Kind.TOKEN_LOOKUP:
        return Check(5, ok=True, evidence=Gap(here, Closed.FOUND_REVOKED, end.line))
    if alive is None and refused:
        # an act that took its record away in Vault would have left the credential working at the target
        return Check(5, ok=True, evidence=Gap(here, Closed.TARGET_REFUSES))
    if alive is None:
        return Check(5, ok=False, evidence=Missing(lack=Lack.NOT_SEEN_ALIVE))
    return Check(5, ok=True, evidence=Gap(here, Closed.SEEN_ALIVE, alive.line))
