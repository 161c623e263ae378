"""A revision in words: what it grants, and how it differs from another.

Approvers read both before they sign the digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from jitvault.formats.time_window import format_duration
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Access
from jitvault.model.ttl import least
from jitvault.model.verifiers import describe_acceptance, unproven_sessions
from jitvault.policy.decision import NO_OBLIGATIONS, Obligations, ProofLevel, needed_proof_level


def describe(revision: Revision, obligations: Obligations = NO_OBLIGATIONS) -> list[str]:
    """Describe what the signed bytes grant, a sentence a line, to approvers.

    `obligations` are policy's.
    """
    content = revision.content
    body = revision.spec.spec
    window = revision.window
    ttl = least(revision.requested_ttl_s, *(entry.ttl_s for entry in revision.access))
    lines = [
        f"{content.requester.name} asks for access for the agent {content.agent.name}; "
        f"{content.owner.name} owns the data.",
        f"Intent: {body.intent}",
        f"Risk {content.risk}: criticality {body.criticality}, "
        f"tier {', '.join(sorted({e.tier for e in revision.access}))}.",
    ]
    if revision.delegation:
        handed = " → ".join(f"{link.task} (agent {link.agent.name})" for link in revision.delegation)
        lines.append(f"Handed on by: {handed}; it ends with each of them.")
    for entry in revision.access:
        lines.append(f"Access: {entry.chosen}: {entry.description}")
        lines.append(f"  by a credential from {entry.path} (tier {entry.tier}), {_budget(entry.lease_budget)}")
        if entry.connection is not None:
            lines.append(f"  used at {entry.connection.in_words()}")
        if entry.capability == "update":
            sent = ", ".join(f"{key}={value}" for key, value in sorted(entry.data.items()))
            lines.append(f"  asked for with exactly {sent or 'nothing'}")
        if (after_s := entry.accepted_after_end_s) is not None:
            lines.append(f"  {describe_acceptance(after_s, entry.ttl_s)}")
    lines += [f"Reason for {asked.template}: {asked.reason}" for asked in body.access if asked.reason]
    if window.for_ is not None:
        length = f"for {format_duration(window.for_)} from the moment it is granted"
    else:
        length = f"until {window.until:%Y-%m-%d %H:%M:%S} UTC"
    if window.not_before is not None:
        length += f", not before {window.not_before:%Y-%m-%d %H:%M:%S} UTC"
    lived = format_duration(timedelta(seconds=ttl))
    lines.append(f"Window: {length}; a credential lives at most {lived} without a renewal.")
    if body.window.heartbeat is not None:
        silent = format_duration(body.window.heartbeat)
        lines.append(f"Heartbeat: it ends when its token does nothing for {silent}.")
    where = f"network {body.network} ({', '.join(content.cidrs)})" if body.network else "any network"
    lines.append(f"From: {where}.")
    lines.append(f"Delivered to: the {body.deliver}, in a wrapping that works once.")
    if body.tools:
        lines.append(f"Tools: {', '.join(body.tools)}.")
    if any(is_asked(entry, obligations) for entry in revision.access):
        lines.append("Its end is proven by the target.")
    lines += [f"Its end is {reason}" for reason in describe_unasked(revision.access, obligations)]
    lines += [f"Not proven for {limit}." for limit in unproven_sessions(revision.access)]
    return lines


def is_asked(entry: Access, obligations: Obligations) -> bool:
    """Return whether the target is asked about the end of an access.

    `obligations` are policy's, which can have it asked whatever the template says.
    """
    return needed_proof_level(entry.confirm, obligations.confirm) == ProofLevel.TARGET


def unasked(access: Iterable[Access], obligations: Obligations) -> list[str]:
    """Return the templates whose end the target does not prove.

    Each is followed by the reason that the template gives.
    """
    alone = (entry for entry in access if not is_asked(entry, obligations))
    return sorted({f"{entry.template}: {entry.confirm_why or 'no reason given'}" for entry in alone})


def describe_unasked(access: Iterable[Access], obligations: Obligations) -> list[str]:
    """Describe the ends that will rest on Vault's word, one for each template."""
    return [f"revoked at Vault; the target is not asked about {reason}" for reason in unasked(access, obligations)]


def _budget(leases: int) -> str:
    return "one lease at most" if leases == 1 else f"at most {leases} leases"


def difference_of_specs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what changed between two canonical specs.

    Each change is a line `path: old → new`.
    """
    return _changes(dict(old), dict(new))


def difference(old: Revision, new: Revision) -> list[str]:
    """Return what changed between two revisions, one `path: old → new` a line."""
    return _changes(msgspec.to_builtins(old.content), msgspec.to_builtins(new.content))


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    before = _flat(old)
    after = _flat(new)
    lines = []
    for path in sorted(before.keys() | after.keys()):
        if path == "revision" or before.get(path) == after.get(path):
            continue
        lines.append(f"{path}: {_shown(before.get(path))} → {_shown(after.get(path))}")
    return lines


def _flat(value: object, path: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        items = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(f"{path}[{n}]", item) for n, item in enumerate(value)]
    else:
        return {path: value}
    found: dict[str, object] = {}
    for key, item in items:
        found |= _flat(item, key)
    return found


def _shown(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.60}"
