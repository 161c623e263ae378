"""Whether who ended a task signed the end that its receipt names.

1. Who signed an end signed the one that the receipt names, and who had the task forced closed signed that. An end whose
   signature does not hold any more counted all the same, and is not embedded.
2. A freeze is of a scope that has the task, and is the one by which it ended. One that names the task's agent or owner
   otherwise, since an administrator renamed it, is not embedded.
"""

from __future__ import annotations

from collections.abc import Iterator

from jitvault.documents.receipt import Receipt
from jitvault.documents.signed import EndDocument, FreezeDocument
from jitvault.formats.shorten import one_line
from jitvault.model.scope import Scope
from jitvault.model.states import EndReason
from jitvault.verification.embedded_documents import EmbeddedDocument, EmbeddedDocuments
from jitvault.verification.outcome import Problem
from jitvault.verification.receipt import PREDICATE

_ENDED = f"{PREDICATE}/ended"
# by the reason in a signed end, the reason that the receipt has for it
_REASONS = {"completed": "completed", "operator": "operator", "forced": "operator", "intercepted": "intercepted"}


def end_problems(receipt: Receipt, embedded: EmbeddedDocuments) -> Iterator[Problem]:
    """Yield where who ended the task, or had it forced, signed something else."""
    # 1
    ended, forced = receipt.ended, receipt.proof.forced
    by_them = [one for one in embedded.ends if ended is not None and one.document.entity == ended.by]
    # a freeze has an author as well, and is no signed end
    if by_them and ended is not None and ended.reason in _REASONS.values() and end_document(receipt, embedded) is None:
        why = f"entity {one_line(str(ended.by))} signed another end than the receipt says"
        yield Problem(why, (f"{_ENDED}/note", f"{_ENDED}/reason", f"{by_them[0].place}/payload"))
    if forced is not None and not receipt.recovered and force_document(receipt, embedded) is None:
        at = f"{PREDICATE}/proof/forced"
        why = f"entity {one_line(forced.by)} is said to have had it forced, and signed no such end"
        yield Problem(why, (f"{at}/by", f"{at}/reason"))


def freeze_problems(receipt: Receipt, freeze: EmbeddedDocument[FreezeDocument] | None) -> Iterator[Problem]:
    """Yield where a freeze does not have the task, or is not the one that ended it."""
    # 2
    if freeze is None:
        return
    signed = freeze.document
    ended = receipt.ended
    scope = Scope(signed.agent, signed.template, signed.owner)
    at = f"{freeze.place}/payload"
    if not signed.freezes or signed.task != scope.key:
        yield Problem("what is signed is no freeze", (at,))
    parts = (
        (scope.agent, [receipt.agent.name, receipt.agent.entity]),
        (scope.owner, [receipt.owner.name, receipt.owner.entity]),
        (scope.template, [one.template for one in receipt.access]),
    )
    for name, names in parts:
        if name and name.casefold() not in map(str.casefold, names):
            yield Problem(f"the freeze is of {one_line(name)!r:.120}, and the task is not", (at,))
    if ended is None or (signed.entity, signed.reason, EndReason.FROZEN) != (ended.by, ended.note, ended.reason):
        places = (at, f"{_ENDED}/by", f"{_ENDED}/note", f"{_ENDED}/reason")
        yield Problem("what is signed is not the freeze that ended the task", places)


def end_document(
    receipt: Receipt, embedded: EmbeddedDocuments
) -> EmbeddedDocument[EndDocument] | EmbeddedDocument[FreezeDocument] | None:
    """Return the document by which somebody ended the task as the receipt says, if there is one."""
    ended = receipt.ended
    if ended is None or ended.reason == EndReason.FROZEN:
        return embedded.freeze
    for one in embedded.ends:
        signed = one.document
        reason = _REASONS.get(signed.reason, "operator")
        if (signed.entity, signed.note, reason) == (ended.by, ended.note, ended.reason):
            return one
    return None


def force_document(receipt: Receipt, embedded: EmbeddedDocuments) -> EmbeddedDocument[EndDocument] | None:
    """Return the document by which an operator had the task forced, if there is one."""
    forced = receipt.proof.forced
    for one in embedded.ends:
        signed = one.document
        if forced and (signed.reason, signed.entity, signed.note) == ("forced", forced.by, forced.reason):
            return one
    return None
