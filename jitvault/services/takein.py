"""Take a task in again that the ledger lost, or go on from where Vault says that it is: one event, and what it names.

The event `recovered` says what it was made from. Nothing that was published raises a verdict: a revision that no
signature carries has to be proven by the target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from jitvault.domain.access import CAPS, cap_of
from jitvault.domain.chain import GENESIS
from jitvault.domain.lifecycle import OVER, RECOVERED, EndReason, State, Verdict
from jitvault.domain.policy import NO_OBLIGATIONS, Decision, Obligations, Rung
from jitvault.domain.recovery import Fate, Made, Said
from jitvault.domain.revision import Revision
from jitvault.errors import InvalidInput, JitvaultError
from jitvault.ports.ledger import AccessRow, Change, CheckRow, GrantRow, LeaseRow, RevisionRow, Row, TaskFile, TaskRow
from jitvault.services.ask import asked
from jitvault.services.consider import enter_again
from jitvault.services.context import Worker, new_id
from jitvault.services.proof import votes_digest
from jitvault.services.publish import publish
from jitvault.services.stocktake import Case

NOTE = "the ledger was lost or restored; what may hold access then is ended"
_WRAP_TTL_S = 300
_SILENT = frozenset({Fate.KEPT, Fate.LEFT, Fate.CONTRADICTS})


def take_in(worker: Worker, case: Case) -> TaskFile | None:
    """Do what the case says, and publish it: from then on the ledger and Vault agree. None where nothing is done.

    Raises InvalidInput for a request that cannot be taken, which is told to whoever asked.
    """
    task_id = case.said.task_id
    if case.fate in _SILENT:
        return None
    standing = None
    if case.fate is Fate.ANEW:
        standing = enter_again(worker, task_id, said=case.said)
    elif case.fate is not Fate.TOLD:
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


def _create(worker: Worker, case: Case) -> None:
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
        dead_ms=_proof(case).get("dead_ms"),
        confirmed_ms=_proof(case).get("confirmed_ms"),
        receipt=said.receipt if case.receipt else None,
        parent=said.parent,
    )
    decision = _decision(worker, case)
    grants, settled = _grants(worker, case, ())
    leases, checks = _leases_of(case, grants)
    change = Change(
        RECOVERED,
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


def _go_on(worker: Worker, file: TaskFile, case: Case, claim: int) -> None:
    """Add to the chain of a task that the ledger has in an older state."""
    said, now = case.said, worker.now()
    if case.fate is Fate.GOES_ON:
        kept = _renewed(worker, file)
        # it stands as it was decided here
        body = {**_body(case, (), (), file.task.digest), **_expiry(kept)}
        due: dict[str, Any] = {} if file.task.state in OVER else {"due_at": now}
        worker.ledger.apply(said.task_id, Change(RECOVERED, body, rows=kept, fields=due), claim=claim, at=now)
        return
    state = _state(case)
    fields: dict[str, Any] = {"revision": said.revision, "digest": said.digest, "due_at": None}
    if state is State.ENDING:
        fields |= {"due_at": now, "ending_at": file.task.ending_at or now}
    if state is not State.CANCELLED:
        fields["end_reason"] = file.task.end_reason or _end_reason(said)
    grants, settled = _grants(worker, case, file.grants) if case.receipt is None else ((), ())
    earlier = tuple(replace(grant, settled=True) for grant in file.grants) if grants else file.grants
    if case.receipt:
        fields |= {"receipt": said.receipt, **{key: _proof(case).get(key) for key in ("dead_ms", "confirmed_ms")}}
        earlier = tuple(replace(grant, settled=True) for grant in earlier)
    settled = (*settled, *(grant.grant_id for grant in earlier if grant.settled))
    body = {**_body(case, grants, settled, said.digest), **_ended(case, state)}
    rows: list[Row] = [*earlier, *grants]
    if said.digest != file.task.digest:
        decision = _decision(worker, case)
        body |= _decided(case, decision)
        rows += _opened(case, decision)
    if case.receipt:
        rows += _verdicts_of(case, file)
    worker.ledger.apply(
        said.task_id, Change(RECOVERED, body, state=state, fields=fields, rows=rows), claim=claim, at=now
    )


# -- what the event says --------------------------------------------------------------------------------------


def _body(case: Case, grants: Sequence[GrantRow], settled: Sequence[str], digest: str) -> dict[str, Any]:
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
        "sealed_head": _chain_of(case).get("head"),
    }


def _decided(case: Case, decision: Decision) -> dict[str, Any]:
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


def _ended(case: Case, state: State) -> dict[str, Any]:
    return {"reason": _end_reason(case.said).value, "note": case.why or NOTE} if state is State.ENDING else {}


def _decision(worker: Worker, case: Case) -> Decision:
    """The decision that the record keeps. Its rung is never below what policy asks now, and the target's where nothing
    signed carries the revision: what was published decides nothing.
    """
    published = case.said.decision
    try:
        obliged = Obligations.of(published["obligations"])
    except (KeyError, TypeError, ValueError):
        obliged = NO_OBLIGATIONS
    higher = Rung.TARGET in (obliged.confirm, _rung_now(worker, case))
    return Decision(
        permitted=True,
        obligations=replace(obliged, confirm=Rung.TARGET if higher else obliged.confirm),
        rules=tuple(str(rule) for rule in published.get("rules") or ()),
        policy_digest=str(published.get("policy_digest") or ""),
    )


def _rung_now(worker: Worker, case: Case) -> Rung | None:
    if not case.verified_by:
        return Rung.TARGET
    try:
        decision = worker.authorizer.decide(asked(worker, Revision.of(case.said.body)).to_issue())
    except JitvaultError:
        return Rung.TARGET
    return decision.obligations.confirm if decision.permitted else Rung.TARGET


def _state(case: Case) -> State:
    if case.fate is Fate.CLOSED:
        return case.said.state
    return State.CANCELLED if case.fate is Fate.CANCELLED else State.ENDING


def _end_reason(said: Said) -> EndReason:
    return said.end_reason or EndReason.OPERATOR


def _chain_of(case: Case) -> Mapping[str, Any]:
    chain = (case.receipt or {}).get("chain")
    return chain if isinstance(chain, Mapping) else {}


def _proof(case: Case) -> Mapping[str, Any]:
    proof = (case.receipt or {}).get("proof")
    return proof if isinstance(proof, Mapping) else {}


def _opened(case: Case, decision: Decision) -> tuple[Row, ...]:
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


# -- what it had ----------------------------------------------------------------------------------------------


def _grants(worker: Worker, case: Case, known: Sequence[GrantRow]) -> tuple[tuple[GrantRow, ...], tuple[str, ...]]:
    """The tokens that it had besides the `known` ones, and which of them others replaced.

    A task that was granted and of whose token no line tells has one all the same, of which nobody can say anything.
    """
    if case.fate is Fate.CANCELLED:
        return (), ()
    if case.receipt is not None:
        found = tuple(_of_receipt(case, told) for told in _told(case.receipt, "grants"))
        return found, tuple(grant.grant_id for grant in found)
    accessors, ids = {grant.accessor_hmac for grant in known}, {grant.grant_id for grant in known}
    lost = [one for one in case.made if one.accessor not in accessors]
    named = _named(worker, case.said, lost, ids)
    begun = len(known)
    found = tuple(_of_line(case, one, named[n], begun + n + 1) for n, one in enumerate(lost))
    if not found and (not known or case.said.grant_id not in {None, *ids}):
        found = (_of_nothing(case, begun + 1),)
    # at most one is not settled, and that is the newest
    found = tuple(replace(grant, settled=n < len(found)) for n, grant in enumerate(found, 1))
    return found, tuple(grant.grant_id for grant in found if grant.settled)


def _named(worker: Worker, said: Said, lost: Sequence[Made], known: set[str]) -> list[str]:
    """The id of each grant: the published one where the line says that it is that, else a new one."""
    if said.grant_id is None or said.grant_id in known:
        return [new_id() for _ in lost]
    published = worker.hasher.hash(said.grant_id) if lost else ""
    return [said.grant_id if one.grant == published else new_id() for one in lost]


def _of_line(case: Case, one: Made, grant_id: str, attempt: int) -> GrantRow:
    issued_at = one.issued_at or one.at
    return replace(
        _blank(case, grant_id, attempt),
        role=one.role,
        create_op=one.op if len(one.op) == len(grant_id) else new_id(),
        accessor_hmac=one.accessor,
        token_lease=one.lease,
        issued_at=issued_at,
        # no token outlives its role's cap, whatever was published
        expires_at=issued_at + _cap(one.role),
        verdict=Verdict.LIVE if one.lease else Verdict.UNVERIFIABLE if one.unclear else Verdict.GONE,
    )


def _of_nothing(case: Case, attempt: int) -> GrantRow:
    return replace(_blank(case, new_id(), attempt), verdict=Verdict.UNVERIFIABLE)


def _blank(case: Case, grant_id: str, attempt: int) -> GrantRow:
    ttl = case.said.ttl
    waits = [entry.get("wrap_ttl_s") for entry in Revision.of(case.said.body).access]
    return GrantRow(
        grant_id=grant_id,
        task_id=case.said.task_id,
        attempt=attempt,
        digest=case.said.digest,
        role="",
        create_op=new_id(),
        wrapped_accessor=None,
        accessor_hmac=None,
        token_lease=None,
        creation_path=None,
        requested_ttl_s=_seconds(ttl, "requested_ttl_s"),
        ttl_s=_seconds(ttl, "ttl_s"),
        step_s=_seconds(ttl, "step_s"),
        wrap_ttl_s=max([_WRAP_TTL_S, *(one for one in waits if isinstance(one, int))]),
        issued_at=None,
        expires_at=None,
        rolling=False,
        renew_at=None,
        delivered=True,
        settled=False,
        verdict=Verdict.UNVERIFIABLE,
        dead_at=None,
    )


def _seconds(told: Mapping[str, Any], name: str) -> int:
    value = told.get(name)
    return value if isinstance(value, int) else 0


def _cap(role: str) -> timedelta:
    try:
        return cap_of(role)
    except KeyError:
        return max(CAPS.values())


def _renewed(worker: Worker, file: TaskFile) -> tuple[GrantRow, ...]:
    """The token of a task that goes on, with the end of its life as Vault has it: it was renewed since."""
    grant = file.grants[-1] if file.grants else None
    if grant is None or grant.wrapped_accessor is None or file.task.state not in (State.ISSUED, State.ACTIVE):
        return ()
    facts = worker.tokens.lookup_accessor(grant.wrapped_accessor)
    if facts is None:
        return ()
    return (replace(grant, expires_at=facts.expires_at, renew_at=worker.now() if grant.rolling else grant.renew_at),)


def _expiry(kept: Sequence[GrantRow]) -> dict[str, Any]:
    return {
        key: value
        for grant in kept
        if grant.expires_at
        for key, value in (("grant", grant.grant_id), ("expires_at", grant.expires_at.isoformat()))
    }


# -- what a receipt says, which Vault's key signed -------------------------------------------------------------


def _told(receipt: Mapping[str, object], name: str) -> list[Mapping[str, Any]]:
    found = receipt.get(name)
    return list(found) if isinstance(found, list) else []


def _of_receipt(case: Case, told: Mapping[str, Any]) -> GrantRow:
    def when(name: str) -> datetime | None:
        return datetime.fromisoformat(told[name]) if told.get(name) else None

    return replace(
        _blank(case, str(told["grant"]), int(told["attempt"])),
        role=str(told["role"]),
        accessor_hmac=told["accessor_hmac"],
        issued_at=when("issued_at"),
        expires_at=when("expires_at"),
        settled=True,
        verdict=Verdict(told["verdict"]),
        requested_ttl_s=_seconds(told, "requested_ttl_s"),
        ttl_s=_seconds(told, "ttl_s"),
        step_s=_seconds(told, "step_s"),
    )


def _leases_of(case: Case, grants: Sequence[GrantRow]) -> tuple[list[LeaseRow], list[CheckRow]]:
    """The leases and checks of a closed task as its receipt has them. Which of its tokens read what it does not say."""
    if case.receipt is None or not grants:
        return [], []
    task_id, at = case.said.task_id, max((grant.issued_at for grant in grants if grant.issued_at), default=None)
    leases = [
        LeaseRow(
            lease_id=str(told["lease_id"]),
            task_id=task_id,
            grant_id=grants[-1].grant_id,
            path=str(told["lease_id"]).rpartition("/")[0],
            target_name=None,
            issued_at=at or case.said.written_at,
            verdict=Verdict(told["verdict"]),
            dead_at=None,
        )
        for told in _told(_proof(case), "leases")
    ]
    return leases, _checks_of(case, grants[-1])


def _checks_of(case: Case, token: GrantRow) -> list[CheckRow]:
    proof, task_id = _proof(case), case.said.task_id
    told = [(str(lease["lease_id"]), check) for lease in _told(proof, "leases") for check in _told(lease, "checks")]
    subject = token.accessor_hmac or token.grant_id
    # the check of quiet is the task's
    own = [(task_id if check["n"] == 7 else subject, check) for check in _told(proof.get("token") or {}, "checks")]
    return [CheckRow(task_id, whose, int(c["n"]), bool(c["ok"]), str(c["evidence"])) for whose, c in (*told, *own)]


def _verdicts_of(case: Case, file: TaskFile) -> list[Row]:
    """What the ledger has of a closed task, with the verdicts of its receipt."""
    grants = {str(told["grant"]): Verdict(told["verdict"]) for told in _told(case.receipt or {}, "grants")}
    leases = {str(told["lease_id"]): Verdict(told["verdict"]) for told in _told(_proof(case), "leases")}
    rows: list[Row] = [
        replace(grant, settled=True, verdict=grants.get(grant.grant_id, Verdict.UNVERIFIABLE)) for grant in file.grants
    ]
    rows += [replace(lease, verdict=leases.get(lease.lease_id, Verdict.UNVERIFIABLE)) for lease in file.leases]
    return rows
