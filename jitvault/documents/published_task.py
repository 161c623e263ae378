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
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from jitvault.documents.published_parts import (
    CountedDecision,
    Ended,
    GrantedExtension,
    MissingApproval,
    Proof,
    PublishedExtension,
    Reads,
    RefusedGrant,
    UncountedDecision,
)
from jitvault.errors import CorruptRecord
from jitvault.formats.conversion import converter
from jitvault.formats.rfc3339 import rfc3339
from jitvault.model.extension import Extension
from jitvault.model.revision import Revision
from jitvault.model.states import EndReason, State
from jitvault.policy.decision import Decision

ILLEGIBLE = "illegible"
"""The state that is shown for a document that no worker can have written."""
REFUSED = "refused"
"""The state of a request that never became a task."""
MOST_UNPACKED = 16 * 1024 * 1024
"""The most bytes that are unpacked. Some ten thousand leases with their checks take less, while a few hundred kilobytes
written by a thief can unpack to gigabytes.
"""
_UNPACK_ERRORS = (ValueError, RecursionError, zlib.error)

Instant = Annotated[datetime, Meta(tz=True)]


class ChainEnd(Struct, frozen=True):
    """The last event of a task's chain when the task was published.

    Who finds a ledger that does not hold this event knows that it was edited or restored.
    """

    seq: int
    head: str


class PublishedError(Struct, frozen=True):
    """The error that last kept the task from going on."""

    exit_code: int
    message: str
    hint: str | None


class PublishedTask(Struct, frozen=True, kw_only=True):
    """The state of a task as a worker published it.

    `written_at` is Vault's time of the document. Fields with a default are missing in what an older worker published.

    - `body` is the revision's exact bytes, and `approved` those of the last revision before it that was approved;
    - `decision` is policy's decision about the revision, `decisions` are the approvers';
    - `open_to`, `missing` and `refused` say whose approval counts, which are missing, and which do not count;
    - `stands_until` is when a task that waits lapses;
    - `unwrap_until` is when an issued task ends if nobody has unwrapped its token;
    - `reads` says how many credentials the newest token got, `done`, and how many it may get, `allowed`;
    - `error` is for people who wait and can read nothing but this document.
    """

    installation: str = ""
    task_id: str
    state: State
    end_reason: EndReason | None = None
    revision: int = 0
    digest: str = ""
    chain: ChainEnd
    body: bytes
    requester: str = ""
    agent: str = ""
    parent: str | None = None
    delegation: list[str] = []
    decision: dict[str, Any] = {}
    approved: bytes | None = None
    open_to: list[str] = []
    missing: list[MissingApproval] = []
    refused: list[UncountedDecision] = []
    decisions: list[CountedDecision] = []
    ended: Ended | None = None
    why_denied: str | None = None
    stands_until: Instant | None = None
    refused_grant: RefusedGrant | None = None
    grant_id: str | None = None
    expires_at: Instant | None = None
    unwrap_until: Instant | None = None
    ends_at: Instant | None = None
    ttl: dict[str, int] | None = None
    reads: Reads | None = None
    extension: PublishedExtension | None = None
    extensions: list[GrantedExtension] = []
    proof: Proof | None = None
    receipt: dict[str, Any] | None = None
    findings: list[str] = []
    error: PublishedError | None = None
    written_at: Instant

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
    def chain_and_state(self) -> dict[str, Any]:
        """The chain's last event and the state, as a `recovered` event names them."""
        return {"seq": self.chain.seq, "head": self.chain.head, "state": self.state.value}

    @property
    def refused_request(self) -> str | None:
        """The nonce of the last request for a grant that was refused."""
        return self.refused_grant["request"] if self.refused_grant else None

    def as_json(self) -> dict[str, Any]:
        """Return the document with its proof and receipt as JSON data.

        The time at which it was written is left out.
        """
        return {
            "installation": self.installation,
            "task_id": self.task_id,
            "state": self.state.value,
            "end_reason": self.end_reason.value if self.end_reason else None,
            "revision": self.revision,
            "digest": self.digest,
            "chain": msgspec.to_builtins(self.chain),
            "body": _base64(self.body),
            "requester": self.requester,
            "agent": self.agent,
            "parent": self.parent,
            "delegation": self.delegation,
            "decision": self.decision,
            "approved": _base64(self.approved) if self.approved is not None else None,
            "open_to": self.open_to,
            "missing": self.missing,
            "refused": self.refused,
            "decisions": self.decisions,
            "ended": self.ended,
            "why_denied": self.why_denied,
            "stands_until": rfc3339(self.stands_until) if self.stands_until else None,
            "refused_grant": self.refused_grant,
            "grant_id": self.grant_id,
            "expires_at": rfc3339(self.expires_at) if self.expires_at else None,
            "unwrap_until": rfc3339(self.unwrap_until) if self.unwrap_until else None,
            "ends_at": rfc3339(self.ends_at) if self.ends_at else None,
            "ttl": self.ttl,
            "reads": self.reads,
            "extension": self.extension,
            "extensions": self.extensions,
            "proof": msgspec.to_builtins(self.proof),
            "receipt": self.receipt,
            "findings": self.findings,
            "error": msgspec.to_builtins(self.error) if self.error else None,
        }

    def as_document(self) -> dict[str, Any]:
        """Return the document as it is stored in Vault."""
        return {**self.as_json(), "proof": packed(self.proof), "receipt": packed(self.receipt)}


