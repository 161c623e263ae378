"""Judge each credential of a task by its evidence.

The task is confirmed when all are proven dead. The rules are in `checks.py`; here the evidence is put together and the
judgement is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

from jitvault.audit.observation import Kind
from jitvault.audit.trail import AuditTrail, done
from jitvault.context import WorkerContext
from jitvault.engines.interface import ProbeResult, probe_of
from jitvault.errors import NotConfirmed, StillAccepted, UsageError
from jitvault.formats.clocks import lasted
from jitvault.ledger.model import Change, CheckRow, GrantRow, LeaseRow, OperationRow, TaskRecord
from jitvault.lifecycle.confirmation.checks import Proof, is_proven, judge_credential
from jitvault.lifecycle.confirmation.evidence import Evidence, good_listings, tokens_of
from jitvault.lifecycle.confirmation.quiet_check import Quiet, check_quiet
from jitvault.lifecycle.confirmation.quiet_rules import settles_at
from jitvault.lifecycle.confirmation.timeline import Credential
from jitvault.lifecycle.confirmation.wrapped_read_probes import ask_targets, probe_target
from jitvault.lifecycle.confirmation.wrapped_reads import target_check
from jitvault.lifecycle.record.due_time import has_come
from jitvault.lifecycle.record.history import proof_level_of
from jitvault.lifecycle.record.integrity import is_complete
from jitvault.lifecycle.record.lookups import (
    gone_before,
    gone_lookups,
    is_any_live,
    last_found,
    live_lookups,
    shown_hmac,
)
from jitvault.lifecycle.record.renewals import renewals_to_name
from jitvault.lifecycle.requests.publish import announced_publication
from jitvault.model.event_bodies import Confirmed, Judged
from jitvault.model.evidence import Evidence as CheckEvidence
from jitvault.model.kinds import EventKind, LookupAnswer, OperationKind
from jitvault.model.proof_check import Check
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Access
from jitvault.model.states import State, Verdict
from jitvault.model.vault_access import last_end
from jitvault.policy.decision import ProofLevel
from jitvault.vault.interface import INVALID_LEASE, LEASE_NOT_FOUND

Hashed = Callable[[str], str]
"""Returns the audit device's HMAC of a value.

