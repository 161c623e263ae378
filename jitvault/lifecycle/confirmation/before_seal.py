"""Judge a confirmed task once more before its seal: newer evidence may differ."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from jitvault.audit.observation import restores
from jitvault.context import WorkerContext
from jitvault.engines.interface import ProbeResult
from jitvault.ledger.model import LeaseRow
from jitvault.lifecycle.confirmation.checks import Proof, is_proven
from jitvault.lifecycle.confirmation.confirm import Hashed, is_never_issued, judge_lease, judge_token, probe
from jitvault.lifecycle.confirmation.evidence import Evidence
from jitvault.lifecycle.confirmation.lookups import is_any_live
from jitvault.lifecycle.confirmation.reopen import BACK
from jitvault.lifecycle.confirmation.rounds import refused_by_target
from jitvault.lifecycle.confirmation.wrapped_read_probes import asked_before
from jitvault.lifecycle.confirmation.wrapped_reads import unproven_read
from jitvault.lifecycle.record.integrity import is_complete
from jitvault.model.revision import Revision


def why_proof_fails_now(worker: WorkerContext, evidence: Evidence) -> str | None:
    """Return why a confirmed task is not proven any more; None where it is.

    What rests on the word of a target alone (over a gap, or where Vault was made to forget a lease) is asked for there
    once more, and after a restore of Vault all that a target refused. A target that does not answer now takes nothing
    back of what it said when the task was confirmed.
    """
    file, open_ = evidence.file, evidence.doubts(worker)
    if open_.unleased:
        return open_.unleased
    if open_.why_list and not evidence.listing_covers_all():
        return f"{open_.why_list}, and nothing was listed since"
    if why := unproven_read(open_.wrapped, asked_before(file)):
        return why
    if not is_complete(worker, file, evidence.trail):
        return "the stream shows a lease that was not judged"
    hashed = cache(worker.hasher.hash)
    for grant in file.grants:
        if not is_never_issued(grant):
            token = judge_token(hashed, evidence, grant)
            if not is_proven(token, target=False):
                return _failing("its token", token)
    if why := _lease_unproven(worker, evidence, hashed):
        return why
    return BACK if is_any_live(worker, (*file.grants, *file.leases)) else None


def _lease_unproven(worker: WorkerContext, evidence: Evidence, hashed: Hashed) -> str | None:
    """Return why a lease is not proven dead any more; None where all are."""
    file, revision = evidence.file, Revision.of(evidence.file.revision.body)
    # by the chain: the rows are a cache
    refused = refused_by_target(file.events)
    doubtful: dict[LeaseRow, Proof] = {}
    for lease in file.leases:
        entry = revision.template_of(lease.path) or {}
        proof = judge_lease(hashed, file, lease, evidence.trail, None, asked=entry, target=False)
        if not is_proven(proof, target=False):
            doubtful[lease] = proof
    # of certificates the target is Vault, which may be an older one again
    asked = file.leases if any(restores(evidence.trail.observations)) else tuple(doubtful)
    by_target = [lease for lease in asked if lease.lease_id in refused]
    for lease in doubtful.keys() - set(by_target):
        return _failing(lease.lease_id, doubtful[lease])
    now = probe(worker, file, revision, by_target)
    for lease in by_target:
        entry = revision.template_of(lease.path) or {}
        said = _as_said(now, lease)
        proof = judge_lease(hashed, file, lease, evidence.trail, said, asked=entry, target=True)
        if not is_proven(proof, target=True):
            return _failing(lease.lease_id, proof)
    return None


def _as_said(now: Mapping[str, ProbeResult], lease: LeaseRow) -> ProbeResult:
    """Return what the target says now of a lease that it refused before."""
    found = now.get(lease.target_name or "")
    if found is not None and found.seen:
        return found
    why = found.evidence if found else "it was not asked"
    kept = "the target refused it when the task was confirmed, and has said nothing else since"
    return ProbeResult(refused=True, open_sessions=None, evidence=f"{kept} ({why})")


def _failing(what: str, proof: Proof) -> str:
    """Describe the first check of a credential that does not hold."""
    check = next((check for check in proof.checks if not check.ok), None)
    if check is None:
        return f"{what} is {proof.verdict.value}"
    return f"check {check.n} of {what} does not hold any more: {check.evidence}"
