"""Whether who ended a task signed the end that its receipt names.

1. Who signed an end signed the one that the receipt names, and who had the task forced closed signed that. An end whose
   signature does not hold any more counted all the same, and is not embedded.
2. A freeze is of a scope that has the task, and is the one by which it ended. One that names the task's agent or owner
   otherwise, since an administrator renamed it, is not embedded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jitvault.documents.receipt import Receipt
from jitvault.documents.signed import EndDocument, FreezeDocument
from jitvault.formats.shorten import one_line
from jitvault.model.scope import Scope
from jitvault.model.states import EndReason
from jitvault.verification.outcome import Problem
from jitvault.verification.papers import Paper, Papers
from jitvault.verification.receipt import PREDICATE

_ENDED = f"{PREDICATE}/ended"
_ENDED_BY = {"completed": "completed", "operator": "operator", "forced": "operator", "intercepted": "intercepted"}


def end_problems(receipt: Receipt, papers: Papers) -> Iterator[Problem]:
    """Yield where who ended the task, or had it forced, signed something else."""
    # 1
    ended, forced, ends = receipt.ended, receipt.proof.forced, papers.ends
    by_them = [one for one in ends if ended is not None and one.said.entity == ended.by]
    # a freeze has an author as well, and is no signed end
    if ended is not None and by_them and ended.reason in _ENDED_BY.values() and supporting_end(receipt, papers) is None:
        why = f"entity {one_line(str(ended.by))} signed another end than the receipt says"
        yield Problem(why, (f"{_ENDED}/note", f"{_ENDED}/reason", f"{by_them[0].place}/payload"))
    if forced is not None and not receipt.recovered and forcing_end(receipt, ends) is None:
        at = f"{PREDICATE}/proof/forced"
        why = f"entity {one_line(forced.by)} is said to have had it forced, and signed no such end"
        yield Problem(why, (f"{at}/by", f"{at}/reason"))


def freeze_problems(receipt: Receipt, freeze: Paper[FreezeDocument] | None) -> Iterator[Problem]:
    """Yield where a freeze does not have the task, or is not the one that ended it."""
    # 2
    if freeze is None:
        return
    said = freeze.said
    ended = receipt.ended
    scope = Scope(said.agent, said.template, said.owner)
    at = f"{freeze.place}/payload"
    if not said.freezes or said.task != scope.key:
        yield Problem("what is signed is no freeze", (at,))
    parts = (
        (scope.agent, [receipt.agent.name, receipt.agent.entity]),
        (scope.owner, [receipt.owner.name, receipt.owner.entity]),
        (scope.template, [one.template for one in receipt.access]),
    )
    for name, names in parts:
        if name and name.casefold() not in map(str.casefold, names):
            yield Problem(f"the freeze is of {one_line(name)!r:.120}, and the task is not", (at,))
    if ended is None or (said.entity, said.reason, EndReason.FROZEN) != (ended.by, ended.note, ended.reason):
        places = (at, f"{_ENDED}/by", f"{_ENDED}/note", f"{_ENDED}/reason")
        yield Problem("what is signed is not the freeze that ended the task", places)


def supporting_end(receipt: Receipt, papers: Papers) -> Paper[EndDocument] | Paper[FreezeDocument] | None:
    """Return the document by which somebody ended the task as the receipt says, if there is one."""
    ended = receipt.ended
    if ended is None or ended.reason == EndReason.FROZEN:
        return papers.freeze
    told = (ended.by, ended.note, ended.reason)
    for one in papers.ends:
        if (one.said.entity, one.said.note, _ENDED_BY.get(one.said.reason, "operator")) == told:
            return one
    return None


def forcing_end(receipt: Receipt, ends: Iterable[Paper[EndDocument]]) -> Paper[EndDocument] | None:
    """Return the document by which an operator had the task forced, if there is one."""
    forced = receipt.proof.forced
    for one in ends:
        told = (one.said.reason, one.said.entity, one.said.note)
        if forced is not None and told == ("forced", forced.by, forced.reason):
            return one
    return None