Within one judgement each value is hashed once: the device's salt can change between two requests.
"""

INVALID_ACCESSOR = "invalid accessor"


@dataclass(frozen=True, slots=True)
class TaskJudgement:
    """A task's credentials with their verdicts and checks.

    `proven` says that each of them reaches what its template requires. `target_answers` is what the targets said of
    credentials that were read in a wrapping, by the digest of the read's audit line.
    """

    grants: tuple[GrantRow, ...]
    leases: tuple[LeaseRow, ...]
    checks: tuple[CheckRow, ...]
    proven: bool
    target_answers: Mapping[str, Check]


def judge(worker: WorkerContext, found: Evidence) -> TaskJudgement:
    """Return the verdict on every token and lease of the task by the evidence."""
    record = found.record
    trail = found.trail
    revision = Revision.of(record.revision.body)
    # that the stream shows no lease that is not in the ledger belongs to the proof
    proven: list[bool] = [is_complete(worker, record, trail)]
    probed = probe(worker, record, revision, record.leases)
    wrapped = found.open_questions(worker).wrapped
    about_wrapped = ask_targets(worker, found, wrapped)
    by_lease = {read.lease_id: about_wrapped.get(read.line) for read in wrapped if read.lease_id}
    hashed = cache(worker.hasher.remembered)
    grants: list[GrantRow] = []
    leases: list[LeaseRow] = []
    checks: list[CheckRow] = []
    for line, said in about_wrapped.items():
        checks += _rows(record, line, (said,))
    for grant in record.grants:
        proof = judge_token(hashed, found, grant)
        grants.append(replace(grant, verdict=proof.verdict))
        checks += _rows(record, grant.accessor_hmac or grant.grant_id, proof.checks)
        proven.append(is_never_issued(grant) or is_proven(proof, target=False))
    for lease in record.leases:
        access = revision.access_at(lease.path)
        target = proof_level_of(record, access) == ProofLevel.TARGET
        answer = probed.get(lease.target_name or "") or by_lease.get(lease.lease_id)
        proof = judge_lease(hashed, record, lease, trail, answer, access=access, target=target)
        leases.append(replace(lease, verdict=proof.verdict))
        checks += _rows(record, lease.lease_id, proof.checks)
        proven.append(is_proven(proof, target=target))
    return TaskJudgement(tuple(grants), tuple(leases), tuple(checks), all(proven), about_wrapped)


@dataclass(frozen=True, slots=True)
class ConfirmOutcome:
    """What a task lacks to be `confirmed`.

    `record` is the task with the judgement. `proven` says that every credential is proven dead, and `quiet` is check 7.
    `soon` says that only time is missing, or the answer to a request in flight. `back` says that Vault has a credential
    again that was gone before. `publication` is the intent to publish that the task is confirmed.
    """

    record: TaskRecord
    proven: bool
    quiet: Check
    soon: bool = False
    back: bool = False
    publication: OperationRow | None = None


def record_judgement(worker: WorkerContext, evidence: Evidence, claim: int) -> ConfirmOutcome:
    """Record the verdicts; confirm the task when it is all proven and quiet."""
    record = evidence.record
    tokens = tokens_of(record)
    found = judge(worker, evidence)
    quiet = check_quiet(worker, evidence, leases_dead=found.proven, target_answers=found.target_answers)
    credentials: tuple[GrantRow | LeaseRow, ...] = (*found.grants, *found.leases)
    checks = (*found.checks, *_rows(record, record.task.task_id, (quiet.check,)))
    if not quiet.check.ok:
        record = _record_unconfirmed(worker, record, claim, found, quiet, checks)
        return ConfirmOutcome(record, found.proven, quiet.check, soon=quiet.soon)
    if is_any_live(worker, gone_before(record)):
        return ConfirmOutcome(record, proven=False, quiet=quiet.check, back=True)
    settled = tuple(replace(grant, settled=True) for grant in found.grants)
    publication = announced_publication(worker, record.task.task_id)
    change = Change(
        EventKind.CONFIRMED,
        Confirmed(
            checks=tuple((c.subject, c.n, c.ok) for c in found.checks),
            quiet=quiet.check.evidence,
            renewals=renewals_to_name(worker, record),
        ),
        state=State.CONFIRMED,
        fields={
            **_durations(record, credentials, worker.now()),
            "due_at": settles_at(tokens, evidence.trail, worker.settle_window) or evidence.newest.at,
        },
        rows=(*settled, *found.leases, *checks, publication),
        gives_back=True,
    )
    record = worker.ledger.change(record, change, claim=claim, at=worker.now())
    return ConfirmOutcome(record, found.proven, quiet.check, publication=publication)


def _record_unconfirmed(
    worker: WorkerContext,
    record: TaskRecord,
    claim: int,
    found: TaskJudgement,
    quiet: Quiet,
    checks: Sequence[CheckRow],
) -> TaskRecord:
    """Record what a task lacks, if that changed or a new due time is needed.

    Returns the task. A task with an unproven credential is due when its revocations are; otherwise check 7 says when.
    """
    credentials: tuple[GrantRow | LeaseRow, ...] = (*found.grants, *found.leases)
    has_changed = any(_differs(record, row) for row in credentials) or _outcomes(checks) != _outcomes(record.checks)
    needs_due_at = found.proven and not quiet.soon and has_come(worker, record, record.task.due_at or quiet.due_at)
    if has_changed or needs_due_at:
        fields = {"due_at": quiet.due_at} if found.proven else {}
        change = Change(
            EventKind.JUDGED,
            Judged(quiet=quiet.check.evidence),
            fields=fields,
            rows=(*credentials, *checks),
        )
        record = worker.ledger.change(record, change, claim=claim, at=worker.now())
    return record


def _outcomes(checks: Iterable[CheckRow]) -> set[tuple[str, int, CheckEvidence | None]]:
    """Return what counts as a change of the checks.

    That is whether each holds, and why not.

    The evidence of a check that holds is left out, since it differs each time.
    """
    return {(check.subject, check.n, None if check.ok else check.evidence) for check in checks}


def is_never_issued(grant: GrantRow) -> bool:
    """Return whether no token of this grant was ever made."""
    return grant.accessor_hmac is None and grant.verdict is Verdict.NEVER_ISSUED


def _differs(record: TaskRecord, row: GrantRow | LeaseRow) -> bool:
    """Return whether a verdict differs from the one in the ledger."""
    known = {grant.grant_id: grant.verdict for grant in record.grants}
    known |= {lease.lease_id: lease.verdict for lease in record.leases}
    key = row.lease_id if isinstance(row, LeaseRow) else row.grant_id
    return known.get(key) is not row.verdict


def judge_token(hashed: Hashed, found: Evidence, grant: GrantRow) -> Proof:
    """Judge one token of the task; proof from a target does not apply to it."""
    if grant.accessor_hmac is None:
        return Proof(grant.verdict, ())
    record = found.record
    trail = found.trail
    other_hmacs: frozenset[str] = frozenset()
    if grant.wrapped_accessor and found.interrupted:
        # the audit device may have been re-created: its later lines then name the same accessor by another HMAC
        other_hmacs = frozenset({hashed(grant.wrapped_accessor)} - {""})
    subject = grant.token_lease or grant.accessor_hmac
    return judge_credential(
        Credential(
            kind="token",
            subject=grant.accessor_hmac,
            lookup_subject=grant.accessor_hmac,
            mount="auth/token",
            reported=_reported(grant.verdict, record.operations, subject),
            lookup_ops=gone_lookups(record.operations, subject),
            gone_errors=_gone_errors(hashed, record, trail, subject) | {INVALID_ACCESSOR},
            expires_at=grant.expires_at or _latest_expiry(record, grant, trail),
            other_hmacs=other_hmacs,
            live_ops=live_lookups(record.operations, subject),
            found_last=last_found(record.operations, subject) is LookupAnswer.LIVE,
            listing_ops=good_listings(record),
            lease_path=grant.token_lease or f"auth/token/create/{grant.role}/",
            last_end=last_end(grant.role, grant.issued_at),
            alias=grant.token_lease or "",
            alias_lookup=hashed(grant.token_lease) if grant.token_lease else "",
        ),
        trail,
        probed=None,
        target=False,
    )


def _latest_expiry(record: TaskRecord, grant: GrantRow, trail: AuditTrail) -> datetime | None:
    """Return when a token expired whose issue stopped before its look-up.

    The token was requested with a TTL of one step, but which TTL it got was not seen. So Vault has to say as well that
    the token is gone. After its expiry there is nothing left to revoke, and only its time can show how it ended.
    """
    if last_found(record.operations, grant.token_lease or grant.accessor_hmac or "") is not LookupAnswer.GONE:
        return None
    created = (o for o in trail.observations if o.kind is Kind.TOKEN_CREATED and o.op == grant.create_op and done(o))
    own = next((o for o in created if o.actor in trail.worker_accessors), None)
    return own.at + timedelta(seconds=grant.step_s) if own else None


def judge_lease(
    hashed: Hashed,
    record: TaskRecord,
    lease: LeaseRow,
    trail: AuditTrail,
    probed: Check | None,
    *,
    access: Access | None,
    target: bool,
) -> Proof:
    """Judge one lease of the task.

    `access` is the entry of the revision that the lease comes from, and `target` says whether proof from the target is
    required.
    """
    return judge_credential(
        Credential(
            kind="lease",
            subject=lease.lease_id,
            lookup_subject=shown_hmac(record, lease, trail) or hashed(lease.lease_id),
            mount=access.mount if access else lease.path.partition("/")[0],
            reported=_reported(lease.verdict, record.operations, lease.lease_id),
            lookup_ops=gone_lookups(record.operations, lease.lease_id),
            gone_errors=_gone_errors(hashed, record, trail, lease.lease_id),
            live_ops=live_lookups(record.operations, lease.lease_id),
            found_last=last_found(record.operations, lease.lease_id) is LookupAnswer.LIVE,
            listing_ops=good_listings(record),
            forced=_was_forced(record, lease),
            lease_path=lease.lease_id,
        ),
        trail,
        probed=probed,
        target=target,
    )


def _gone_errors(hashed: Hashed, record: TaskRecord, trail: AuditTrail, subject: str) -> frozenset[str]:
    """Return what the lines of look-ups say that found no such credential.

    Vault shows an error in plain text, OpenBao its HMAC.
    """
    lookups = gone_lookups(record.operations, subject)
    errors = [INVALID_LEASE]
    if any(line.kind is Kind.RENEWED and line.op in lookups for line in trail.observations):
        # Vault's storage was asked as well; that is rare, and each HMAC costs a request
        errors.append(LEASE_NOT_FOUND)
    return frozenset({*errors, *map(hashed, errors)})


def _was_forced(record: TaskRecord, lease: LeaseRow) -> bool:
    return any(op.kind == OperationKind.FORCE_LEASE and op.subject == lease.lease_id for op in record.operations)


def _reported(verdict: Verdict, operations: tuple[OperationRow, ...], subject: str) -> Verdict:
    """Return the verdict that Vault reports without proof: never above `gone`.

    `verdict` is the one in the ledger. Where that is a proven one, the newest look-up counts instead.
    """
    if verdict is Verdict.NEVER_ISSUED:
        # the credential has an issue line, so its verdict in the ledger was edited
        return Verdict.LIVE
    if verdict in (Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED):
        return Verdict.GONE if last_found(operations, subject) is LookupAnswer.GONE else Verdict.ACKNOWLEDGED
    return verdict


def probe(
    worker: WorkerContext, record: TaskRecord, revision: Revision, leases: Iterable[LeaseRow]
) -> dict[str, Check]:
    """Ask each target once about the leases that need its proof.

    Returns check 6 by the name of the credential at its target. A target that cannot be asked gives no evidence: the
    check fails for its credentials, and the other checks are not affected.
    """
    names_of: dict[tuple[str, str | None], list[str]] = {}
    for lease in leases:
        entry = revision.access_at(lease.path)
        if not entry or proof_level_of(record, entry) != ProofLevel.TARGET:
            continue
        if lease.target_name and lease.verdict is not Verdict.LIVE:
            names_of.setdefault((entry.engine, entry.probe), []).append(lease.target_name)
    answers: dict[str, Check] = {}
    for (engine, probe), names in names_of.items():
        try:
            told = probe_of(worker.engines[engine]).ask(probe_target(worker, probe), names)
        except (NotConfirmed, UsageError) as error:
            is_accepted = isinstance(error, StillAccepted)
            no_answer = ProbeResult(refused=False, open_sessions=None, evidence=str(error), seen=is_accepted)
            told = dict.fromkeys(names, no_answer)
        answers |= {name: target_check(engine, name, answer) for name, answer in told.items()}
    return answers


def _rows(record: TaskRecord, subject: str, checks: tuple[Check, ...]) -> tuple[CheckRow, ...]:
    return tuple(CheckRow(c.n, c.ok, c.evidence, task_id=record.task.task_id, subject=subject) for c in checks)


def _durations(record: TaskRecord, credentials: Iterable[GrantRow | LeaseRow], now: datetime) -> dict[str, int | None]:
    """Return how long the end took.

    The durations are until the last credential was gone, and until now.

    Both are in milliseconds, and None where the clocks do not tell.
    """
    ending_at = record.task.ending_at
    since_end: list[datetime] = []
    if any(event.kind == EventKind.ENDING for event in record.events):
        for event in reversed(record.events):
            if event.kind == EventKind.ENDING:
                break
            since_end.insert(0, datetime.fromisoformat(event.at))
    until_proven = lasted(ending_at, now, since_end)
    dead_at = max((row.dead_at for row in credentials if row.dead_at), default=ending_at)
    until_gone = None
    if until_proven is not None and dead_at is not None:
        until_gone = lasted(ending_at, dead_at, ())
    return {"dead_ms": _ms(until_gone), "confirmed_ms": _ms(until_proven)}


def _ms(duration: timedelta | None) -> int | None:
    return None if duration is None else duration // timedelta(milliseconds=1)
