"""A task's published document in Vault, with packed proof and receipt."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jitvault.errors import InvalidInput
from jitvault.model.revision import Revision
from jitvault.model.states import EndReason, State

ILLEGIBLE = "illegible"
"""The state that is shown for a document that no worker can have written."""
MOST_UNPACKED = 16 * 1024 * 1024
"""The most bytes that are unpacked. Some ten thousand leases with their checks take less, while a few hundred kilobytes
written by a thief can unpack to gigabytes.
"""
_UNPACK_ERRORS = (ValueError, RecursionError, zlib.error)


def packed(part: Mapping[str, Any] | None) -> str | None:
    """Pack a part into one string.

    OpenBao refuses a request that holds 1,000 strings, and 22 leases with their checks do.
    """
    if part is None:
        return None
    return base64.b64encode(zlib.compress(json.dumps(dict(part)).encode())).decode()


def unpacked(task_id: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a published document with its packed parts unpacked.

    A document that no worker can have written gets the state `ILLEGIBLE`: whoever stole a worker's token can write
    anything there, and must not stop a command by it.
    """
    found = document.get("proof")
    try:
        proof = _unpacked(found) if isinstance(found, str) else found
    except _UNPACK_ERRORS:
        return _illegible(task_id)
    whole = {**document, "proof": proof, "receipt": unpacked_receipt(document)}
    return whole if whole.get("task_id") == task_id and _is_legible(whole) else _illegible(task_id)


def _illegible(task_id: str) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "state": ILLEGIBLE,
        "end_reason": None,
        # this names an event that no ledger holds
        "chain": {"seq": 0, "head": ""},
        "ends_at": None,
        "proof": None,
        "receipt": None,
        "findings": [],
        "error": None,
    }


def _is_legible(document: Mapping[str, Any]) -> bool:
    """Return whether every field that a command decides by is there.

    Each has to be of its type, too.
    """
    error = document.get("error")
    chain = document.get("chain")
    is_error = isinstance(error, dict) and isinstance(error.get("exit_code"), int) and {"message", "hint"} <= {*error}
    if document.get("state") == "refused":
        return is_error
    proof = document["proof"]
    return (
        isinstance(document.get("state"), str)
        and (error is None or is_error)
        and isinstance(chain, dict)
        and isinstance(chain.get("seq"), int)
        and isinstance(chain.get("head"), str)
        and isinstance(document.get("body"), str)
        and isinstance(document.get("findings"), list)
        and (proof is None or (isinstance(proof, dict) and isinstance(proof.get("confirmed"), bool)))
    )


def unpacked_receipt(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
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


_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class PublishedTask:
    """The worker's last published document of a task, and Vault's time of it.

    `seq` and `head` name the last event of the task's chain.
    """

    task_id: str
    state: State
    revision: int
    body: bytes
    requester: str
    agent: str
    parent: str | None
    seq: int
    head: str
    end_reason: EndReason | None
    grant_id: str | None
    ends_at: datetime | None
    decision: Mapping[str, Any]
    ttl: Mapping[str, Any]
    receipt: Mapping[str, Any] | None
    written_at: datetime

    @property
    def digest(self) -> str:
        return Revision.of(self.body).digest

    @property
    def chain(self) -> dict[str, Any]:
        """The chain's last event and state, as a `recovered` event names them."""
        return {"seq": self.seq, "head": self.head, "state": self.state.value}


def published_task_of(
    task_id: str, document: Mapping[str, Any], installation: str, written_at: datetime
) -> PublishedTask:
    """Return a published document as a value.

    Raises InvalidInput for a document that this installation's worker did not write.
    """
    if document.get("installation") != installation:
        raise InvalidInput("it belongs to another installation")
    try:
        body = base64.b64decode(document["body"], validate=True)
        content = Revision.of(body).content
        chain = document["chain"]
        found = PublishedTask(
            task_id=task_id,
            state=State(document["state"]),
            revision=int(document["revision"]),
            body=body,
            requester=str(content["requester"]["entity"]),
            agent=str(content["agent"]["entity"]),
            parent=content["spec"]["spec"].get("parent"),
            seq=int(chain["seq"]),
            head=str(chain["head"]),
            end_reason=EndReason(document["end_reason"]) if document.get("end_reason") else None,
            grant_id=_id(document.get("grant_id")),
            ends_at=datetime.fromisoformat(document["ends_at"]) if document.get("ends_at") else None,
            decision=dict(document["decision"]),
            ttl=dict(document.get("ttl") or {}),
            receipt=unpacked_receipt(document),
            written_at=written_at,
        )
        # the fields that callers read of the revision have to be there
        complete = Revision.of(body).spec.id == task_id and all(entry["path"] for entry in Revision.of(body).access)
        own = (content["installation"], content["task"], content["revision"]) == (installation, task_id, found.revision)
    except (KeyError, TypeError, ValueError, AttributeError, InvalidInput) as error:
        raise InvalidInput(f"it is no document of the worker's ({type(error).__name__})") from None
    if not (complete and own) or document.get("digest") != found.digest or found.revision < 1:
        raise InvalidInput("it is no document of the worker's (it contradicts itself)")
    return found


def _id(value: object) -> str | None:
    return value if isinstance(value, str) and _ID.fullmatch(value) else None
