"""Whether a receipt's approvals, extensions and digests fit each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from jitvault.documents.receipt import Receipt, StatedExtension, Statement
from jitvault.formats.canonical_json import digest_of
from jitvault.formats.plural import counted
from jitvault.formats.shorten import one_line
from jitvault.model.revision_content import Link
from jitvault.verification.outcome import Problem
from jitvault.verification.receipt import PREDICATE, accessors_of

_APPROVED = f"{PREDICATE}/approved_by"
_COVERED = ("by", "reason", "since", "seconds", "until", "window_s")


def approval_problems(receipt: Receipt) -> Iterator[Problem]:
    """Yield what contradicts that the task was permitted and approved."""
    was_granted = bool(accessors_of(receipt))
    if not receipt.policy.permitted and was_granted:
        why = "policy did not permit the task, and a token was issued for it"
        yield Problem(why, (f"{PREDICATE}/policy/permitted",))
    approvers = set(receipt.approved_by)
    parts = _parts(receipt)
    if receipt.policy.obligations.owner_may_approve:
        parts = {entity: part for entity, part in parts.items() if part != "owner"}
    for entity in sorted(approvers & parts.keys()):
        why = f"entity {one_line(entity)} approved the task and is its {one_line(parts[entity])}"
        yield Problem(why, (f"{_APPROVED}/{receipt.approved_by.index(entity)}",))
    for n, named in enumerate(receipt.approvers):
        if named.entity not in approvers:
            why = f"it names {one_line(named.name)} as approver, whose entity did not approve"
            yield Problem(why, (f"{PREDICATE}/approvers/{n}/entity", _APPROVED))
    for entity, count in Counter(named.entity for named in receipt.approvers).items():
        if count > 1:
            yield Problem(f"it has {count} names for the approver {one_line(entity)}", (f"{PREDICATE}/approvers",))
    needed = needed_approvals(receipt)
    if not may_be_lost(receipt) and was_granted and len(approvers) < needed:
        why = f"policy demands {counted(needed, 'approval')}, and the receipt names {len(approvers)}"
        yield Problem(why, (_APPROVED, f"{PREDICATE}/policy/obligations/approvals"))


def may_be_lost(receipt: Receipt) -> bool:
    """Return whether a rebuilt record may have lost approvals."""
    return bool(receipt.recovered) and len(set(receipt.approved_by)) < needed_approvals(receipt)


def _parts(receipt: Receipt) -> dict[str, str]:
    """Return who has a part in the task, or in one above it.

    Policy may let an owner approve, who has no other part in any of them.
    """
    held: list[tuple[Link | Receipt, str]] = [
        *((link, f" of {link.task}") for link in receipt.delegation),
        (receipt, ""),
    ]
    owners = {one.owner.entity: f"owner{of}" for one, of in held}
    others = {
        party.entity: part + of
        for one, of in held
        for part, party in (("agent", one.agent), ("requester", one.requester))
    }
    return owners | others


def needed_approvals(receipt: Receipt) -> int:
    """Return how many approvals policy demands.

    Each approver counts for one group.
    """
    return sum(one.count for one in receipt.policy.obligations.approvals)


def extension_problems(statement: Statement) -> Iterator[Problem]:
    """Yield extensions with a wrong digest or a party's approval.

    The content of an extension names the digest of the revision, so this also ties the two to each other. Policy may
    let the owner approve, which the receipt does not say of an extension.
    """
    receipt = statement.predicate
    parts = {entity: part for entity, part in _parts(receipt).items() if part != "owner"}
    for number, one in enumerate(receipt.extensions, 1):
        at = f"{PREDICATE}/extensions/{number - 1}"
        for entity in sorted({approver.entity for approver in one.approved_by}):
            if entity == one.by.entity:
                why = f"entity {one_line(entity)} asked for extension {number} and approved it"
                yield Problem(why, (f"{at}/approved_by",))
            elif entity in parts:
                part = one_line(parts[entity])
                why = f"entity {one_line(entity)} approved extension {number} and is the task's {part}"
                yield Problem(why, (f"{at}/approved_by",))
        if digest_of(_signed_content(statement, one)) != one.digest:
            why = f"extension {number} has another digest than what it says (who, why, from when, to when)"
            yield Problem(why, tuple(f"{at}/{name}" for name in ("digest", *_COVERED)))


def _signed_content(statement: Statement, one: StatedExtension) -> dict[str, object]:
    receipt = statement.predicate
    return {
        "apiVersion": "jitvault.dev/v1",
        "kind": "Extension",
        "installation": receipt.installation,
        "task": receipt.task,
        "revision": receipt.revision,
        "revision_digest": statement.digest,
        "by": msgspec.to_builtins(one.by),
        "reason": one.reason,
        "since": one.since,
        "seconds": one.seconds,
        "until": one.until,
        "window_s": one.window_s,
    }
