"""Build an imported task's rows: tokens, leases, checks.

They are built from audit lines or from a signed receipt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from jitvault.context import WorkerContext, new_id
from jitvault.documents.proof import SettledProof
from jitvault.documents.published_task import PublishedTask
from jitvault.documents.receipt import StatedGrant
from jitvault.ledger.model import CheckRow, GrantRow, LeaseRow, Row, TaskRecord
from jitvault.model.proof_check import QUIET_N
from jitvault.model.revision import Revision
from jitvault.model.states import DELIVERED_STATES, Verdict
from jitvault.model.vault_access import CAPS, cap_of
from jitvault.recovery.issued_tokens import IssuedToken
from jitvault.recovery.outcomes import RecoveryAction
from jitvault.recovery.survey import RecoveryCase

_WRAP_TTL_S = 300


def grants_of(worker: WorkerContext, case: RecoveryCase, known: Sequence[GrantRow]) -> tuple[GrantRow, ...]:
    """Return the task's tokens besides the `known` ones.

    A task that was granted and of whose token there is no line still gets a grant, about which nothing is known.
    """
    if case.action is RecoveryAction.CANCELLED:
        return ()
    if case.receipt is not None:
        return tuple(_of_receipt(case, told) for told in case.receipt.grants)
    accessors, ids = {grant.accessor_hmac for grant in known}, {grant.grant_id for grant in known}
    lost = [one for one in case.made if one.accessor not in accessors]
    named = _named(worker, case.published, lost, ids)
    begun = len(known)
    found = tuple(_of_line(case, one, named[n], begun + n + 1) for n, one in enumerate(lost))
    if not found and (not known or case.published.grant_id not in {None, *ids}):
        found = (_of_nothing(case, begun + 1),)
    # at most one is not settled, and that is the newest
    return tuple(replace(grant, settled=n < len(found)) for n, grant in enumerate(found, 1))


def _named(worker: WorkerContext, published: PublishedTask, lost: Sequence[IssuedToken], known: set[str]) -> list[str]:
    """Return an id for each grant.

    It is the published id where the line shows that id's HMAC, otherwise a new one.
    """
    if published.grant_id is None or published.grant_id in known:
        return [new_id() for _ in lost]
    grant_hmac = worker.hasher.hash(published.grant_id) if lost else ""
    return [published.grant_id if one.grant == grant_hmac else new_id() for one in lost]


def _of_line(case: RecoveryCase, one: IssuedToken, grant_id: str, attempt: int) -> GrantRow:
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
        verdict=_verdict_of(one),
    )


def _verdict_of(one: IssuedToken) -> Verdict:
    """Return the verdict on a token by whether Vault has it."""
    if one.lease:
        return Verdict.LIVE
    return Verdict.UNVERIFIABLE if one.unclear else Verdict.GONE


def _of_nothing(case: RecoveryCase, attempt: int) -> GrantRow:
    return replace(_blank(case, new_id(), attempt), verdict=Verdict.UNVERIFIABLE)


def _blank(case: RecoveryCase, grant_id: str, attempt: int) -> GrantRow:
    ttl = case.published.ttl or {}
    waits = [entry.wrap_ttl_s for entry in Revision.of(case.published.body).access]
    return GrantRow(
        grant_id=grant_id,
        task_id=case.published.task_id,
        attempt=attempt,
        digest=case.published.digest,
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


def renewed(worker: WorkerContext, record: TaskRecord) -> tuple[GrantRow, ...]:
    """Return the token of a task that goes on, with its expiry in Vault.

    The token may have been renewed since the ledger was saved.
    """
    grant = record.grants[-1] if record.grants else None
    if grant is None or grant.wrapped_accessor is None or record.task.state not in DELIVERED_STATES:
        return ()
    facts = worker.tokens.lookup_accessor(grant.wrapped_accessor)
    if facts is None:
        return ()
    return (replace(grant, expires_at=facts.expires_at, renew_at=worker.now() if grant.rolling else grant.renew_at),)


def _of_receipt(case: RecoveryCase, told: StatedGrant) -> GrantRow:
    return replace(
        _blank(case, told.grant, told.attempt),
        role=told.role,
        accessor_hmac=told.accessor_hmac,
        issued_at=told.issued_at,
        expires_at=told.expires_at,
        settled=True,
        verdict=told.verdict,
        requested_ttl_s=told.requested_ttl_s,
        ttl_s=told.ttl_s,
        step_s=told.step_s,
    )


def leases_of(case: RecoveryCase, grants: Sequence[GrantRow]) -> tuple[list[LeaseRow], list[CheckRow]]:
    """Return the leases and checks of a closed task as its receipt has them.

    A receipt does not say which token read which lease, so each lease counts as the last token's.
    """
    if case.receipt is None or not grants:
        return [], []
    task_id, at = case.published.task_id, max((grant.issued_at for grant in grants if grant.issued_at), default=None)
    leases = [
        LeaseRow(
            lease_id=told.lease_id,
            task_id=task_id,
            grant_id=grants[-1].grant_id,
            path=told.lease_id.rpartition("/")[0],
            target_name=None,
            issued_at=at or case.published.written_at,
            verdict=told.verdict,
            dead_at=None,
        )
        for told in case.receipt.proof.leases
    ]
    return leases, _checks_of(task_id, case.receipt.proof, grants[-1])


def _checks_of(task_id: str, proof: SettledProof, token: GrantRow) -> list[CheckRow]:
    told = [(lease.lease_id, check) for lease in proof.leases for check in lease.checks]
    subject = token.accessor_hmac or token.grant_id
    # the check of quiet is the task's
    own = [(task_id if check.n == QUIET_N else subject, check) for check in proof.token.checks]
    return [CheckRow(one.n, one.ok, one.evidence, task_id=task_id, subject=whose) for whose, one in (*told, *own)]


def verdicts_of(case: RecoveryCase, record: TaskRecord) -> list[Row]:
    """Return the ledger's grants and leases of a closed task.

    They have the verdicts of the task's receipt.
    """
    said = case.receipt
    grants = {told.grant: told.verdict for told in said.grants} if said else {}
    leases = {told.lease_id: told.verdict for told in said.proof.leases} if said else {}
    rows: list[Row] = [
        replace(grant, settled=True, verdict=grants.get(grant.grant_id, Verdict.UNVERIFIABLE))
        for grant in record.grants
    ]
    rows += [replace(lease, verdict=leases.get(lease.lease_id, Verdict.UNVERIFIABLE)) for lease in record.leases]
    return rows
