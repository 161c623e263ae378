"""Take a task in again that the ledger lost, or go on from where Vault says that it is: one event, and what it names.

The event `recovered` says what it was made from. Nothing that was published raises a verdict: a revision that no
signature carries has to be proven by the target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jitvault.context import WorkerContext
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import InvalidInput, JitvaultError
from jitvault.ledger.model import AccessRow, Change, GrantRow, RevisionRow, Row, TaskRecord, TaskRow
from jitvault.lifecycle.decision.admit import readmit_request
from jitvault.lifecycle.decision.questions import decision_input
from jitvault.lifecycle.record.receipt import votes_digest
from jitvault.lifecycle.requests.publish import publish
from jitvault.model.event_chain import GENESIS
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import OVER, EndReason, State
from jitvault.policy.decision import NO_OBLIGATIONS, Decision, Obligations, ProofLevel
from jitvault.recovery.imported_rows import chain_in, grants_of, leases_of, proof_in, renewed, verdicts_of
from jitvault.recovery.outcomes import RecoveryAction
from jitvault.recovery.survey import RecoveryCase

NOTE = "the ledger was lost or restored; what may hold access then is ended"
_SILENT = frozenset({RecoveryAction.KEPT, RecoveryAction.LEFT, RecoveryAction.CONTRADICTS})


def import_task(worker: WorkerContext, case: RecoveryCase) -> TaskRecord | None:
    """Do what the case says, and publish it: from then on the ledger and Vault agree. None where nothing is done.

    Raises InvalidInput for a request that cannot be taken, which is told to whoever asked.
    """
    task_id = case.said.task_id
    if case.fate in _SILENT:
        return None
    standing = None
    if case.fate is RecoveryAction.ANEW:
        standing = readmit_request(worker, task_id, published=case.said)
    elif case.fate is not RecoveryAction.TOLD:
        known = worker.ledger.file(task_id)
        if known is None:
            parent = case.said.parent
            if parent is not None and worker.ledger.task(parent) is None:
                raise InvalidInput(f"task {parent}, which handed its access on, could not be taken in")
            _create(worker, case)
        else:
            with worker.ledger.claim(task_id) as claim:
                _go_on(worker, worker.file(task_id), case, claim)
    file = worker.file(task_id)
    publish(worker, file, standing)
    return file


def _create(worker: WorkerContext, case: RecoveryCase) -> None:
    said, now = case.said, worker.now()
    state, begun = _state(case), min((one.since for one in case.made), default=said.written_at)
    task = TaskRow(
        task_id=said.task_id,
        state=state,
        end_reason=_end_reason(said) if state is not State.CANCELLED else None,
        revision=said.revision,
        digest=said.digest,
        requester=said.requester,
        agent=said.agent,
        version=0,
        seq=0,
        head=GENESIS,
        created_at=begun,
        due_at=now if state is State.ENDING else None,
        ends_at=said.ends_at,
        ending_at=now if state is State.ENDING else None,
        dead_ms=proof_in(case).get("dead_ms"),
        confirmed_ms=proof_in(case).get("confirmed_ms"),
        receipt=said.receipt if case.receipt else None,
        parent=said.parent,
    )
    decision = _decision(worker, case)
    grants, settled = grants_of(worker, case, ())
    leases, checks = leases_of(case, grants)
    change = Change(
        EventKind.RECOVERED,
        {
            **_body(case, grants, settled, said.digest),
            **_decided(case, decision),
            **_ended(case, state),
            "leases": [lease.lease_id for lease in leases],
            "ends_at": said.ends_at.isoformat() if said.ends_at else None,
        },
        rows=(*_opened(case, decision), *grants, *leases, *checks),
    )
    worker.ledger.create(task, change, at=now)


def _go_on(worker: WorkerContext, file: TaskRecord, case: RecoveryCase, claim: int) -> None:
    """Add to the chain of a task that the ledger has in an older state."""
    said, now = case.said, worker.now()
    if case.fate is RecoveryAction.GOES_ON:
        kept = renewed(worker, file)
        # it stands as it was decided here
        body = {**_body(case, (), (), file.task.digest), **_expiry(kept)}
        due: dict[str, Any] = {} if file.task.state in OVER else {"due_at": now}
        worker.ledger.apply(said.task_id, Change(EventKind.RECOVERED, body, rows=kept, fields=due), claim=claim, at=now)
        return
    state = _state(case)
    fields: dict[str, Any] = {"revision": said.revision, "digest": said.digest, "due_at": None}
    if state is State.ENDING:
        fields |= {"due_at": now, "ending_at": file.task.ending_at or now}
    if state is not State.CANCELLED:
        fields["end_reason"] = file.task.end_reason or _end_reason(said)
    grants, settled = grants_of(worker, case, file.grants) if case.receipt is None else ((), ())
    earlier = tuple(replace(grant, settled=True) for grant in file.grants) if grants else file.grants
    if case.receipt:
        fields |= {"receipt": said.receipt, **{key: proof_in(case).get(key) for key in ("dead_ms", "confirmed_ms")}}
        earlier = tuple(replace(grant, settled=True) for grant in earlier)
    settled = (*settled, *(grant.grant_id for grant in earlier if grant.settled))
    body = {**_body(case, grants, settled, said.digest), **_ended(case, state)}
    rows: list[Row] = [*earlier, *grants]
    if said.digest != file.task.digest:
        decision = _decision(worker, case)
        body |= _decided(case, decision)
        rows += _opened(case, decision)
    if case.receipt:
        rows += verdicts_of(case, file)
    worker.ledger.apply(
        said.task_id, Change(EventKind.RECOVERED, body, state=state, fields=fields, rows=rows), claim=claim, at=now
    )


# -- what the event says --------------------------------------------------------------------------------------


def _body(case: RecoveryCase, grants: Sequence[GrantRow], settled: Sequence[str], digest: str) -> dict[str, Any]:
    """What every such event says; `digest` is the one that the task has from then on."""
    said, lines = case.said, {one.accessor: one.line for one in case.made}
    return {
        "from": said.chain,
        "revision": said.revision,
        "digest": digest,
        "verified_by": list(case.verified_by),
        "grants": [
            {
                "grant": grant.grant_id,
                "accessor": grant.accessor_hmac,
                "line": lines.get(grant.accessor_hmac or "", ""),
                "token_lease": grant.token_lease,
                "expires_at": grant.expires_at.isoformat() if grant.expires_at else None,
            }
            for grant in grants
            if grant.accessor_hmac
        ],
        "settled": list(settled),
        "leases": [],
        "sealed_head": chain_in(case).get("head"),
    }


def _decided(case: RecoveryCase, decision: Decision) -> dict[str, Any]:
    """The decision, where the ledger has none of its own about the revision."""
    return {
        "policy": decision.policy_digest,
        "rules": list(decision.rules),
        "permitted": decision.permitted,
        "obligations": decision.obligations.as_json(),
        "approved_by": list(case.approved_by),
        "denied_by": None,
        "votes": votes_digest(()),
    }


def _ended(case: RecoveryCase, state: State) -> dict[str, Any]:
    return {"reason": _end_reason(case.said).value, "note": case.why or NOTE} if state is State.ENDING else {}


def _decision(worker: WorkerContext, case: RecoveryCase) -> Decision:
    """The decision that the record keeps. Its rung is never below what policy asks now, and the target's where nothing
    signed carries the revision: what was published decides nothing.
    """
    published = case.said.decision
    try:
        obliged = Obligations.of(published["obligations"])
    except (KeyError, TypeError, ValueError):
        obliged = NO_OBLIGATIONS
    higher = ProofLevel.TARGET in (obliged.confirm, _rung_now(worker, case))
    return Decision(
        permitted=True,
        obligations=replace(obliged, confirm=ProofLevel.TARGET if higher else obliged.confirm),
        rules=tuple(str(rule) for rule in published.get("rules") or ()),
        policy_digest=str(published.get("policy_digest") or ""),
    )


def _rung_now(worker: WorkerContext, case: RecoveryCase) -> ProofLevel | None:
    if not case.verified_by:
        return ProofLevel.TARGET
    try:
        decision = worker.authorizer.decide(decision_input(worker, Revision.of(case.said.body)).to_issue())
    except JitvaultError:
        return ProofLevel.TARGET
    return decision.obligations.confirm if decision.permitted else ProofLevel.TARGET


def _state(case: RecoveryCase) -> State:
    if case.fate is RecoveryAction.CLOSED:
        return case.said.state
    return State.CANCELLED if case.fate is RecoveryAction.CANCELLED else State.ENDING


def _end_reason(said: PublishedTask) -> EndReason:
    return said.end_reason or EndReason.OPERATOR


def _opened(case: RecoveryCase, decision: Decision) -> tuple[Row, ...]:
    said, revision = case.said, Revision.of(case.said.body)
    agent, owner = (revision.content[part]["entity"] for part in ("agent", "owner"))
    budgets: Counter[str] = Counter()
    for entry in revision.access:
        budgets[entry["template"]] += entry["lease_budget"]
    row = RevisionRow(said.task_id, said.revision, said.digest, said.body, decision.as_json())
    asked_for = (
        AccessRow(said.task_id, said.revision, name, agent, owner, budget) for name, budget in sorted(budgets.items())
    )
    return (row, *asked_for)


def _expiry(kept: Sequence[GrantRow]) -> dict[str, Any]:
    return {
        key: value
        for grant in kept
        if grant.expires_at
        for key, value in (("grant", grant.grant_id), ("expires_at", grant.expires_at.isoformat()))
    }


# -- what a receipt says, which Vault's key signed -------------------------------------------------------------
