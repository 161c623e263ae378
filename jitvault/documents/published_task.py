"""What a worker publishes about a task at `tasks/<task>`.

The document has one type, one writer and one reader. Whoever has a worker's token can write anything there. So
`read_published` checks the type of every field before a command decides by it, and what no worker can have written is
an `IllegibleDocument`, never an exception.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from jitvault.documents.proof import Proof
from jitvault.documents.published_parts import (
    CountedDecision,
    Ended,
    GrantedExtension,
    PublishedExtension,
    Reads,
    RefusedGrant,
)
from jitvault.errors import CorruptRecord
from jitvault.formats.conversion import as_json, converter, place_of
from jitvault.model.event_bodies import PublishedEnd, Refusal, StatedError
from jitvault.model.evidence import Time
from jitvault.model.revision import Revision
from jitvault.model.states import EndReason, State
from jitvault.policy.decision import Decision, Requirement

ILLEGIBLE = "illegible"
"""The state that is shown for a document that no worker can have written."""
REFUSED = "refused"
"""The state of a request that never became a task."""
MOST_UNPACKED = 16 * 1024 * 1024
"""The most bytes that are unpacked. Some ten thousand leases with their checks take less, while a few hundred kilobytes
written by a thief can unpack to gigabytes.
"""
_UNPACK_ERRORS = (ValueError, RecursionError, zlib.error)


class ChainEnd(Struct, frozen=True, forbid_unknown_fields=True):
    """The last event of a task's chain when the task was published.

    Who finds a ledger that does not hold this event knows that it was edited or restored.
    """

    seq: int
    head: str


class PublishedTask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of a task as a worker published it.

    `written_at` is Vault's time of the document.

    - `body` is the revision's exact bytes, and `approved` those of the last revision before it that was approved;
    - `decision` is policy's decision about the revision, `decisions` are the approvers';
    - `open_to`, `missing` and `refused` say whose approval counts, which are missing, and which do not count;
    - `stands_until` is when a task that waits lapses;
    - `unwrap_until` is when an issued task ends if nobody has unwrapped its token;
    - `reads` says how many credentials the newest token got, `done`, and how many it may get, `allowed`;
    - `error` is for people who wait and can read nothing but this document.
    """

    installation: str
    task_id: str
    state: State
    end_reason: EndReason | None
    revision: int
    digest: str
    chain: ChainEnd
    body: bytes
    requester: str
    agent: str
    parent: str | None
    delegation: list[str]
    decision: Decision
    approved: bytes | None
    open_to: list[str]
    missing: list[Requirement]
    refused: list[Refusal]
    decisions: list[CountedDecision]
    ended: Ended | None
    why_denied: str | None
    stands_until: Time | None
    refused_grant: RefusedGrant | None
    grant_id: str | None
    expires_at: Time | None
    unwrap_until: Time | None
    ends_at: Time | None
    ttl: dict[str, int] | None
    reads: Reads | None
    extension: PublishedExtension | None
    extensions: list[GrantedExtension]
    proof: Proof | None
    receipt: dict[str, Any] | None
    findings: list[str]
    error: StatedError | None
    written_at: Time

    @property
    def full_revision(self) -> Revision:
        """Return the published revision.

        Its digest is computed from the bytes, never taken from the document.
        """
        return Revision.of(self.body)

    @property
    def is_for_agent(self) -> bool:
        """Whether the wrapping token goes to the inbox of the agent."""
        return self.full_revision.spec.spec.deliver == "agent"

    @property
    def chain_and_state(self) -> PublishedEnd:
        """The chain's last event and the state, as a `recovered` event names them."""
        return PublishedEnd(
            seq=self.chain.seq, head=self.chain.head, state=self.state, refused_request=self.refused_request
        )

    @property
    def refused_request(self) -> str | None:
        """The nonce of the last request for a grant that was refused."""
        return self.refused_grant.request if self.refused_grant else None

    def as_json(self) -> dict[str, Any]:
        """Return the document with its proof and receipt as JSON data.

        The time at which it was written is left out.
        """
        return _without_time(self)

    def as_document(self) -> dict[str, Any]:
        """Return the document as it is stored in Vault."""
        return {**self.as_json(), "proof": packed(self.proof), "receipt": packed(self.receipt)}


