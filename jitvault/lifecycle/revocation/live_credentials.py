"""Which of a task's credentials to revoke, and which to look up first."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from jitvault.context import WorkerContext
from jitvault.errors import AuditUntrusted
from jitvault.ledger.model import GrantRow, TaskRecord
from jitvault.lifecycle.revocation import credential as handles
from jitvault.lifecycle.revocation.credential import CredentialHandle
from jitvault.model.kinds import OperationKind
from jitvault.model.states import DEAD, REOPENING_EVENTS, Verdict


def live_credentials(worker: WorkerContext, file: TaskRecord) -> list[CredentialHandle]:
    """Return the task's credentials that are not proven dead.

    They are in the order in which to revoke them.
    """
    return [*live_tokens(worker, file), *live_leases(worker, file)]


def live_tokens(worker: WorkerContext, file: TaskRecord) -> list[CredentialHandle]:
    """Return the task's tokens that are not proven dead.

    Tokens that Vault cannot be asked about are left out.
    """
    return [handles.token(worker, grant) for grant in file.grants if grant.verdict not in DEAD and _is_known(grant)]


def live_leases(worker: WorkerContext, file: TaskRecord) -> list[CredentialHandle]:
    """Return the task's leases that are not proven dead.

    They are in the order in which to revoke them. Leases that Vault still had come first, and of these the one that was
    not tried for longest. So a revocation that hangs cannot starve the others again and again.
    """
    tried = {
        op.subject: op.answered_at for op in file.operations if op.kind == OperationKind.REVOKE_LEASE and op.answered_at
    }
    live = [lease for lease in file.leases if lease.verdict not in DEAD]
    live.sort(key=lambda lease: (lease.verdict is Verdict.GONE, tried.get(lease.lease_id, lease.issued_at)))
    return [handles.lease(worker, lease) for lease in live]


def _is_known(grant: GrantRow) -> bool:
    return bool(grant.wrapped_accessor or grant.token_lease)


def to_look_up_first(
    worker: WorkerContext, file: TaskRecord, credentials: Sequence[CredentialHandle]
) -> Sequence[CredentialHandle]:
    """Return which of the credentials to look up before revoking: all or none.

    They are looked up first in these cases:

    - After a gap in the stream, or after a hazardous act that was seen: such an act can take a lease's record away, and
      then Vault answers 204 and does nothing. Only a look-up that still finds the credential rules that out.
    - With several audit sources: until the next canary, the stream may have moved to another source.
    - In a task that was reopened: a credential that is found alive has to be proven dead anew.
    """
    if credentials and (_may_have_moved(worker) or _is_in_doubt(worker, file)):
        return credentials
    return ()


def _is_in_doubt(worker: WorkerContext, file: TaskRecord) -> bool:
    """Return whether Vault's answer to a revocation could mislead here.

    It could where the task was reopened, or a gap or hazardous act touches it.
    """
    was_reopened = any(event.kind in REOPENING_EVENTS for event in file.events)
    return was_reopened or worker.ledger.interrupted(file) or worker.ledger.endangered(file)


def _may_have_moved(worker: WorkerContext) -> bool:
    """Return whether the stream may continue elsewhere than last time.

    That is elsewhere than where the stream was last read. The kill switch does not read the stream before it revokes,
    so this asks the sources only.
    """
    sources = worker.sources.present()
    readings = worker.ledger.readings()
    if len(sources) != 1:
        return True
    reading = readings.get(sources[0].name)
    with suppress(AuditUntrusted):
        return reading is None or not sources[0].continues(reading.position)
    return True
