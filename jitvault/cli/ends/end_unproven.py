"""Why the end of a task is not proven, and what to do about it."""

from __future__ import annotations

from jitvault.cli import session
from jitvault.cli.lookups.end_rights import is_operator
from jitvault.cli.views.output import readable
from jitvault.cli.views.task import proof_in
from jitvault.documents.proof import Proof
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import AuditUntrusted, JitvaultError, NotConfirmed, OutcomeUnknown, WaitTimedOut
from jitvault.formats.plural import counted
from jitvault.lifecycle.record.receipt import is_past_proof
from jitvault.model.proof_check import QUIET_N
from jitvault.model.states import DEAD, EndReason, Verdict
from jitvault.wiring import Wiring

_UNTRIED = frozenset({"live", "revoke_requested"})
"""The verdicts of a credential that no worker has revoked yet."""


def why_unfinished(wiring: Wiring, document: PublishedTask, error: JitvaultError) -> JitvaultError:
    """Return the error to raise for a task that is still ending.

    A worker may have done everything that it can do now: then it is not a worker that is missing, but the proof. What
    was not tried yet waits for a worker.
    """
    if not isinstance(error, WaitTimedOut):
        return _cut_short(document.task_id, error)
    if document.error is not None:
        return _cut_short(document.task_id, session.refused(document.error))
    proof = document.proof
    if proof and any(credential.verdict in _UNTRIED for credential in proof.credentials):
        return error
    return not_confirmed(wiring, document)


def _cut_short(task: str, error: JitvaultError) -> JitvaultError:
    """Return the error to raise for a task whose end was interrupted.

    It says how far the revocation has come.
    """
    if isinstance(error, AuditUntrusted):
        message = f"task {task} is revoked as far as Vault says, and nothing is proven: {error}"
        return type(error)(message, hint=error.hint)
    if isinstance(error, OutcomeUnknown):
        # Vault itself answers: it is the target behind it that hangs
        hint = "Check the target, then run the same command again. A worker also tries again."
        return NotConfirmed(f"task {task} is NOT known to be revoked: {error}", hint=hint)
    return error


def not_confirmed(wiring: Wiring, document: PublishedTask) -> NotConfirmed:
    """Return the error for an unproven end: why, and what helps."""
    task = document.task_id
    proof = proof_in(document)
    if document.state == "unverified":
        reason = proof.forced.reason if proof.forced else "no reason given"
        return NotConfirmed(
            f"task {task} was closed without proof: {reason}",
            hint="jitvault does nothing more about it. Check the target yourself: a credential may still work there. "
            "The task stays in every list and report as unverified.",
        )
    alive = [lease for lease in proof.leases if lease.verdict in ("revoke_failed", "irrevocable")]
    if alive:
        return NotConfirmed(
            f"task {task} is NOT revoked: Vault could not end {counted(len(alive), 'lease')}, which may still work: "
            f"{alive[0].error or 'no reason given'}",
            hint="Repair that at the target, not in Vault: after a write to the engine's role or connection the end "
            "cannot be proven. Then run the same command again. A worker also tries again; Vault is trying, or has "
            f"given up. `jitvault status {task}` names the leases.",
        )
    if _is_token_unknown(proof):
        return NotConfirmed(
            f"task {task} is NOT known to be revoked: no audit line shows which token it has, and that may still work",
            hint="`jitvault ledger recover` revokes every token that belongs to no task. After that "
            f"{_force(wiring, task)} closes the task without proof.",
        )
    if is_past_proof(proof):
        return NotConfirmed(
            f"task {task} is revoked as far as Vault says, and cannot be proven any more: {proof.unproven_because}",
            hint="Check at the target that the credential does not work any more. Then "
            f"{_force(wiring, task)} closes the task without proof.",
        )
    return NotConfirmed(
        f"task {task} is revoked as far as Vault says, and not proven: {proof.unproven_because}",
        hint=_what_helps(wiring, document, proof),
    )


def _what_helps(wiring: Wiring, document: PublishedTask, proof: Proof) -> str:
    """Return what to do about an end that can still be proven."""
    if wiring.has_worker and wiring.ledger.recovering():
        # a lease of another lost task counts as unaccounted for until that task is imported
        return "`jitvault ledger recover` accounts for the tasks that the ledger lost, and proves this end with theirs."
    bound = document.expires_at
    expired = document.end_reason is EndReason.EXPIRED and proof.token.verdict not in DEAD
    if expired and bound is not None and bound > wiring.clock.agreed():
        # a renewal that was committed ahead could have let the token live until then
        return (
            "Nobody renewed its token in time, so it expired, and no audit line shows that. A worker proves it by "
            f"itself within minutes after {readable(bound)}; until then there is nothing to do."
        )
    task = document.task_id
    return (
        f"Run the same command to try again. `jitvault status {task}` shows the check that failed. If the end can "
        f"never be proven, {_force(wiring, task)} closes the task without proof."
    )


def _force(wiring: Wiring, task: str) -> str:
    """Return how a task is closed without proof.

    Nobody is told to run what is refused to them.
    """
    return f"`jitvault revoke {task} --force --reason WHY`" + ("" if is_operator(wiring) else " by an operator")


def _is_token_unknown(proof: Proof) -> bool:
    """Return whether the task was imported without the line of its token.

    Nobody could revoke or judge that token.
    """
    checks = proof.token.checks
    return proof.token.verdict is Verdict.UNVERIFIABLE and not any(check.n != QUIET_N for check in checks)