class PublishedRefusal(Struct, frozen=True, kw_only=True):
    """A request that a worker refused, which settles it.

    `request` is its nonce.
    """

    task_id: str
    requester: str = ""
    request: str = ""
    error: PublishedError
    written_at: Instant

    @property
    def state(self) -> str:
        return REFUSED

    def as_document(self) -> dict[str, Any]:
        """Return the document as it is stored in Vault."""
        return {
            "task_id": self.task_id,
            "state": REFUSED,
            "requester": self.requester,
            "request": self.request,
            "error": msgspec.to_builtins(self.error),
        }


class IllegibleDocument(Struct, frozen=True, kw_only=True):
    """What no worker can have written, but a thief of a worker's token can.

    `installation` is the one that the document names, if it names any.
    """

    task_id: str
    installation: str
    written_at: Instant

    @property
    def state(self) -> str:
        return ILLEGIBLE


PublishedDocument = PublishedTask | PublishedRefusal | IllegibleDocument


_error = converter(PublishedError)
_refusal = converter(PublishedRefusal)
_task = converter(PublishedTask)
_text = converter(str)


def read_published(task_id: str, document: Mapping[str, Any], written_at: datetime) -> PublishedDocument:
    """Return what lies at `tasks/<task_id>`, decoded and checked."""
    try:
        return _decoded(task_id, document, written_at)
    except (CorruptRecord, msgspec.ValidationError, *_UNPACK_ERRORS):
        installation = document.get("installation")
        named = installation if isinstance(installation, str) else ""
        return IllegibleDocument(task_id=task_id, installation=named, written_at=written_at)


def _decoded(task_id: str, document: Mapping[str, Any], written_at: datetime) -> PublishedTask | PublishedRefusal:
    """Return the document as the published task or refusal that it is.

    Raises CorruptRecord, ValidationError, or one of `_UNPACK_ERRORS` for what no worker wrote.
    """
    if document.get("task_id") != task_id:
        raise CorruptRecord(f"the document at the name of task {task_id} is about another task")
    if document.get("state") == REFUSED:
        return _refusal({**document, "written_at": written_at})
    packed_proof = document.get("proof")
    proof = _unpacked(packed_proof) if isinstance(packed_proof, str) else packed_proof
    whole = {**document, "proof": proof, "receipt": unpacked_receipt(document), "written_at": written_at}
    task = _task(whole)
    for body in filter(None, (task.body, task.approved)):
        _ = Revision.of(body).content
    if task.refused_grant is not None:
        _error(task.refused_grant["error"])
    decision = Decision.of(task.decision).as_json()
    return msgspec.structs.replace(task, decision=decision, extension=_checked_extension(task.extension))


def _checked_extension(extension: PublishedExtension | None) -> PublishedExtension | None:
    """Return the extension with its decision complete.

    Raises CorruptRecord for what no worker wrote.
    """
    if extension is None:
        return None
    _ = Extension.of(extension["content"])
    for one in extension["approved_by"]:
        _text(one.get("entity"))
    if extension["error"] is not None:
        _error(extension["error"])
    if extension["decision"] is not None:
        return {**extension, "decision": Decision.of(extension["decision"]).as_json()}
    if extension["state"] == "pending":
        raise CorruptRecord("nobody decided about the extension that waits for an approval")
    return extension


def packed(part: Mapping[str, Any] | None) -> str | None:
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
