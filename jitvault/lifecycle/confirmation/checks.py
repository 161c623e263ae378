"""The only place that can say that a credential is proven dead.

An HTTP status is a claim. Proof is evidence from the audit stream, by lookup and from the target, checked
here one by one; a check without evidence fails. The checks, by number:

1. the lease or token is known from its issue line;
2. a response line of its revocation: right subject, no error, no mere acceptance (202);
3. a later lookup says that it does not exist, and that lookup is itself in the stream;
4. nothing in between can make a revocation look done: no tidy, forced revocation, unmount or remount, no
   re-created audit device, no write to the mount's configuration or roles;
5. the stream was trusted from issue to lookup: one contiguous stretch with matching canaries around it. Over a gap
   it is trusted again when a look-up after it found the credential alive (so nothing in the gap took its record
   away) or it had been revoked before, and a listing of the task's prefixes showed no lease that nobody knows;
6. where the template asks for it: the target refuses the credential, and no session of it was found. Of a certificate
   that is what its CRL and OCSP responder say; its sessions are at servers that nobody asks, and this says nothing of
   them;
7. quiet, for the task: every request of the token has its answer, every lease seen is dead, and a canary at
   least one second after the revocation shows nothing newer. A request that never gets its answer waits for the
   server's longest request and for such a listing. What was read in a wrapping and has no lease that is known needs
   the listing, and the target's word that nothing is left that may have come of it.

Six ways in which Vault's own answer is not enough: docs/vault-facts.md, "Revocation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jitvault.audit.observation import Observation
from jitvault.audit.trail import (
    AuditTrail,
    Canary,
    Point,
    canary_after,
    canary_before,
    follows,
    listed,
    segment,
    shown,
    unshown,
)
from jitvault.engines.interface import ProbeResult
from jitvault.lifecycle.confirmation.hazards import hazards, shown_act, written_to
from jitvault.lifecycle.confirmation.timeline import (
    Credential,
    alive_line,
    expiry,
    issue_line,
    lookup_line,
    reappearance,
    revocation_line,
)
from jitvault.model.proof_check import LASTING, Check
from jitvault.model.states import Verdict

_PROVEN = (Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED)


@dataclass(frozen=True, slots=True)
class Proof:
    """The verdict on one credential and the checks that it rests on."""

    verdict: Verdict
    checks: tuple[Check, ...]


def confirm(credential: Credential, trail: AuditTrail, *, probed: ProbeResult | None, target: bool) -> Proof:
    """The verdict that the evidence carries, never more.

    `target` says whether the template asks for proof from the target; without it check 6 is not made.
    """
    issue = issue_line(credential, trail.observations)
    # what was there again after it was gone has to be ended anew
    end = revocation_line(credential, trail, after=reappearance(credential, trail, after=issue) or issue)
    revoked = _judged(credential, trail, issue, end, None, probed=probed, target=target)
    expired = expiry(credential, trail)
    if expired is None or revoked.verdict in _PROVEN:
        return revoked
    # what was not revoked for sure is dead all the same once its time is over
    over = _judged(credential, trail, issue, None, expired, probed=probed, target=target)
    return over if over.verdict in _PROVEN or end is None else revoked


def _judged(
    credential: Credential,
    trail: AuditTrail,
    issue: Observation | None,
    end: Observation | None,
    expired: Canary | None,
    *,
    probed: ProbeResult | None,
    target: bool,
) -> Proof:
    """The checks on one way in which the credential can have ended."""
    lookup = lookup_line(credential, trail, after=end or reappearance(credential, trail, after=issue) or issue)
    last = Point.of(lookup) or (Point(expired.place, expired.at) if expired else None)
    checks = [
        # 1
        Check(1, issue is not None, shown(issue, "no issue line was seen")),
        # 2
        Check(2, bool(end or expired), shown(end, _over(expired) or "no revocation line without error was seen")),
        # 3
        Check(
            3,
            last is not None,
            shown(lookup, _over(expired) or "no look-up line that says it is gone was seen"),
        ),
        # 4
        _nothing_between(credential, trail, Point.of(issue), end, last),
        # 5
        _trusted(credential, trail, issue, end, last, refused=target and _refused(probed).ok),
    ]
    if target:
        # 6
        checks.append(_refused(probed))
    begun = Point.of(issue)
    written = begun is None or last is None or written_to(credential, trail, begun, last) is not None
    return Proof(_verdict(credential, checks, expired=expired is not None, written=written), tuple(checks))


def _verdict(credential: Credential, checks: Sequence[Check], *, expired: bool, written: bool) -> Verdict:
    ok = {check.n: check.ok for check in checks}
    if credential.forced and not expired:
        # Vault was made to forget it, whatever became of it: of its words only that it was there counts; and where its
        # mount was written to meanwhile, the target that was asked may not be the one that it was made at
        proven = all(ok.get(n) for n in (1, 3, 5, 6)) and not written
        return Verdict.TARGET_CONFIRMED if proven else Verdict.UNVERIFIABLE
    if all(ok[n] for n in (1, 2, 3, 4, 5)):
        if expired:
            return Verdict.EXPIRED
        return Verdict.TARGET_CONFIRMED if ok.get(6) else Verdict.AUDIT_CONFIRMED
    # what was found after it had been gone is back, whatever an older look-up said
    gone = credential.lookup_ops and not credential.there
    if gone and credential.claimed not in (Verdict.REVOKE_FAILED, Verdict.IRREVOCABLE):
        return Verdict.GONE
    if credential.claimed in _PROVEN:
        # nobody can claim what only the checks can say
        return Verdict.ACKNOWLEDGED
    return credential.claimed


def is_proven(proof: Proof, *, target: bool) -> bool:
    """Whether the verdict reaches what the template asks for."""
    if target:
        return proof.verdict is Verdict.TARGET_CONFIRMED
    return proof.verdict in _PROVEN


def _nothing_between(
    credential: Credential, trail: AuditTrail, issue: Point | None, end: Observation | None, last: Point | None
) -> Check:
    """Whether an act between issue and look-up can have made the revocation look done.

    One that takes records away did not take this one when it was seen alive afterwards, still before its end. A write
    to the mount's own configuration is about what the revocation does, and nothing makes up for it.
    """
    if issue is None or last is None:
        return Check(4, ok=False, evidence="the interval from issue to look-up is not known")
    if (written := written_to(credential, trail, issue, last)) is not None:
        return Check(4, ok=False, evidence=f"{shown_act(written)}: {LASTING}")
    alive = alive_line(credential, trail, before=end) if end else None
    for hazard in hazards(credential, trail, issue, last):
        if alive is None or not follows(alive, hazard):
            return Check(4, ok=False, evidence=shown_act(hazard))
    return Check(4, ok=True, evidence=f"none from {issue.at.isoformat()} to {last.at.isoformat()}")


def _trusted(
    credential: Credential,
    trail: AuditTrail,
    issue: Observation | None,
    end: Observation | None,
    last: Point | None,
    *,
    refused: bool,
) -> Check:
    if issue is None or last is None:
        return Check(5, ok=False, evidence="the interval from issue to look-up is not known")
    before = canary_before(trail, issue.place)
    after = canary_after(trail, last.place)
    if after is None:
        return Check(5, ok=False, evidence="no matching canary after it")
    if before is not None and segment(issue.place) == segment(last.place):
        return Check(5, ok=True, evidence=f"{issue.place.source} bytes {before} to {after} read contiguously")
    return _reconciled(credential, trail, issue, end, last, begun=before is not None, refused=refused)


def _reconciled(
    credential: Credential,
    trail: AuditTrail,
    issue: Observation,
    end: Observation | None,
    last: Point,
    *,
    begun: bool,
    refused: bool,
) -> Check:
    """Whether what a gap may hide is ruled out: a lease that nobody knows, an act that took the record away.

    `begun` says that a canary stands before the issue. Without one (a lease from a node that has just become the
    active one) it has to have been seen alive, whatever stretch its end is in.
    """
    listing = listed(trail, credential.listing_ops, in_segment_of=last.place)
    if listing is None:
        missing = "the stream was interrupted between issue and look-up" if begun else "no matching canary before it"
        return Check(5, ok=False, evidence=f"{missing}{unshown(trail)}")
    how = f"interrupted; nothing unaccounted for was listed (line {listing.line[:16]})"
    if begun and (end is None or segment(issue.place) == segment(end.place)):
        return Check(5, ok=True, evidence=f"{how}; its end came before the gap")
    alive = alive_line(credential, trail, before=end) if end else None
    if alive is None and credential.kind == "token" and end is not None and end.actor == end.subject:
        return Check(5, ok=True, evidence=f"{how}; it revoked itself after the gap")
    if alive is None and refused:
        # an act that took its record away would have left it working there
        return Check(5, ok=True, evidence=f"{how}; and the target refuses it")
    if alive is None:
        missing = "the stream was interrupted, and nobody saw it alive between gap and revocation"
        return Check(5, ok=False, evidence=missing)
    return Check(5, ok=True, evidence=f"{how}; it was alive after the gap (line {alive.line[:16]})")


def _refused(probed: ProbeResult | None) -> Check:
    if probed is None:
        return Check(6, ok=False, evidence="the target was not probed")
    return Check(6, ok=probed.is_over, evidence=probed.evidence)


def _over(expired: Canary | None) -> str:
    return f"its TTL was over at {expired.at.isoformat()}, by Vault's clock" if expired else ""
