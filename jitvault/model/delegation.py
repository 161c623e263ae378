"""What a task may hand on to another one: never more than it has.

The rules, with the same numbers where they are checked:
    1. the chain: it is the parent's own and then the parent, by its digest; no task is in it twice, nor above itself
    2. access: each is one of the parent's, the very same template, choices, path, access policy, budget and proof
    3. tools: a subset of the parent's
    4. network: every address of it is one of the parent's
    5. criticality: not lower
    6. window: it opens and closes within what is left of the parent's
    7. TTL: at most what is left of the parent's
    8. together: what a parent's children may hold at one time is at most what the parent may hold

1 to 5 do not depend on the time and hold as long as the task does. How deep it may go is policy's to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

from jitvault.formats.time_window import Window, format_instant
from jitvault.model.revision import Revision
from jitvault.policy.decision import Obligations, highest, strictest
from jitvault.policy.question import Kind

# a token is made a moment after its TTL was reckoned, and Vault counts in whole seconds
MARGIN = timedelta(seconds=2)
_PARTIES = ("requester", "agent", "owner")


def handed_on(parent: Revision) -> list[dict[str, Any]]:
    """The chain of a task that `parent` hands access on to: everybody above it, from the first task on."""
    content = parent.content
    link = {"task": content["task"], "digest": parent.digest, **{part: content[part] for part in _PARTIES}}
    return [*parent.delegation, link]


def above_of(content: Mapping[str, Any]) -> list[str]:
    """The ids of the tasks above one, from the first to its parent, by the content of its revision."""
    return [link["task"] for link in content.get("delegation", [])]


def as_whom(child: Revision) -> Kind | None:
    """As what the requester of `child` hands its parent's access on; None for whoever may not, whatever policy says.

    It is the parent's requester or the parent's agent. Of these the chain's first requester is the only operator:
    everybody else in it is an agent that got its own access from above.
    """
    parent, entity = child.delegation[-1], child.content["requester"]["entity"]
    if entity not in (parent["requester"]["entity"], parent["agent"]["entity"]):
        return None
    return "Operator" if entity == child.delegation[0]["requester"]["entity"] else "Agent"


def widened(child: Revision, parent: Revision) -> list[str]:
    """In what `child` is no part of `parent`, in words, by rules 1 to 5; empty where it is."""
    mine, its = child.spec.spec, parent.spec.spec
    above = [link["task"] for link in child.delegation]
    found = []
    # 1
    if child.content["task"] in above or len(set(above)) != len(above):
        found.append(f"the tasks above it go in a circle: {' → '.join([*above, child.content['task']])}")
    elif child.delegation != handed_on(parent):
        found.append("it names others above it than its parent does")
    # 2
    held = parent.access
    found += [f"access: its parent does not have {_named(entry)}" for entry in child.access if entry not in held]
    # 3
    if more := sorted(set(mine.tools) - set(its.tools)):
        found.append(f"tools: its parent does not have {', '.join(more)}")
    # 4
    if its.network is not None and not _within(child.content["cidrs"], parent.content["cidrs"]):
        found.append(f"network: its parent's token works from {its.network} alone")
    # 5
    if highest([mine.criticality, its.criticality]).value != mine.criticality:
        found.append(f"criticality: expected {its.criticality} or higher, as its parent has")
    return found


def outlives(window: Window, now: datetime, ends_at: datetime) -> str | None:
    """Rule 6: why `window`, granted at `now`, is not within a parent's that ends at `ends_at`; None where it is."""
    opens = max(filter(None, (now, window.not_before)))
    if window.closes_at(opens) <= ends_at and opens < ends_at:
        return None
    # whole seconds, and none too many
    return f"window: its parent ends at {format_instant(ends_at)}, expected a window that is over by then"


def within(obligations: Obligations, now: datetime, ends_at: datetime) -> Obligations:
    """Rule 7: the obligations, with window and TTL capped by what is left of a parent that ends at `ends_at`."""
    left_s = max(0, (ends_at - now - MARGIN) // timedelta(seconds=1))
    return strictest(obligations, Obligations(max_ttl_s=left_s, max_window_s=left_s))


def over_budget(child: Revision, parent: Revision, others: Iterable[Revision]) -> list[str]:
    """Rule 8: of what `child` and the parent's `others`, which hold access now, could take more than the parent may.

    Each counts with its whole lease budget until it is proven dead, since its agent can take as many at any time.
    """
    allowed = _budgets(parent.access)
    together = _budgets(entry for one in (child, *others) for entry in one.access)
    return [
        f"access: other children of its parent hold {path}, and together they could take {together[path]} leases; "
        f"the parent may {allowed[path]}"
        for path in sorted({entry["path"] for entry in child.access})
        if together[path] > allowed[path]
    ]


def _budgets(access: Iterable[Mapping[str, Any]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in access:
        found[entry["path"]] += entry["lease_budget"]
    return found


def _named(entry: Mapping[str, Any]) -> str:
    choices = ", ".join(f"{name}={value}" for name, value in sorted(entry["with"].items()))
    return f"{entry['template']} with {choices}" if choices else str(entry["template"])


def _within(inner: Sequence[str], outer: Sequence[str]) -> bool:
    """Whether every address of `inner` is one of `outer`; no network at all is every address."""
    wide = [ip_network(cidr, strict=False) for cidr in outer]
    return bool(inner) and all(any(_part(ip_network(cidr, strict=False), net) for net in wide) for cidr in inner)


def _part(inner: Any, outer: Any) -> bool:
    return bool(inner.version == outer.version and inner.subnet_of(outer))
