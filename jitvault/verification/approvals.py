"""Whether a receipt's approvals, extensions and digests fit each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from jitvault.documents.published_parts import GrantedExtension
from jitvault.documents.receipt import Link, Receipt
from jitvault.formats.canonical_json import digest_of
from jitvault.formats.plural import counted
from jitvault.formats.shorten import one_line


def approval_problems(receipt: Receipt) -> Iterator[str]:
    """Yield what contradicts that the task was permitted and approved."""
    if not receipt.policy.permitted and was_granted(receipt):
        yield "policy did not permit the task, and a token was issued for it"
    approvers = set(receipt.approved_by)
    parts = _parts(receipt)
    if receipt.policy.obligations.owner_may_approve:
        parts = {entity: part for entity, part in parts.items() if part != "owner"}
    for entity in sorted(approvers & parts.keys()):
        yield f"entity {one_line(entity)} approved the task and is its {one_line(parts[entity])}"
    for named in receipt.approvers:
        if named.entity not in approvers:
            yield f"it names {one_line(named.name)} as approver, whose entity did not approve"
    for entity, count in Counter(named.entity for named in receipt.approvers).items():
        if count > 1:
            yield f"it has {count} names for the approver {one_line(entity)}"
    needed = needed_approvals(receipt)
    if not may_be_lost(receipt) and was_granted(receipt) and len(approvers) < needed:
        who = "1 entity" if len(approvers) == 1 else f"{len(approvers)} entities"
        yield f"policy demands {counted(needed, 'approval')}, and {who} approved"


def was_granted(receipt: Receipt) -> bool:
    """Return whether the task got a token."""
    return any(grant.accessor_hmac for grant in receipt.grants)


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


def extension_problems(receipt: Receipt) -> Iterator[str]:
    """Yield extensions with a wrong digest or a party's approval.

    The content of an extension names the digest of the revision, so this also ties the two to each other. Policy may
    let the owner approve, which the receipt does not say of an extension.
    """
    parts = {entity: part for entity, part in _parts(receipt).items() if part != "owner"}
    for number, one in enumerate(receipt.extensions, 1):
        for entity in sorted({approver.entity for approver in one.approved_by}):
            if entity == one.by.entity:
                yield f"entity {one_line(entity)} asked for extension {number} and approved it"
            elif entity in parts:
                part = one_line(parts[entity])
                yield f"entity {one_line(entity)} approved extension {number} and is the task's {part}"
        if digest_of(_signed_content(receipt, one)) != one.digest:
            yield f"extension {number} has another digest than what it says (who, why, from when, to when)"


def _signed_content(receipt: Receipt, one: GrantedExtension) -> dict[str, object]:
    return {
        "apiVersion": "jitvault.dev/v1",
        "kind": "Extension",
        "installation": receipt.installation,
        "task": receipt.task,
        "revision": receipt.revision,
        "revision_digest": receipt.digest,
        "by": msgspec.to_builtins(one.by),
        "reason": one.reason,
        "since": one.since,
        "seconds": one.seconds,
        "until": one.until,
        "window_s": one.window_s,
    }