class PublishedRefusal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="state", tag=REFUSED):
    """A request that a worker refused, which settles it.

    `request` is its nonce.
    """

    task_id: str
    requester: str
    request: str
    error: StatedError
    written_at: Time

    @property
    def state(self) -> str:
        return REFUSED

    def as_document(self) -> dict[str, Any]:
        """Return the document as it is stored in Vault."""
        return _without_time(self)


class IllegibleDocument(Struct, frozen=True, kw_only=True):
    """What no worker can have written, but a thief of a worker's token can.

    `installation` is the one that the document names, if it names any. `place` is a JSON pointer to what is wrong,
    empty where that is not one place.
    """

    task_id: str
    installation: str
    place: str = ""
    written_at: Time

    @property
    def state(self) -> str:
        return ILLEGIBLE


def _without_time(document: Struct) -> dict[str, Any]:
    found = as_json(document)
    del found["written_at"]
    return found


PublishedDocument = PublishedTask | PublishedRefusal | IllegibleDocument


_refusal = converter(PublishedRefusal)
_task = converter(PublishedTask)


def read_published(task_id: str, document: Mapping[str, Any], written_at: datetime) -> PublishedDocument:
    """Return what lies at `tasks/<task_id>`, decoded and checked."""
    try:
        return _decoded(task_id, document, written_at)
    except (CorruptRecord, msgspec.ValidationError, *_UNPACK_ERRORS) as error:
        installation = document.get("installation")
        return IllegibleDocument(
            task_id=task_id,
            installation=installation if isinstance(installation, str) else "",
            place=place_of(error) if isinstance(error, msgspec.ValidationError) else "",
            written_at=written_at,
        )


def _decoded(task_id: str, document: Mapping[str, Any], written_at: datetime) -> PublishedTask | PublishedRefusal:
    """Return the document as the published task or refusal that it is.

    Raises CorruptRecord, ValidationError, or one of `_UNPACK_ERRORS` for what no worker wrote.
    """
    if document.get("task_id") != task_id:
        raise CorruptRecord(f"the document at the name of task {task_id} is about another task")
    if document.get("state") == REFUSED:
        return _refusal({**document, "written_at": written_at})
    whole = {**document, "written_at": written_at}
    if isinstance(proof := document.get("proof"), str):
        whole["proof"] = _unpacked(proof)
    if "receipt" in document:
        whole["receipt"] = unpacked_receipt(document)
    task = _task(whole)
    for body in filter(None, (task.body, task.approved)):
        Revision.of(body).check_form()
    if task.extension is not None and task.extension.state == "pending" and task.extension.decision is None:
        raise CorruptRecord("nobody decided about the extension that waits for an approval")
    return task


def packed(part: Proof | Mapping[str, Any] | None) -> str | None:
    """Pack a part into one string.

    OpenBao refuses a request that holds 1,000 strings, and 22 leases with their checks do.
    """
    if part is None:
        return None
    return _base64(zlib.compress(msgspec.json.encode(part)))


def unpacked_receipt(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the signed receipt in a published document, unverified, or None."""
    found = document.get("receipt")
    if not isinstance(found, str):
        return None
    try:
        receipt = _unpacked(found)
    except _UNPACK_ERRORS:
        return None
    return receipt if isinstance(receipt, dict) else None


def _unpacked(text: str) -> Any:
    packed = zlib.decompressobj()
    found = packed.decompress(base64.b64decode(text), MOST_UNPACKED)
    if not packed.eof:
        raise ValueError(f"it is cut, or more than {MOST_UNPACKED} bytes")
    return json.loads(found)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
