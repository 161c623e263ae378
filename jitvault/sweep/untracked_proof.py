"""Decide whether an untracked credential is proven dead.

It has no task and often no issue line, so a look-up of the worker shows that it existed. The checks, by the numbers of
`jitvault.lifecycle.confirmation.checks`:

1. a look-up of the worker found it alive, and the look-up itself is in the audit stream;
2. after that, its revocation has a response line without an error;
3. after that, a look-up of the worker says that it does not exist, and the look-up itself is in the stream;
4. nothing in between can make a revocation look done that is not;
5. all these lines are in one segment that was read contiguously, between canaries.

A token has no backend that could fail. Once Vault says that it is gone and its TTL is over, it is dead in any case.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import AuditTrail, Canary, canary_after, canary_before, done, follows, segment, shown
from jitvault.lifecycle.confirmation.hazards import hazardous_acts, in_the_way, touches
from jitvault.model.evidence import Contiguous, Interval, Lack, Missing
from jitvault.model.proof_check import Check
from jitvault.model.states import Verdict


@dataclass(frozen=True, slots=True)
class UntrackedCredential:
    """An untracked credential that is to be proven dead.

    `hashed` is the HMAC of its lease id, by which a look-up's line names it. `live_ops` and `gone_ops` are the ids of
    look-ups that found it and that did not, and `revoke_ops` those of the worker's revocations. `gone_errors` are the
    wordings of "there is no such thing" in the stream. `reported` is the verdict that Vault reports.
    """

    lease_id: str
    kind: str
    mount: str
    hashed: str
    live_ops: frozenset[str]
    revoke_ops: frozenset[str]
    gone_ops: frozenset[str]
    gone_errors: frozenset[str]
    expires_at: datetime | None
    reported: Verdict


def judge(orphan: UntrackedCredential, trail: AuditTrail, newest: Canary) -> tuple[Verdict, tuple[Check, ...]]:
    """Return the highest verdict that the evidence supports, and the checks.

    `newest` is the last canary.
    """
    lines = [o for o in trail.observations if o.closing]
    seen = _last(o for o in lines if _is_look_up(orphan, o, trail) and o.op in orphan.live_ops and done(o))
    end = _revocation(orphan, lines, trail, after=seen)
    gone = _last(
        o
        for o in lines
        if _is_look_up(orphan, o, trail) and o.op in orphan.gone_ops and o.failed and _says_gone(orphan, o)
    )
    after = gone is not None and end is not None and follows(gone, end)
    checks = (
        # 1
        Check(1, seen is not None, shown(seen, Lack.LIVE_LINE)),
        # 2
        Check(2, end is not None, shown(end, Lack.REVOCATION_LINE)),
        # 3
        Check(3, after, shown(gone if after else None, Lack.GONE_LINE)),
        # 4
        _nothing_between(orphan, trail, seen, gone),
        # 5
        _in_one_stretch(trail, seen, end, gone),
    )
    if all(check.ok for check in checks):
        return Verdict.AUDIT_CONFIRMED, checks
    over = orphan.expires_at is not None and newest.at >= orphan.expires_at
    if orphan.kind == "token" and gone is not None and over and orphan.reported is Verdict.GONE:
        return Verdict.EXPIRED, checks
    return orphan.reported, checks


def _last(lines: Iterable[Observation]) -> Observation | None:
    return max(lines, key=lambda o: (o.at, o.place.offset), default=None)


def _is_look_up(orphan: UntrackedCredential, o: Observation, trail: AuditTrail) -> bool:
    # a renewal is how a look-up asks Vault's storage, and names the lease in plain
    names = {Kind.LEASE_LOOKUP: orphan.hashed, Kind.RENEWED: orphan.lease_id}
    return o.subject == names.get(o.kind) and o.actor in trail.worker_accessors


def _says_gone(orphan: UntrackedCredential, o: Observation) -> bool:
    return any(error in o.error for error in orphan.gone_errors)


def _revocation(
    orphan: UntrackedCredential, lines: Iterable[Observation], trail: AuditTrail, *, after: Observation | None
) -> Observation | None:
    """Return the response line of the revocation that counts.

    Where someone else revoked a lease first, none counts: whether that reached the backend is not known, and the
    worker's own revocation found nothing to do. A token has no backend, so anyone's revocation counts.
    """
    if after is None:
        return None
    for o in lines:
        if o.kind is not Kind.LEASE_REVOKED or o.subject not in (orphan.lease_id, orphan.hashed):
            continue
        if not follows(o, after) or "denied" in o.detail:
            continue
        ours = o.op in orphan.revoke_ops and o.actor in trail.worker_accessors
        if not ours and orphan.kind != "token":
            return None
        if not o.failed:
            return o
    return None


def _nothing_between(
    orphan: UntrackedCredential, trail: AuditTrail, seen: Observation | None, gone: Observation | None
) -> Check:
    if seen is None or gone is None:
        return Check(4, ok=False, evidence=Missing(lack=Lack.INTERVAL))
    for hazard in hazardous_acts(trail.observations):
        between = follows(hazard, seen) and follows(gone, hazard)
        if between and touches(hazard.path, orphan.mount, orphan.lease_id, token=orphan.kind == "token"):
            return Check(4, ok=False, evidence=in_the_way(hazard))
    return Check(4, ok=True, evidence=Interval(seen.at, gone.at))


def _in_one_stretch(
    trail: AuditTrail, seen: Observation | None, end: Observation | None, gone: Observation | None
) -> Check:
    if seen is None or end is None or gone is None:
        return Check(5, ok=False, evidence=Missing(lack=Lack.INTERVAL))
    before, after = canary_before(trail, seen.place), canary_after(trail, gone.place)
    if before is None or after is None:
        lack = Lack.CANARY_BEFORE if before is None else Lack.CANARY_AFTER
        return Check(5, ok=False, evidence=Missing(lack=lack))
    if len({segment(o.place) for o in (seen, end, gone)}) > 1:
        return Check(5, ok=False, evidence=Missing(lack=Lack.INTERRUPTED))
    return Check(5, ok=True, evidence=Contiguous(seen.place.source, before, after))
