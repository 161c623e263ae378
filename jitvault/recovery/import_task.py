"""Import a published task that the ledger lost, in one event.

A task that the ledger has in an older state is brought up to the published state. The event `recovered` says what the
task was imported from. Nothing that was published raises a verdict: a task whose revision no signature confirms needs
proof from its target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from jitvault.context import WorkerContext
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import InvalidInput, JitvaultError
from jitvault.ledger.model import Change, GrantRow, Row, TaskRecord, TaskRow
from jitvault.lifecycle.decision.admit import readmit_request
from jitvault.lifecycle.decision.questions import decision_input
from jitvault.lifecycle.record.history import decisions_digest, opened_rows
from jitvault.lifecycle.record.integrity import check_integrity
from jitvault.lifecycle.requests.publish import publish
from jitvault.model.event_bodies import Recovered, RecoveredGrant, RevisionDecision
from jitvault.model.event_chain import GENESIS
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import OVER, EndReason, State
from jitvault.policy.decision import Decision, ProofLevel
from jitvault.recovery.imported_rows import grants_of, leases_of, renewed, verdicts_of
from jitvault.recovery.outcomes import RecoveryAction
from jitvault.recovery.survey import RecoveryCase

NOTE = "the ledger was lost or restored; what may hold access then is ended"
_SILENT = frozenset({RecoveryAction.KEPT, RecoveryAction.LEFT, RecoveryAction.CONTRADICTS})


def import_task(worker: WorkerContext, case: RecoveryCase) -> None:
    """Do the action of the case, and publish the task.

    From then on the ledger and Vault agree about it. Raises InvalidInput for
    a request that cannot be admitted; that refusal is published.
    """
    task_id = case.published.task_id
    if case.action in _SILENT:
        return
    decision = None
    if case.action is RecoveryAction.ANEW:
        decision = readmit_request(worker, task_id, published_copy=case.published)
    elif case.action is not RecoveryAction.TOLD:
        known = worker.ledger.record(task_id)
        if known is None:
            parent = case.published.parent
            if parent is not None and worker.ledger.task(parent) is None:
                raise InvalidInput(f"task {parent}, its parent, could not be imported")
            _create(worker, case)
        else:
            with worker.ledger.claim(task_id) as claim:
                _go_on(worker, worker.record(task_id), case, claim)
    publish(worker, worker.record(task_id), decision)


def _create(worker: WorkerContext, case: RecoveryCase) -> None:
    """Create a task that the ledger does not have."""
    published = case.published
    now = worker.now()
    state = _state(case)
    begun = min((token.since for token in case.made), default=published.written_at)
    task = TaskRow(
        task_id=published.task_id,
        state=state,
        end_reason=_end_reason(published) if state is not State.CANCELLED else None,
        revision=published.revision,
        digest=published.digest,
        requester=published.requester,
        agent=published.agent,
        version=0,
        seq=0,
        head=GENESIS,
        created_at=begun,
        due_at=now if state is State.ENDING else None,
        ends_at=published.ends_at,
        ending_at=now if state is State.ENDING else None,
        dead_ms=case.receipt.proof.dead_ms if case.receipt else None,
        confirmed_ms=case.receipt.proof.confirmed_ms if case.receipt else None,
        receipt=published.receipt if case.receipt else None,
        parent=published.parent,
    )
    decision = _decision(worker, case)
    grants = grants_of(worker, case, ())
    leases, checks = leases_of(case, grants)
    change = Change(
        EventKind.RECOVERED,
        msgspec.structs.replace(
            _body(case, grants, published.digest, ended=state is State.ENDING, decision=decision),
            leases=tuple(lease.lease_id for lease in leases),
            ends_at=published.ends_at,
        ),
        rows=(*_opened(case, decision), *grants, *leases, *checks),
    )
    worker.ledger.create(task, change, at=now)


def _go_on(worker: WorkerContext, record: TaskRecord, case: RecoveryCase, claim: int) -> None:
    """Extend the chain of a task that the ledger has in an older state.

    Raises SecurityFinding where its rows were edited: the chain would vouch for them from then on.
    """
    check_integrity(worker, record)
    published = case.published
    now = worker.now()
    if case.action is RecoveryAction.GOES_ON:
        kept = renewed(worker, record)
        # the decision in this ledger still holds
        body = _body(case, (), record.task.digest)
        due: dict[str, Any] = {} if record.task.state in OVER else {"due_at": now}
        worker.ledger.apply(
            published.task_id, Change(EventKind.RECOVERED, body, rows=kept, fields=due), claim=claim, at=now
        )
        return
    state = _state(case)
    fields: dict[str, Any] = {"revision": published.revision, "digest": published.digest, "due_at": None}
    if state is State.ENDING:
        fields |= {"due_at": now, "ending_at": record.task.ending_at or now}
    if state is not State.CANCELLED:
        fields["end_reason"] = record.task.end_reason or _end_reason(published)
    grants = grants_of(worker, case, record.grants) if case.receipt is None else ()
    earlier = tuple(replace(grant, settled=True) for grant in record.grants) if grants else record.grants
    if case.receipt:
        proof = case.receipt.proof
        fields |= {"receipt": published.receipt, "dead_ms": proof.dead_ms, "confirmed_ms": proof.confirmed_ms}
        earlier = tuple(replace(grant, settled=True) for grant in earlier)
    rows: list[Row] = [*earlier, *grants]
    decision = _decision(worker, case) if published.digest != record.task.digest else None
    if decision is not None:
        rows += _opened(case, decision)
    body = _body(case, grants, published.digest, ended=state is State.ENDING, decision=decision)
    if case.receipt:
        rows += verdicts_of(case, record)
    worker.ledger.apply(
        published.task_id, Change(EventKind.RECOVERED, body, state=state, fields=fields, rows=rows), claim=claim, at=now
    )


# -- what the event says --------------------------------------------------------------------------------------


def _body(
    case: RecoveryCase,
    grants: Sequence[GrantRow],
    digest: str,
    *,
    ended: bool = False,
    decision: Decision | None = None,
) -> Recovered:
    """Return what every `recovered` event says.

    `digest` is the digest that the task has from then on, and `decision` the one about the revision, if the ledger has
    none.
    """
    published = case.published
    lines = {token.accessor: token.line for token in case.made}
    return Recovered(
        from_=published.chain_and_state,
        revision=published.revision,
        digest=digest,
        verified_by=tuple(case.verified_by),
        grants=tuple(
            RecoveredGrant(grant=grant.grant_id, accessor=grant.accessor_hmac, line=lines.get(grant.accessor_hmac, ""))
            for grant in grants
            if grant.accessor_hmac
        ),
        leases=(),
        sealed_head=case.receipt.chain.head if case.receipt else None,
        request=case.request,
        decision=_decided(case, decision) if decision else None,
        reason=_end_reason(published) if ended else None,
        note=(case.why or NOTE) if ended else "",
    )


def _decided(case: RecoveryCase, decision: Decision) -> RevisionDecision:
    return RevisionDecision(
        policy=decision,
        approved_by=tuple(one.entity_id for one in case.approved),
        signed=tuple(one.envelope for one in case.approved),
        denied_by=None,
        missing=(),
        refused=(),
        agent_groups=(),
        votes=decisions_digest(()),
    )


def _decision(worker: WorkerContext, case: RecoveryCase) -> Decision:
    """Return the decision that the ledger keeps of an imported task.

    Its proof level is never below what policy requires now, and it is the target's where no signature confirms the
    revision: what was published decides nothing.
    """
    former = case.published.decision
    obliged = former.obligations
    higher = ProofLevel.TARGET in (obliged.confirm, _proof_level_now(worker, case))
    return Decision(
        permitted=True,
        obligations=msgspec.structs.replace(obliged, confirm=ProofLevel.TARGET if higher else obliged.confirm),
        rules=former.rules,
        policy_digest=former.policy_digest,
    )


def _proof_level_now(worker: WorkerContext, case: RecoveryCase) -> ProofLevel | None:
    if not case.verified_by:
        return ProofLevel.TARGET
    try:
        decision = worker.authorizer.decide(decision_input(worker, Revision.of(case.published.body)).to_issue())
    except JitvaultError:
        return ProofLevel.TARGET
    return decision.obligations.confirm if decision.permitted else ProofLevel.TARGET


def _state(case: RecoveryCase) -> State:
    if case.action is RecoveryAction.CLOSED:
        return case.published.state
    return State.CANCELLED if case.action is RecoveryAction.CANCELLED else State.ENDING


def _end_reason(published: PublishedTask) -> EndReason:
    return published.end_reason or EndReason.OPERATOR


def _opened(case: RecoveryCase, decision: Decision) -> tuple[Row, ...]:
    published = case.published
    return opened_rows(published.task_id, published.full_revision, published.revision, decision)
