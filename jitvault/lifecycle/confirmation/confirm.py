"""Gather the evidence for each credential of a task and let `domain.confirmation` judge it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

from jitvault.audit.observation import Kind
from jitvault.audit.trail import AuditTrail, done
from jitvault.context import WorkerContext
from jitvault.engines.interface import ProbeResult
from jitvault.errors import NotConfirmed, StillAccepted, UsageError
from jitvault.formats.clocks import lasted
from jitvault.ledger.model import Change, CheckRow, GrantRow, LeaseRow, OperationRow, TaskRecord
from jitvault.lifecycle.confirmation.checks import Proof, confirm, is_proven
from jitvault.lifecycle.confirmation.evidence import Evidence, good_listings, tokens_of
from jitvault.lifecycle.confirmation.lookups import gone_lookups, is_any_live, last_found, live_lookups, proven_before
from jitvault.lifecycle.confirmation.quiet import settles_at
from jitvault.lifecycle.confirmation.quiet_check import Quiet, check_quiet
from jitvault.lifecycle.confirmation.timeline import Credential
from jitvault.lifecycle.confirmation.wrapped_read_probes import ask_about, where_of
from jitvault.lifecycle.record.integrity import is_complete
from jitvault.lifecycle.record.receipt import rung_of
from jitvault.lifecycle.renewal.schedule import has_come
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.proof_check import TARGET_N, Check
from jitvault.model.revision import Revision
from jitvault.model.states import State, Verdict
from jitvault.model.vault_access import last_end
from jitvault.policy.decision import ProofLevel

Hashed = Callable[[str], str]
"""The audit device's HMAC of a value, asked for once in one judgement: the salt can change between two."""

INVALID_LEASE = "invalid lease"
INVALID_ACCESSOR = "invalid accessor"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A task's credentials with their proofs, and whether all of them reach what is asked."""

    grants: tuple[GrantRow, ...]
    leases: tuple[LeaseRow, ...]
    checks: tuple[CheckRow, ...]
    proven: bool
    asked: Mapping[str, ProbeResult]
    """What the targets said of credentials that were read in a wrapping, by the digest of the read's line."""


