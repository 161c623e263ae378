"""Whether a receipt's approvals, extensions and digests fit each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from jitvault.formats.canonical_json import digest_of
from jitvault.formats.plural import counted
from jitvault.formats.shorten import one_line
from jitvault.verification.receipt import Receipt, StatedExtension


def approval_problems(receipt: Receipt) -> Iterator[str]:
    """Yield what contradicts that the task was permitted and approved."""
    if not receipt.policy.permitted and any(grant.accessor_hmac for grant in receipt.grants):
        yield "policy did not permit the task, and a token was issued for it"
    approvers = set(receipt.approved_by)
    involved = {receipt.requester.entity: "requester", receipt.agent.entity: "agent"}
    if not receipt.policy.obligations.owner_may_approve:
        involved.setdefault(receipt.owner.entity, "owner")
    for entity in sorted(approvers & involved.keys()):
        yield f"entity {one_line(entity)} approved the task and is its {involved[entity]}"
    for named in receipt.approvers:
        if named.entity not in approvers:
            yield f"it names {one_line(named.name)} as approver, whose entity did not approve"
    for entity, count in Counter(named.entity for named in receipt.approvers).items():
        if count > 1:
            yield f"it has {count} names for the approver {one_line(entity)}"
    needed = needed_approvals(receipt)
    was_granted = any(grant.accessor_hmac for grant in receipt.grants)
    if was_granted and not receipt.recovered and len(approvers) < needed:
        who = "1 entity" if len(approvers) == 1 else f"{len(approvers)} entities"
        yield f"policy demands {counted(needed, 'approval')}, and {who} approved"


def needed_approvals(receipt: Receipt) -> int:
    """Return how many approvals policy demands.

    Each approver counts for one group.
    """
    return sum(one.count for one in receipt.policy.obligations.approvals)


def extension_problems(receipt: Receipt) -> Iterator[str]:
    """Yield each extension whose digest is not that of its content.

    The content of an extension names the digest of the revision, so this also ties the two to each other.
    """
    for number, one in enumerate(receipt.extensions, 1):
        if digest_of(_signed_content(receipt, one)) != one.digest:
            yield f"extension {number} has another digest than what it says (who, why, from when, to when)"


def _signed_content(receipt: Receipt, one: StatedExtension) -> dict[str, object]:
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
