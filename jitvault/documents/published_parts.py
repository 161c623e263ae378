"""Parts of what a worker publishes about a task.

The output of `status`, receipts and reports contain these parts as well.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from jitvault.model.event_bodies import Refusal, StatedError
from jitvault.model.evidence import Time
from jitvault.model.extension import Extension
from jitvault.model.revision_content import Party
from jitvault.policy.decision import Decision, Requirement, Seconds


class CountedDecision(Struct, frozen=True, forbid_unknown_fields=True):
    entity: str
    decision: str
    digest: str


class Reads(Struct, frozen=True, forbid_unknown_fields=True):
    """How many credentials a task's newest token got, and how many it may get."""

    done: int
    allowed: int


class Ended(Struct, frozen=True, forbid_unknown_fields=True):
    """Who ended or cancelled the task.

    `by` and `name` are None where no person did.
    """

    by: str | None
    name: str | None
    at: Time
    reason: str
    note: str


class RefusedGrant(Struct, frozen=True, forbid_unknown_fields=True):
    """The last request for a grant that was refused, which settles it.

    `request` is its nonce. `revision` is that of the task at that time.
    """

    request: str
    revision: int
    at: Time
    error: StatedError


class PublishedExtension(Struct, frozen=True, forbid_unknown_fields=True):
    """The last request for more time, and its result.

    `decision` is policy's, None where it was not asked.
    """

    state: str
    request: str
    digest: str
    content: Extension
    replaces: bool
    decision: Decision | None
    approved_by: tuple[Party, ...]
    missing: tuple[Requirement, ...]
    open_to: tuple[str, ...]
    refused: tuple[Refusal, ...]
    error: StatedError | None


class GrantedExtension(Struct, frozen=True, forbid_unknown_fields=True):
    """An extension that was granted: what was signed, and who approved it.

    `replaces` is the grant whose token it replaced, if any. The published copy and the receipt have it, and so has the
    verifier.
    """

    by: Party
    reason: str
    since: str
    seconds: Seconds
    until: str
    window_s: Seconds
    digest: Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
    approved_by: list[Party]
    rules: list[str]
    policy_digest: str
    replaces: str | bool | None
    at: Time
