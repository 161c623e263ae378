"""The content of a receipt, read strictly.

`jitvault.lifecycle.record.receipt` renders it. Only a content whose signature holds is read here, but a thief of the
worker's token can have anything signed: so every type is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from jitvault.errors import SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.formats.shorten import one_line
from jitvault.model.proof_check import Check
from jitvault.model.states import State, Verdict

_HINT = "Whoever has the worker's token can have anything signed. Keep the file, and ask who has the ledger."
Time = Annotated[datetime, Meta(tz=True)]
Head = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]


class Party(Struct, frozen=True):
    entity: str
    name: str


class StatedCredential(Struct, frozen=True):
    verdict: Verdict
    checks: list[Check]


class StatedLease(StatedCredential, frozen=True):
    lease_id: Annotated[str, Meta(min_length=1)]
    template: str
    error: str | None = None


class Forced(Struct, frozen=True):
    by: str
    name: str
    reason: str


class StatedProof(Struct, frozen=True):
    task_id: str
    state: State
    confirmed: bool
    token: StatedCredential
    leases: list[StatedLease]
    earlier_tokens: list[StatedCredential]
    end_reason: str | None = None
    forced: Forced | None = None
    reopened: int = 0
    dead_ms: int | None = None
    confirmed_ms: int | None = None
    not_proven: list[str] = []
    target_asked: bool | None = None


class StatedGrant(Struct, frozen=True):
    grant: str
    attempt: int
    role: str
    accessor_hmac: str | None
    verdict: Verdict
    issued_at: Time | None
    expires_at: Time | None
    requested_ttl_s: int
    ttl_s: int
    step_s: int


class StatedAccess(Struct, frozen=True):
    template: str
    path: str
    with_: dict[str, str] = field(name="with")


class StatedEnd(Struct, frozen=True):
    at: Time
    reason: str
    note: str = ""
    name: str | None = None


class Chain(Struct, frozen=True):
    events: Annotated[int, Meta(ge=1)]
    head: Head


class Child(Struct, frozen=True):
    task: str
    digest: Digest
    state: State
    chain: Chain


class StatedFinding(Struct, frozen=True):
    rule: str
    message: str
    line: str | None


class Link(Struct, frozen=True):
    """A task above, and its parties."""

    task: str
    digest: Digest
    requester: Party
    agent: Party
    owner: Party


class Recovery(Struct, frozen=True):
    """A rebuilt record: from which event, and by whose signatures."""

    at: Time
    from_: dict[str, Any] = field(name="from")
    verified_by: list[str]


class StatedExtension(Struct, frozen=True):
    by: Party
    reason: str
    since: str
    seconds: int
    until: str
    window_s: int
    digest: Digest
    approved_by: list[Party]
    rules: list[str]
    policy_digest: str
    replaces: str | bool | None
    at: Time


class Needed(Struct, frozen=True):
    group: str
    count: Annotated[int, Meta(ge=1)]


class Obligations(Struct, frozen=True):
    approvals: list[Needed] = []
    confirm: str | None = None
    owner_may_approve: list[str] = []


class StatedPolicy(Struct, frozen=True):
    permitted: bool
    obligations: Obligations


class Receipt(Struct, frozen=True):
    kind: str
    installation: str
    task: Annotated[str, Meta(min_length=1)]
    revision: Annotated[int, Meta(ge=1)]
    digest: Digest
    requester: Party
    agent: Party
    owner: Party
    delegation: list[Link]
    children: list[Child]
    intent: str
    approved_by: list[str]
    policy: StatedPolicy
    grants: list[StatedGrant]
    extensions: list[StatedExtension]
    findings: list[StatedFinding]
    proof: StatedProof
    chain: Chain
    recovered: list[Recovery]
    sealed_at: Time
    approvers: list[Party]
    access: list[StatedAccess]
    ended: StatedEnd | None


@dataclass(frozen=True, slots=True)
class Credential:
    """A token or lease of the receipt, with its name in messages.

    `lease_id` is empty for a token, `grant` is None for a lease.
    """

    name: str
    said: StatedCredential
    lease_id: str = ""
    grant: StatedGrant | None = None

    @property
    def accessor(self) -> str:
        """The HMAC of a token's accessor; empty for a lease."""
        return (self.grant.accessor_hmac or "") if self.grant else ""

    def check(self, n: int) -> Check | None:
        """Return the check with this number, None where it is not there."""
        return next((one for one in self.said.checks if one.n == n), None)


def read_content(payload: bytes) -> Receipt:
    """Return a receipt's content from its signed bytes.

    Raises SecurityFinding for bytes that are no receipt, or not in the one form in which jitvault signs.
    """
    try:
        plain = msgspec.json.decode(payload, type=dict[str, Any])
        is_canonical = canonical_bytes(plain) == payload
        content = msgspec.json.decode(payload, type=Receipt)
    except msgspec.ValidationError as error:
        raise SecurityFinding(f"what was signed is no receipt: {one_line(str(error))}", hint=_HINT) from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SecurityFinding(f"what was signed is no receipt: {type(error).__name__}", hint=_HINT) from None
    if not is_canonical:
        # one key twice, for example: two programs could read two different receipts
        raise SecurityFinding("what was signed is not in canonical form, so two readers can differ", hint=_HINT)
    return content


def credentials(receipt: Receipt) -> Iterator[Credential]:
    """Yield each token and lease, the task's last token first."""
    made = [grant for grant in receipt.grants[:-1] if grant.accessor_hmac]
    last = receipt.grants[-1] if receipt.grants else None
    yield Credential("the task's token", receipt.proof.token, grant=last)
    for number, (grant, said) in enumerate(zip(made, receipt.proof.earlier_tokens, strict=False), 1):
        yield Credential(f"earlier token {number}", said, grant=grant)
    for lease in receipt.proof.leases:
        yield Credential(f"lease {lease.lease_id}", lease, lease_id=lease.lease_id)
