"""What a task may hand on to another task: never more than it has.

The rules, with the same numbers where they are checked:
    1. the chain: it is the parent's chain and then the parent, by its digest; no task is in it twice or is its own
       ancestor
    2. access: each entry is one of the parent's: same template, choices, path, access policy, budget and proof
    3. tools: a subset of the parent's
    4. network: every address of it is one of the parent's
    5. criticality: not lower than the parent's
    6. window: it opens and closes within what is left of the parent's window
    7. TTL: at most what is left of the parent's window
    8. siblings: what all children of a parent may hold at one time is at most what the parent may hold

Rules 1 to 5 do not depend on the time and hold for the whole life of the task. Policy decides how deep a chain may
be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

from jitvault.formats.time_window import Window, format_instant
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Access, Link, RevisionContent
from jitvault.policy.decision import Obligations, highest, strictest
from jitvault.policy.question import Kind

# A token is created a moment after its TTL was calculated, and Vault counts in whole seconds.
MARGIN = timedelta(seconds=2)


def delegation_chain(parent: Revision) -> list[Link]:
    """Return the delegation chain of a child of `parent`.

    The chain has every ancestor, from the first task on.
    """
    above = parent.content
    link = Link(task=above.task, digest=parent.digest, requester=above.requester, agent=above.agent, owner=above.owner)
    return [*parent.delegation, link]


def ancestor_ids(content: RevisionContent) -> list[str]:
    """Return the ids of a task's ancestors, from the first to the parent."""
    return [link.task for link in content.delegation]


def delegator_kind(child: Revision) -> Kind | None:
    """Return the role in which a requester delegates the parent's access.

    Only the parent's requester or agent may do so; for any other entity the result is None, whatever policy says.
    Of the two, only the requester of the chain's first task is an operator: every other party in the chain is an
    agent that got its own access by delegation.
    """
    parent = child.delegation[-1]
    entity = child.content.requester.entity
    if entity not in (parent.requester.entity, parent.agent.entity):
        return None
    return "Operator" if entity == child.delegation[0].requester.entity else "Agent"


def excess_over_parent(child: Revision, parent: Revision) -> list[str]:
    """Return how `child` exceeds `parent` by rules 1 to 5.

    The findings are in words; the list is empty if the child is within its parent.
    """
    mine = child.spec.spec
    its = parent.spec.spec
    above = ancestor_ids(child.content)
    found = []
    # 1
    if child.content.task in above or len(set(above)) != len(above):
        found.append(f"the tasks above it go in a circle: {' → '.join([*above, child.content.task])}")
    elif child.delegation != delegation_chain(parent):
        found.append("it names others above it than its parent does")
    # 2
    held = parent.access
    found += [f"access: its parent does not have {entry.chosen}" for entry in child.access if entry not in held]
    # 3
    if more := sorted(set(mine.tools) - set(its.tools)):
        found.append(f"tools: its parent does not have {', '.join(more)}")
    # 4
    if its.network is not None and not _within(child.content.cidrs, parent.content.cidrs):
        found.append(f"network: its parent's token works from {its.network} alone")
    # 5
    if highest([mine.criticality, its.criticality]).value != mine.criticality:
        found.append(f"criticality: expected {its.criticality} or higher, as its parent has")
    return found


def outlives(window: Window, now: datetime, ends_at: datetime) -> str | None:
    """Return why `window` does not fit into the parent's, or None (rule 6).

    The window is granted at `now`; the parent ends at `ends_at`.
    """
    opens = max(filter(None, (now, window.not_before)))
    if window.closes_at(opens) <= ends_at and opens < ends_at:
        return None
    # format_instant drops fractions: the end is never shown too late
    return f"window: its parent ends at {format_instant(ends_at)}, expected a window that is over by then"


def within(obligations: Obligations, now: datetime, ends_at: datetime) -> Obligations:
    """Cap window and TTL by what is left of the parent's (rule 7).

    The parent ends at `ends_at`.
    """
    left_s = max(0, (ends_at - now - MARGIN) // timedelta(seconds=1))
    return strictest(obligations, Obligations(max_ttl_s=left_s, max_window_s=left_s))


def over_budget(child: Revision, parent: Revision, others: Iterable[Revision]) -> list[str]:
    """Return what siblings could hold beyond the parent's budget (rule 8).

    `others` are the parent's other children that hold access now. Each counts with its whole lease budget until it
    is proven dead, since its agent can fetch that many leases at any time.
    """
    allowed = _budgets(parent.access)
    together = _budgets(entry for task in (child, *others) for entry in task.access)
    return [
        f"access: other children of its parent hold {path}, and together they could take {together[path]} leases; "
        f"the parent may {allowed[path]}"
        for path in sorted({entry.path for entry in child.access})
        if together[path] > allowed[path]
    ]


def _budgets(access: Iterable[Access]) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in access:
        found[entry.path] += entry.lease_budget
    return found


def _within(inner: Sequence[str], outer: Sequence[str]) -> bool:
    """Return whether every address of `inner` is in `outer`.

    No network at all means every address.
    """
    wide = [ip_network(cidr, strict=False) for cidr in outer]
    return bool(inner) and all(any(_is_subnet(ip_network(cidr, strict=False), net) for net in wide) for cidr in inner)


def _is_subnet(inner: Any, outer: Any) -> bool:
    return bool(inner.version == outer.version and inner.subnet_of(outer))