def judge(worker: WorkerContext, found: Evidence) -> Judgement:
    """The verdict on every token and lease of the task, by the evidence that there is now."""
    file, trail = found.file, found.trail
    complete = is_complete(worker, file, trail)
    revision = Revision.of(file.revision.body)
    probed = probe(worker, file, revision, file.leases)
    wrapped = found.doubts(worker).wrapped
    about_wrapped = ask_about(worker, found, wrapped)
    by_lease = {read.lease_id: about_wrapped.get(read.line) for read in wrapped if read.lease_id}
    hashed = cache(worker.hasher.hash)
    grants: list[GrantRow] = []
    leases: list[LeaseRow] = []
    checks: list[CheckRow] = [_asked_row(file, line, said) for line, said in about_wrapped.items()]
    proven: list[bool] = [complete]
    for grant in file.grants:
        proof = judge_token(hashed, found, grant)
        grants.append(replace(grant, verdict=proof.verdict))
        checks += _rows(file, grant.accessor_hmac or grant.grant_id, proof.checks)
        proven.append(is_never_issued(grant) or is_proven(proof, target=False))
    for lease in file.leases:
        asked = revision.template_of(lease.path) or {}
        target = rung_of(file, asked) == ProofLevel.TARGET
        answer = probed.get(lease.target_name or "") or by_lease.get(lease.lease_id)
        proof = judge_lease(hashed, file, lease, trail, answer, asked=asked, target=target)
        leases.append(replace(lease, verdict=proof.verdict))
        checks += _rows(file, lease.lease_id, proof.checks)
        proven.append(is_proven(proof, target=target))
    return Judgement(tuple(grants), tuple(leases), tuple(checks), all(proven), about_wrapped)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task lacks to be `record_judgement`: `proven` says that every credential is, `quiet` is check 7.

    `soon`: only time is missing, or the answer to a request that is in flight. `back`: Vault has again what was proven
    dead before.
    """

    proven: bool
    quiet: Check
    soon: bool = False
    back: bool = False


def record_judgement(worker: WorkerContext, evidence: Evidence, claim: int) -> Outcome:
    """Write the verdicts, and call the task confirmed when everything is proven and it is quiet."""
    file, trail, tokens = evidence.file, evidence.trail, tokens_of(evidence.file)
    found = judge(worker, evidence)
    look = check_quiet(worker, evidence, leases_dead=found.proven, asked=found.asked)
    credentials: tuple[GrantRow | LeaseRow, ...] = (*found.grants, *found.leases)
    checks = (*found.checks, *_rows(file, file.task.task_id, (look.check,)))
    if not look.check.ok:
        _keep_open(worker, file, claim, found, look, checks)
        return Outcome(found.proven, look.check, soon=look.soon)
    if is_any_live(worker, proven_before(file)):
        return Outcome(proven=False, quiet=look.check, back=True)
    settled = tuple(replace(grant, settled=True) for grant in found.grants)
    change = Change(
        EventKind.CONFIRMED,
        {"checks": [[c.subject, c.n, c.ok] for c in found.checks], "quiet": look.check.evidence},
        state=State.CONFIRMED,
        fields={
            **_durations(file, credentials, worker.now()),
            "due_at": settles_at(tokens, trail, worker.settle_window) or evidence.newest.at,
        },
        rows=(*settled, *found.leases, *checks),
    )
    worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())
    return Outcome(found.proven, look.check)


def _keep_open(
    worker: WorkerContext, file: TaskRecord, claim: int, found: Judgement, look: Quiet, checks: Sequence[CheckRow]
) -> None:
    """Write what a task lacks, where that is news; and when it is due again, where nothing else says that."""
    credentials: tuple[GrantRow | LeaseRow, ...] = (*found.grants, *found.leases)
    news = any(_differs(file, row) for row in credentials) or _outcomes(checks) != _outcomes(file.checks)
    # what is not proven is due as its revocations are
    is_over = found.proven and not look.soon and has_come(worker, file, file.task.due_at or look.due_at)
    if news or is_over:
        fields = {"due_at": look.due_at} if found.proven else {}
        change = Change(EventKind.JUDGED, {"quiet": look.check.evidence}, fields=fields, rows=(*credentials, *checks))
        worker.ledger.apply(file.task.task_id, change, claim=claim, at=worker.now())


def _outcomes(checks: Iterable[CheckRow]) -> set[tuple[str, int, str | None]]:
    """What of the checks is news: whether each holds, and why not. What carries one that holds differs each time."""
    return {(check.subject, check.n, None if check.ok else check.evidence) for check in checks}


def is_never_issued(grant: GrantRow) -> bool:
    return grant.accessor_hmac is None and grant.verdict is Verdict.NEVER_ISSUED


def _differs(file: TaskRecord, row: GrantRow | LeaseRow) -> bool:
    """Whether a verdict differs from the one that is written."""
    known = {g.grant_id: g.verdict for g in file.grants} | {x.lease_id: x.verdict for x in file.leases}
    key = row.lease_id if isinstance(row, LeaseRow) else row.grant_id
    return known.get(key) is not row.verdict


def judge_token(hashed: Hashed, found: Evidence, grant: GrantRow) -> Proof:
    if grant.accessor_hmac is None:
        return Proof(grant.verdict, ())
    file, trail = found.file, found.trail
    # the device can have been made anew: then its later lines name the same accessor by another HMAC
    again = hashed(grant.wrapped_accessor) if grant.wrapped_accessor and found.interrupted else None
    named = grant.token_lease or grant.accessor_hmac
    return confirm(
        Credential(
            kind="token",
            subject=grant.accessor_hmac,
            lookup_subject=grant.accessor_hmac,
            mount="auth/token",
            claimed=_claimed(grant.verdict, file.operations, named),
            lookup_ops=gone_lookups(file.operations, named),
            gone_errors=frozenset({INVALID_ACCESSOR, INVALID_LEASE, hashed(INVALID_LEASE)}),
            expires_at=grant.expires_at or _at_the_latest(file, grant, trail),
            also=frozenset({again} if again else ()),
            live_ops=live_lookups(file.operations, named),
            there=last_found(file.operations, named) == "live",
            listing_ops=good_listings(file),
            lease_path=grant.token_lease or f"auth/token/create/{grant.role}/",
            last_end=last_end(grant.role, grant.issued_at),
            alias=grant.token_lease or "",
            alias_lookup=hashed(grant.token_lease) if grant.token_lease else "",
        ),
        trail,
        probed=None,
        target=False,
    )


def _at_the_latest(file: TaskRecord, grant: GrantRow, trail: AuditTrail) -> datetime | None:
    """When a token was over whose issue did not come to its look-up: its TTL was to be a step. Vault has to say as well
    that it is gone, since nobody saw which TTL it got.

    Whoever comes later than that finds nothing to revoke, and nothing but its time can show how it ended.
    """
    if last_found(file.operations, grant.token_lease or grant.accessor_hmac or "") != "gone":
        return None
    made = (o for o in trail.observations if o.kind is Kind.TOKEN_CREATED and o.op == grant.create_op and done(o))
    own = next((o for o in made if o.actor in trail.worker_accessors), None)
    return own.at + timedelta(seconds=grant.step_s) if own else None


def judge_lease(
    hashed: Hashed,
    file: TaskRecord,
    lease: LeaseRow,
    trail: AuditTrail,
    probed: ProbeResult | None,
    *,
    asked: Mapping[str, object],
    target: bool,
) -> Proof:
    return confirm(
        Credential(
            kind="lease",
            subject=lease.lease_id,
            lookup_subject=hashed(lease.lease_id),
            mount=str(asked.get("mount", lease.path.partition("/")[0])),
            claimed=_claimed(lease.verdict, file.operations, lease.lease_id),
            lookup_ops=gone_lookups(file.operations, lease.lease_id),
            # Vault shows the reason in plain, OpenBao its HMAC
            gone_errors=frozenset({INVALID_LEASE, hashed(INVALID_LEASE)}),
            live_ops=live_lookups(file.operations, lease.lease_id),
            there=last_found(file.operations, lease.lease_id) == "live",
            listing_ops=good_listings(file),
            forced=_was_forced(file, lease),
            lease_path=lease.lease_id,
        ),
        trail,
        probed=probed,
        target=target,
    )


def _was_forced(file: TaskRecord, lease: LeaseRow) -> bool:
    return any(op.kind == OperationKind.FORCE_LEASE and op.subject == lease.lease_id for op in file.operations)


def _claimed(verdict: Verdict, operations: tuple[OperationRow, ...], subject: str) -> Verdict:
    """What is claimed without proof: the written verdict, never above `gone`."""
    if verdict is Verdict.NEVER_ISSUED:
        # it has an issue line, so somebody wrote that over its verdict
        return Verdict.LIVE
    if verdict in (Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED):
        return Verdict.GONE if last_found(operations, subject) == "gone" else Verdict.ACKNOWLEDGED
    return verdict


def probe(
    worker: WorkerContext, file: TaskRecord, revision: Revision, leases: Iterable[LeaseRow]
) -> dict[str, ProbeResult]:
    """Ask each target once about those of the task's `leases` that it knows. A target that cannot be asked
    gives no evidence: check 6 fails, the rest stands.
    """
    wanted: dict[tuple[str, str], list[str]] = {}
    for lease in leases:
        entry = revision.template_of(lease.path)
        if (
            entry
            and rung_of(file, entry) == ProofLevel.TARGET
            and lease.target_name
            and lease.verdict is not Verdict.LIVE
        ):
            wanted.setdefault((entry["engine"], entry["probe"]), []).append(lease.target_name)
    found: dict[str, ProbeResult] = {}
    for (engine, probe), names in wanted.items():
        try:
            found |= worker.engines[engine].probe(where_of(worker, probe), names)
        except (NotConfirmed, UsageError) as error:
            silent = ProbeResult(
                refused=False, open_sessions=None, evidence=str(error), seen=isinstance(error, StillAccepted)
            )
            found |= dict.fromkeys(names, silent)
    return found


def _rows(file: TaskRecord, subject: str, checks: tuple[Check, ...]) -> tuple[CheckRow, ...]:
    return tuple(CheckRow(file.task.task_id, subject, c.n, c.ok, c.evidence[:1000]) for c in checks)


def _asked_row(file: TaskRecord, line: str, said: ProbeResult) -> CheckRow:
    return CheckRow(file.task.task_id, line, TARGET_N, said.is_over, said.evidence[:1000])


def _durations(file: TaskRecord, credentials: Iterable[GrantRow | LeaseRow], now: datetime) -> dict[str, int | None]:
    """Return how long the end took, until the last credential was gone and until now; None where nobody knows that."""
    begun = file.task.ending_at
    kinds = [event.kind for event in file.events]
    since_end = file.events[len(kinds) - kinds[::-1].index(EventKind.ENDING) :] if EventKind.ENDING in kinds else ()
    proven = lasted(begun, now, [datetime.fromisoformat(event.at) for event in since_end])
    dead = max((row.dead_at for row in credentials if row.dead_at), default=begun)
    gone = lasted(begun, dead, ()) if proven is not None and dead is not None else None
    return {"dead_ms": _ms(gone), "confirmed_ms": _ms(proven)}


def _ms(duration: timedelta | None) -> int | None:
    return None if duration is None else duration // timedelta(milliseconds=1)
