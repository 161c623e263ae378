"""The content of a receipt, and whether Vault's own key signed it for its task and end.

`jitvault.lifecycle.record.receipt` makes the content, and `jitvault.verification.receipt` reads it strictly.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from jitvault.documents.proof import SettledProof
from jitvault.documents.published_parts import Ended, GrantedExtension
from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE, opened
from jitvault.errors import SecurityFinding
from jitvault.model.revision import Party
from jitvault.model.states import State, Verdict
from jitvault.policy.decision import ProofLevel, Requirement

CLOSED = frozenset({State.SEALED, State.UNVERIFIED})
"""The states that have a receipt."""

Time = Annotated[datetime, Meta(tz=True)]
Head = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]


class StatedGrant(Struct, frozen=True, forbid_unknown_fields=True):
    """A token of the task. `accessor_hmac` is None for one that was never created."""

    grant: str
    attempt: int
    role: str
    accessor_hmac: str | None
    requested_ttl_s: int
    ttl_s: int
    step_s: int
    issued_at: Time | None
    expires_at: Time | None
    verdict: Verdict


class StatedAccess(Struct, frozen=True, forbid_unknown_fields=True):
    """A template that the task used, with its parameters and its path in Vault."""

    template: str
    path: str
    with_: dict[str, str] = field(name="with")


class Chain(Struct, frozen=True, forbid_unknown_fields=True):
    """How many events a task's chain has, and the hash of the last one."""

    events: Annotated[int, Meta(ge=1)]
    head: Head


class Child(Struct, frozen=True, forbid_unknown_fields=True):
    """A task that was delegated directly below this one."""

    task: str
    digest: Digest
    state: State
    chain: Chain


class StatedFinding(Struct, frozen=True, forbid_unknown_fields=True):
    """A tripwire's finding; `line` is the SHA-256 of its audit line."""

    rule: str
    message: str
    line: str | None


class Link(Struct, frozen=True, forbid_unknown_fields=True):
    """A task above, and its parties."""

    task: str
    digest: Digest
    requester: Party
    agent: Party
    owner: Party


class Recovery(Struct, frozen=True, forbid_unknown_fields=True):
    """A rebuilt record: when, from which published event, and by whose signatures."""

    at: Time
    from_: dict[str, Any] = field(name="from")
    verified_by: list[str]


class StatedObligations(Struct, frozen=True, forbid_unknown_fields=True):
    """What policy demanded (`jitvault.policy.decision.Obligations`)."""

    approvals: list[Requirement]
    max_ttl_s: int | None
    max_window_s: int | None
    confirm: ProofLevel | None
    notify: list[str]
    owner_may_approve: list[str]


class StatedPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Policy's decision about the revision."""

    permitted: bool
    obligations: StatedObligations
    rules: list[str]
    reasons: list[str]
    policy_digest: str


class Receipt(Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed of a closed task.

    - `digest` is the revision's, which the approvers signed;
    - `delegation` are the tasks above that handed the access on, `children` those directly below;
    - `approved_by` are the entities whose approvals counted, `approvers` those of them whose names Vault had;
    - `ended` is who ended the task, when and why;
    - `grants` are its tokens, the last one last; `extensions` is more time that was granted;
    - `chain` is the end of its history before the seal; `recovered` says how often its record was rebuilt.
    """

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
    approvers: list[Party]
    access: list[StatedAccess]
    ended: Ended | None
    policy: StatedPolicy
    grants: list[StatedGrant]
    extensions: list[GrantedExtension]
    findings: list[StatedFinding]
    proof: SettledProof
    chain: Chain
    recovered: list[Recovery]
    sealed_at: Time


def verified(
    signed: Mapping[str, Any] | None,
    public_keys: Mapping[int, str],
    *,
    task_id: str,
    digest: object,
    installation: str,
    state: object,
) -> dict[str, Any] | None:
    """Return a receipt's content if it is signed for this task and state.

    None means that Vault's key of receipts did not sign it about this task, in this state. A thief of the worker's
    token can sign as well, but that leaves an audit line which freezes everything.
    """
    if signed is None or state not in CLOSED:
        return None
    try:
        content = opened(signed, key=RECEIPT_KEY, public_keys=public_keys, payload_type=RECEIPT_TYPE)
    except SecurityFinding:
        return None
    proof = content.get("proof")
    proven_state = proof.get("state") if isinstance(proof, dict) else None
    # the receipt of a seal is signed a moment before the state changes: its proof says confirmed
    expected = State.CONFIRMED if state == State.SEALED else state
    found = (content.get("task"), content.get("digest"), content.get("installation"), proven_state)
    return content if found == (task_id, digest, installation, expected) else None
