"""Judge a confirmed task again before its seal: newer evidence may differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache

from jitvault.audit.observation import restores
from jitvault.context import WorkerContext
from jitvault.ledger.model import LeaseRow, TaskRecord
from jitvault.lifecycle.confirmation.checks import Proof, is_proven
from jitvault.lifecycle.confirmation.confirm import Hashed, is_never_issued, judge_lease, judge_token, probe
from jitvault.lifecycle.confirmation.evidence import Evidence
from jitvault.lifecycle.confirmation.wrapped_read_probes import answers_at_confirmation
from jitvault.lifecycle.confirmation.wrapped_reads import unproven_read
from jitvault.lifecycle.record.check_words import evidence_in_words
from jitvault.lifecycle.record.integrity import is_complete
from jitvault.lifecycle.record.lookups import BACK, is_any_live
from jitvault.lifecycle.record.reopenings import refused_by_target
from jitvault.model.evidence import TargetAnswer
from jitvault.model.proof_check import TARGET_N, Check
from jitvault.model.revision import Revision


def list_leases(worker: WorkerContext, record: TaskRecord) -> frozenset[str]:
    """Return the leases that Vault has below the task's paths now."""
    paths = {entry.path for entry in Revision.of(record.revision.body).access}
    return frozenset(lease for path in sorted(paths) for lease in worker.leases.list(path))


def why_proof_fails_now(worker: WorkerContext, evidence: Evidence, listed: Collection[str]) -> str | None:
    """Return why the proof of a confirmed task fails now; None where it holds.

    `listed` is what `list_leases` returned after the evidence was read: a lease that a restore of Vault brought back is
    among them. What is not listed there is looked up.

    A credential whose proof rests on its target alone (over a gap, or where Vault was made to forget a lease) is asked
    for there again. After a restore of Vault, every credential that a target refused is. A target that does not answer
    now does not invalidate what it said when the task was confirmed.
    """
    record = evidence.record
    if evidence.unnamed_tokens():
        return "the stream shows a token that was made under its intent, and that none of its grants names"
    questions = evidence.open_questions(worker)
    if questions.unleased:
        return evidence_in_words(questions.unleased)
    if questions.why_list and not evidence.listing_covers_all():
        return f"{evidence_in_words(questions.why_list)}, and nothing was listed since"
    if unproven := unproven_read(questions.wrapped, answers_at_confirmation(record)):
        return evidence_in_words(unproven)
    if not is_complete(worker, record, evidence.trail):
        return "the stream shows a lease that was not judged"
    hashed = cache(worker.hasher.remembered)
    for grant in record.grants:
        if not is_never_issued(grant):
            token = judge_token(hashed, evidence, grant)
            if not is_proven(token, target=False):
                return _first_failure("its token", token)
    if why := _lease_unproven(worker, evidence, hashed):
        return why
    revision = Revision.of(record.revision.body)
    elsewhere = [lease for lease in record.leases if revision.access_at(lease.path) is None]
    is_back = any(lease.lease_id in listed for lease in record.leases)
    return BACK if is_any_live(worker, (*record.grants, *elsewhere)) or is_back else None


def _lease_unproven(worker: WorkerContext, evidence: Evidence, hashed: Hashed) -> str | None:
    """Return why a lease is not proven dead any more; None where all are."""
    record = evidence.record
    revision = Revision.of(record.revision.body)
    # read from the event chain, since the rows are only a cache of it
    refused = refused_by_target(record.events)
    doubtful: dict[LeaseRow, Proof] = {}
    for lease in record.leases:
        entry = revision.access_at(lease.path)
        proof = judge_lease(hashed, record, lease, evidence.trail, None, access=entry, target=False)
        if not is_proven(proof, target=False):
            doubtful[lease] = proof
    # the target of a certificate is Vault itself, which a restore may have taken back in time
    to_ask = record.leases if any(restores(evidence.trail.observations)) else tuple(doubtful)
    by_target = [lease for lease in to_ask if lease.lease_id in refused]
    for lease in doubtful.keys() - set(by_target):
        return _first_failure(lease.lease_id, doubtful[lease])
    answers = probe(worker, record, revision, by_target)
    for lease in by_target:
        entry = revision.access_at(lease.path)
        answer = _answer_or_former(answers, lease)
        proof = judge_lease(hashed, record, lease, evidence.trail, answer, access=entry, target=True)
        if not is_proven(proof, target=True):
            return _first_failure(lease.lease_id, proof)
    return None


def _answer_or_former(answers: Mapping[str, Check], lease: LeaseRow) -> Check:
    """Return check 6 by the target's answer about a lease, or by its former refusal.

    The target is asked now. The target refused the lease when the task was confirmed.
    """
    answer = answers.get(lease.target_name or "")
    if answer is not None and isinstance(answer.evidence, TargetAnswer):
        return answer
    former = "the target refused it when the task was confirmed, and has said nothing else since"
    return Check(TARGET_N, ok=True, evidence=TargetAnswer("", lease.target_name or "", former))


def _first_failure(what: str, proof: Proof) -> str:
    """Describe the first check of a credential that does not hold."""
    check = next((check for check in proof.checks if not check.ok), None)
    if check is None:
        return f"{what} is {proof.verdict.value}"
    return f"check {check.n} of {what} does not hold any more: {evidence_in_words(check.evidence)}"
