"""The proof of a task's end.

The published copy, the receipt, `status`, `report` and the verifier have it in this form.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from jitvault.model.proof_check import TARGET_N, Check
from jitvault.model.states import EndReason, State, Verdict


class CredentialProof(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of the end of a token, and the checks that show it."""

    verdict: Verdict
    checks: list[Check]

    def check(self, n: int) -> Check | None:
        """Return the check with this number, None where it is not there."""
        return next((one for one in self.checks if one.n == n), None)


class LeaseProof(CredentialProof, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same of a lease. `error` is Vault's answer to a revocation of it that failed."""

    lease_id: Annotated[str, Meta(min_length=1)]
    template: str
    error: str | None


class Forced(Struct, frozen=True, forbid_unknown_fields=True):
    """The operator who had Vault forget a lease, or had the task closed without proof, and why."""

    by: str
    name: str
    reason: str


class SettledProof(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The proof of a task that is closed; the receipt has it.

    - `reopened` is how often the end was called proven and was not;
    - `dead_ms` and `confirmed_ms` are how long the revocation and its proof took, None where a clock was wrong;
    - `token` is the task's last token, with the checks of the task itself; `earlier_tokens` are those that an extension
      replaced, or that were never delivered;
    - `target_asked` says whether the target was asked about each lease; None without a lease;
    - `not_proven` says in words what no check covers.
    """

    task_id: str
    state: State
    end_reason: EndReason | None
    confirmed: bool
    reopened: int
    forced: Forced | None
    dead_ms: int | None
    confirmed_ms: int | None
    leases: list[LeaseProof]
    token: CredentialProof
    earlier_tokens: list[CredentialProof]
    target_asked: bool | None
    not_proven: list[str]

    @property
    def credentials(self) -> list[CredentialProof]:
        return [*self.leases, self.token, *self.earlier_tokens]

    @property
    def failed(self) -> list[Check]:
        """The checks that do not hold, those of the leases first."""
        return [check for credential in self.credentials for check in credential.checks if not check.ok]


class Proof(SettledProof, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The proof of a task whose end may still be open.

    `unproven_because` says in words why it is not proven, or not sealed. `open_besides` is what of it neither a failed
    check nor a lease's error says.
    """

    unproven_because: str | None
    open_besides: str | None


def target_asked(leases: list[LeaseProof]) -> bool | None:
    """Return whether the target was asked about each of the leases.

    None without a lease: then there was nothing that a target could tell.
    """
    return all(lease.check(TARGET_N) is not None for lease in leases) if leases else None


def settled_proof(proof: Proof) -> SettledProof:
    """Return the proof for a receipt, without what kept it open before."""
    return SettledProof(**{name: getattr(proof, name) for name in SettledProof.__struct_fields__})
