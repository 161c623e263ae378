"""Parts of what a worker publishes about a task.

The output of `status`, receipts and reports contain these parts as well.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from jitvault.model.proof_check import Check

Seconds = Annotated[int, Meta(ge=0)]
"""A duration; a negative one is nothing that a worker publishes."""


class MissingApproval(TypedDict):
    group: str
    count: int


class UncountedDecision(TypedDict):
    """A decision that does not count, and why."""

    entity: str
    name: str
    why: str
    withdrawn: bool


class CountedDecision(TypedDict):
    entity: str
    decision: str
    digest: str


class Reads(TypedDict):
    """How many credentials a task's newest token got, and how many it may get."""

    done: int
    allowed: int


class Author(TypedDict):
    entity: str
    name: str


class Ended(TypedDict):
    """Who ended or cancelled the task.

    `by` and `name` are None where no person did.
    """

    by: str | None
    name: str | None
    at: str
    reason: str
    note: str


class ExtensionContent(TypedDict):
    """The signed content of an extension (`jitvault.model.extension`)."""

    apiVersion: NotRequired[str]
    kind: NotRequired[str]
    installation: str
    task: str
    revision: int
    revision_digest: str
    by: Author
    reason: str
    since: str
    seconds: Seconds
    until: str
    window_s: Seconds


class RefusedGrant(TypedDict):
    """The last request for a grant that was refused, which settles it.

    `request` is its nonce, `error` has `exit_code`, `message` and `hint`. `revision` is that of the task at that time,
    which an older worker's document lacks.
    """

    request: str
    revision: NotRequired[int]
    at: str
    error: dict[str, Any]


class PublishedExtension(TypedDict):
    """The last request for more time, and its result."""

    state: str
    request: str
    digest: str
    content: ExtensionContent
    replaces: bool
    decision: dict[str, Any] | None
    approved_by: list[dict[str, Any]]
    missing: list[MissingApproval]
    open_to: list[str]
    refused: list[UncountedDecision]
    error: dict[str, Any] | None


class GrantedExtension(TypedDict):
    """An extension that was granted."""

    by: Author
    reason: str
    since: str
    seconds: Seconds
    until: str
    window_s: Seconds
    digest: str
    approved_by: list[dict[str, Any]]
    rules: list[str]
    policy_digest: str
    replaces: str | bool | None
    at: str


class CredentialProof(TypedDict):
    verdict: str
    checks: list[Check]


class LeaseProof(CredentialProof):
    lease_id: str
    template: str
    error: str | None


class Forced(TypedDict):
    by: str
    name: str
    reason: str


class Proof(TypedDict):
    """The proof of a task's end.

    `lifecycle.record.receipt.proof_of` renders it. An older worker's proof lacks the keys that are not required.
    """

    task_id: str
    state: str
    end_reason: str | None
    confirmed: bool
    reopened: NotRequired[int]
    forced: Forced | None
    dead_ms: int | None
    confirmed_ms: int | None
    leases: list[LeaseProof]
    token: CredentialProof
    earlier_tokens: list[CredentialProof]
    target_asked: NotRequired[bool | None]
    unproven_because: NotRequired[str | None]
    not_proven: NotRequired[list[str]]
