"""What the ledger keeps of credentials that belong to no task, and what it is asked when they are looked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from jitvault.audit.observation import Observation
from jitvault.audit.trail import AuditTrail
from jitvault.model.states import Verdict

if TYPE_CHECKING:
    from jitvault.ledger.model import GrantRow, LeaseRow, OperationRow


@dataclass(frozen=True, slots=True)
class UntrackedCredentialRow:
    """A credential in Vault that no task explains. `task_id` is set where a task calls it dead.

    `line` is the audit line that shows how it was made, where there is one. `revoking` says that we have begun to end
    it: it is not finished before its end is proven.
    """

    lease_id: str
    kind: str
    path: str
    task_id: str | None
    issued_at: datetime | None
    expires_at: datetime | None
    line: str
    request_id: str
    first_seen_at: datetime
    verdict: Verdict
    revoking: bool
    checks: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class FindingRow:
    """What is told once: a finding with the same task, rule and message is not kept again."""

    task_id: str | None
    rule: str
    message: str
    line: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """The closing line of an issue, and Vault's time of its request line."""

    line: Observation
    since: datetime


class Orphans(Protocol):
    """Raises LedgerUnavailable as the rest of the ledger does."""

    def claim_sweep(self) -> AbstractContextManager[int]:
        """The exclusive right to end what belongs to no task, for 30 s; waits for another's claim."""
        ...

    def extend_sweep(self, claim: int) -> None:
        """Hold the claim for another 30 s. Raises WrongState when it was lost."""
        ...

    def keep(
        self,
        *,
        orphans: Sequence[UntrackedCredentialRow] = (),
        operations: Sequence[OperationRow] = (),
        findings: Sequence[FindingRow] = (),
        at: datetime,
        claim: int | None = None,
    ) -> None:
        """Write all of it at once. Raises WrongState when `claim` was lost."""
        ...

    def orphans(self) -> list[UntrackedCredentialRow]:
        """All that were ever found."""
        ...

    def operations_on(self, lease_ids: Sequence[str]) -> list[OperationRow]:
        """The operations of no task on these, the oldest first."""
        ...

    def trail_of(self, lease_ids: Sequence[str]) -> AuditTrail:
        """The lines of those operations, what others did to these leases, hazards, and the canaries around them."""
        ...

    def told_lines(self, rules: Sequence[str]) -> frozenset[str]:
        """The audit lines that findings of these rules name."""
        ...

    def grants_since(self, at: datetime) -> list[GrantRow]:
        """All grants whose token was issued then or later, and those that have no issue time or are not settled."""
        ...

    def leases_among(self, lease_ids: Sequence[str]) -> list[LeaseRow]:
        """Those of these leases that belong to a task."""
        ...

    def leases_not_dead(self) -> list[LeaseRow]:
        """All leases that are not known to be dead."""
        ...

    def access_paths(self) -> dict[str, bool]:
        """The Vault paths that tasks were ever allowed to read, and whether a task that is not over has it."""
        ...

    def unfinished_operations(self) -> list[OperationRow]:
        """Operations that are intended or unknown, of tasks that are neither proven nor over."""
        ...

    def made_for_nobody(self) -> list[Made]:
        """The lines of tokens and leases that were made, and that belong to no grant and no lease of the ledger."""
        ...

    def wrapped_reads(self) -> list[Made]:
        """The lines of what task tokens read in a wrapping that no line shows as opened."""
        ...

    def used_at(self, paths: Sequence[str], *, since: datetime) -> list[Observation]:
        """The lines of task tokens' requests for these paths that show no lease, and all that show a wrapping opened or
        moved, since then and in the order of the stream.
        """
        ...

    def worker_accessors(self) -> frozenset[str]: ...
