"""Receipt v1: what is signed of a closed task, field by field, and whether Vault's own key signed it.

A receipt is an in-toto Statement in a DSSE envelope. Its subject is the approved revision, and its predicate a
`Receipt`. Every field is required, and no other one is allowed: more fields are another predicate type.
`jitvault.lifecycle.record.receipt` makes it, `jitvault.verification` reads it strictly, and docs/receipt.md says of
each field by what it can be derived again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, ValidationError, field

from jitvault.documents.proof import SettledProof
from jitvault.documents.published_parts import Ended, GrantedExtension
from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE, opened
from jitvault.errors import SecurityFinding
from jitvault.formats.canonical_json import sha256_hex
from jitvault.formats.conversion import as_json, converter
from jitvault.model.evidence import Time
from jitvault.model.revision_content import Link, Party
from jitvault.model.signed_document import SignedByPerson
from jitvault.model.states import State, Verdict
from jitvault.policy.decision import Decision

CLOSED = frozenset({State.SEALED, State.UNVERIFIED})
"""The states that have a receipt."""

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


class Documents(Struct, frozen=True, forbid_unknown_fields=True):
    """What people signed about the task.

    `request` is None, and `decisions` may lack some, where the task's record was rebuilt. `ends` has every signed
    request to end the task, also one that came after its end had begun; there is none where nobody asked. `freeze` is
    the operator's freeze that ended it, None where another cause did, or the freeze names its agent or owner otherwise.
    """

    request: SignedByPerson | None
    decisions: list[SignedByPerson]
    ends: list[SignedByPerson]
    freeze: SignedByPerson | None


class StatedExtension(GrantedExtension, frozen=True, forbid_unknown_fields=True):
    """An extension with the request for it and the decisions about it, as they were signed."""

    signed_request: SignedByPerson
    signed: list[SignedByPerson]


class Recovery(Struct, frozen=True, forbid_unknown_fields=True):
    """A rebuilt record: when, from which published event, and by whose signatures."""

    at: Time
    from_: dict[str, str | int | None] = field(name="from")
    verified_by: list[str]


class Receipt(Struct, frozen=True, forbid_unknown_fields=True):
    """The predicate: what is said of a closed task.

    - parties, delegation, intent and access are those of the revision, for whoever reads the receipt without a tool;
    - `delegation` are the tasks above that handed the access on, `children` those directly below;
    - `approved_by` are the entities whose approvals counted, `approvers` those of them whose names Vault had;
    - `ended` is who ended the task, when and why;
    - `documents` are what people signed about it;
    - `grants` are its tokens, the last one last; `extensions` is more time that was granted;
    - `chain` is the end of its history before the seal; `recovered` says how often its record was rebuilt.
    """

    installation: str
    task: Annotated[str, Meta(min_length=1)]
    revision: Annotated[int, Meta(ge=1)]
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
    documents: Documents
    policy: Decision
    grants: list[StatedGrant]
    extensions: list[StatedExtension]
    findings: list[StatedFinding]
    proof: SettledProof
    chain: Chain
    recovered: list[Recovery]
    sealed_at: Time


class SubjectDigest(Struct, frozen=True, forbid_unknown_fields=True):
    """The SHA-256 of the revision's bytes."""

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Subject(Struct, frozen=True, forbid_unknown_fields=True):
    """The approved revision: the task's id, its digest, and its exact bytes."""

    name: Annotated[str, Meta(min_length=1)]
    digest: SubjectDigest
    content: bytes


class Statement(Struct, frozen=True, forbid_unknown_fields=True):
    """The in-toto Statement that is signed."""

    type_: Literal["https://in-toto.io/Statement/v1"] = field(name="_type")
    subject: Annotated[list[Subject], Meta(min_length=1, max_length=1)]
    predicate_type: Literal["https://jitvault.dev/receipt/v1"] = field(name="predicateType")
    predicate: Receipt

    @property
    def revision(self) -> Subject:
        """The one subject."""
        return self.subject[0]

    @property
    def digest(self) -> str:
        """The revision's digest, in the form in which approvers sign it."""
        return f"sha256:{self.revision.digest.sha256}"


_statement = converter(Statement)


def statement_of(receipt: Receipt, revision: bytes) -> Statement:
    """Return the statement about the revision with these bytes."""
    return Statement(
        type_="https://in-toto.io/Statement/v1",
        subject=[Subject(receipt.task, SubjectDigest(sha256_hex(revision)), revision)],
        predicate_type="https://jitvault.dev/receipt/v1",
        predicate=receipt,
    )


def verified(
    signed: Mapping[str, Any] | None,
    public_keys: Mapping[int, str],
    *,
    task_id: str,
    digest: object,
    installation: str,
    state: object,
) -> Receipt | None:
    """Return a receipt's predicate if it is signed for this task and state.

    None means that Vault's key of receipts did not sign it about this task, in this state. A thief of the worker's
    token can sign as well, but that leaves an audit line which freezes everything.
    """
    if signed is None or state not in CLOSED:
        return None
    try:
        found = statement_in(signed, public_keys)
    except SecurityFinding:
        return None
    receipt = found.predicate
    # the receipt of a seal is signed a moment before the state changes: its proof says confirmed
    expected = State.CONFIRMED if state == State.SEALED else state
    said = (found.revision.name, receipt.task, found.digest, receipt.installation, receipt.proof.state)
    return receipt if said == (task_id, task_id, digest, installation, expected) else None


def statement_in(signed: object, public_keys: Mapping[int, str]) -> Statement:
    """Return the statement in a signed receipt.

    Raises SecurityFinding for what the key did not sign as a receipt.
    """
    content = opened(signed, key=RECEIPT_KEY, public_keys=public_keys, payload_type=RECEIPT_TYPE)
    try:
        found = _statement(content)
    except (ValidationError, RecursionError) as error:
        raise SecurityFinding(f"what the key of receipts signed is no receipt: {type(error).__name__}") from None
    # a field of the decision that is not there would be read as its default
    if as_json(found) != content:
        raise SecurityFinding("what the key of receipts signed is no receipt: a field lacks, or has another form")
    return found
