"""No child exceeds its parent in anything, nor anybody above that: on random specs, trees and times."""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_revision import NOW, SPEC, TEMPLATE, resolved, set_in

from jitvault.errors import InvalidInput
from jitvault.formats.time_window import Window
from jitvault.model.delegation import (
    ancestor_ids,
    delegation_chain,
    delegator_kind,
    excess_over_parent,
    outlives,
    over_budget,
    within,
)
from jitvault.model.grant_terms import grant_terms
from jitvault.model.revision import Revision, build
from jitvault.model.revision_content import Party
from jitvault.model.spec import parse_spec
from jitvault.policy.decision import Level, Obligations

LEVELS = [level.value for level in Level]
TOOLS = ["curl", "pandas", "psql"]
CIDRS = {
    None: [],
    "office": ["10.0.0.0/8"],
    "desk": ["10.1.0.0/16"],
    "lab": ["192.168.0.0/24", "fd00::/8"],
    "bench": ["192.168.0.8/30"],
    "both": ["10.1.0.0/16", "192.168.0.0/24"],
}
ADDRESSES = ["10.0.0.1", "10.1.2.3", "192.168.0.9", "192.168.0.200", "fd00::1", "203.0.113.9"]
# the same template by another version allows something else
LARGER = set_in(set_in(TEMPLATE, "spec.lease_budget", 9), "spec.ttl", "20m")
OTHER = set_in(set_in(TEMPLATE, "metadata.name", "pg-more"), "spec.path", "creds/{database}-more")
ACCESS = [(TEMPLATE, "app"), (TEMPLATE, "crm"), (LARGER, "app"), (OTHER, "app")]


@dataclass(frozen=True)
class Shape:
    """Of what a revision is made, as far as delegation looks at it."""

    access: frozenset[int] = frozenset({0})
    tools: frozenset[str] = frozenset({"psql"})
    network: str | None = None
    criticality: str = "low"


shapes = st.builds(
    Shape,
    # a template cannot be there twice with the same choices
    access=st.frozensets(st.integers(0, 3), min_size=1).filter(lambda a: not {0, 2} <= a),
    tools=st.frozensets(st.sampled_from(TOOLS)),
    network=st.sampled_from([*CIDRS]),
    criticality=st.sampled_from(LEVELS),
)


def revision(shape: Shape = Shape(), *, task: str = "top", above: Revision | None = None, **changes: Any) -> Revision:
    document: dict[str, Any] = copy.deepcopy(SPEC)
    document["metadata"]["id"] = task
    body = document["spec"]
    asked = [ACCESS[n] for n in sorted(shape.access)]
    body["access"] = [{"template": t["metadata"]["name"], "with": {"database": name}} for t, name in asked]
    body["tools"] = sorted(shape.tools)
    body["criticality"] = shape.criticality
    body.pop("network")
    if shape.network:
        body["network"] = shape.network
    if above:
        body["parent"] = above.content.task
    body.update(changes.pop("spec", {}))
    arguments: dict[str, Any] = {
        "installation": "i-1",
        "number": 1,
        "spec": parse_spec(json.dumps(document).encode()),
        "requester": Party("e-req", "olga"),
        "agent": Party(f"e-agent-of-{task}", f"agent-of-{task}"),
        "owner": Party("e-owner", "data-owner"),
        "access": [resolved(template, database=name) for template, name in asked],
        "cidrs": CIDRS[shape.network],
        "delegation": delegation_chain(above) if above else (),
    }
    return build(**arguments | changes)


def reach(shape: Shape) -> set[str]:
    nets = [ip_network(cidr) for cidr in CIDRS[shape.network]]
    return {a for a in ADDRESSES if not nets or any(ip_address(a) in net for net in nets)}


def exceeds(child: Shape, parent: Shape) -> bool:
    """The same by another way: sets of what each can do."""
    return (
        not child.access <= parent.access
        or not child.tools <= parent.tools
        or not reach(child) <= reach(parent)
        or LEVELS.index(child.criticality) < LEVELS.index(parent.criticality)
    )


@given(shapes, shapes)
def test_a_child_is_refused_exactly_when_it_exceeds_its_parent(parent: Shape, child: Shape) -> None:
    above = revision(parent)
    assert bool(excess_over_parent(revision(child, task="low", above=above), above)) == exceeds(child, parent)


@pytest.mark.parametrize("inner", [*CIDRS])
@pytest.mark.parametrize("outer", [*CIDRS])
def test_every_address_of_a_childs_network_is_one_of_its_parents(inner: str | None, outer: str | None) -> None:
    child, parent = Shape(network=inner), Shape(network=outer)
    above = revision(parent)
    assert bool(excess_over_parent(revision(child, task="low", above=above), above)) == (
        not reach(child) <= reach(parent)
    )


@st.composite
def narrowed(draw: st.DrawFn) -> list[Shape]:
    """A chain of which each is a part of the one before it."""
    chain = [draw(shapes)]
    for _ in range(draw(st.integers(1, 3))):
        chain.append(draw(parts_of(chain[-1])))
    return chain


def parts_of(last: Shape) -> st.SearchStrategy[Shape]:
    nets = [name for name in CIDRS if reach(Shape(network=name)) <= reach(last)]
    return st.builds(
        Shape,
        access=st.frozensets(st.sampled_from(sorted(last.access)), min_size=1),
        tools=st.frozensets(st.sampled_from(sorted(last.tools))) if last.tools else st.just(frozenset()),
        network=st.sampled_from(nets),
        criticality=st.sampled_from(LEVELS[LEVELS.index(last.criticality) :]),
    )


@given(st.one_of(narrowed(), st.lists(shapes, min_size=2, max_size=4)))
def test_nobody_in_a_tree_exceeds_anybody_above(chain: list[Shape]) -> None:
    granted = [revision(chain[0], task="t0")]
    for n, shape in enumerate(chain[1:], 1):
        asked = revision(shape, task=f"t{n}", above=granted[-1])
        if excess_over_parent(asked, granted[-1]):
            break
        granted.append(asked)
        assert ancestor_ids(asked.content) == [f"t{m}" for m in range(n)]
        assert not any(exceeds(shape, above) for above in chain[:n])


@given(narrowed())
def test_whoever_asks_for_a_part_gets_it(chain: list[Shape]) -> None:
    high = revision(chain[0], task="t0")
    for n, shape in enumerate(chain[1:], 1):
        low = revision(shape, task=f"t{n}", above=high)
        assert excess_over_parent(low, high) == []
        high = low


@given(
    st.lists(st.integers(10, 3600), min_size=1, max_size=4),
    st.integers(0, 1800),
    st.one_of(st.none(), st.integers(1, 3600)),
)
def test_no_effective_ttl_outlives_what_is_above(windows: list[int], wait: int, cap: int | None) -> None:
    """Each is granted `wait` seconds after the one above it, which ends at `end`."""
    at, end = NOW, NOW + timedelta(hours=1)
    for window in windows:
        asked = revision(spec={"window": {"for": f"{window}s"}})
        try:
            granted = grant_terms(asked, at, within(Obligations(max_ttl_s=cap), at, end))
        except InvalidInput:
            return
        assert granted.ends_at < end
        assert at + timedelta(seconds=granted.window_s) < end
        assert cap is None or granted.ttl_s <= cap
        at, end = at + timedelta(seconds=wait), granted.ends_at


@given(
    st.one_of(
        st.builds(lambda s: Window(for_=timedelta(seconds=s)), st.integers(1, 3600)),
        st.builds(lambda s: Window(until=NOW + timedelta(seconds=s)), st.integers(1, 3600)),
    ),
    st.one_of(st.none(), st.integers(-60, 3600)),
    st.integers(-60, 3600),
)
def test_a_window_is_refused_exactly_when_it_is_not_within_the_parents(
    window: Window, opens: int | None, end: int
) -> None:
    window = replace(window, not_before=None if opens is None else NOW + timedelta(seconds=opens))
    starts = max(0, opens or 0)
    length = window.for_.total_seconds() if window.for_ else None
    closes = starts + length if length else (window.until - NOW).total_seconds() if window.until else 0
    refused = outlives(window, NOW, NOW + timedelta(seconds=end)) is not None
    assert refused == (closes > end or starts >= end)


@given(shapes.flatmap(lambda parent: st.tuples(st.just(parent), st.lists(parts_of(parent), min_size=1, max_size=4))))
def test_children_together_never_hold_more_than_their_parent(family: tuple[Shape, list[Shape]]) -> None:
    parent, children = family
    above = revision(parent)
    held: list[Revision] = []
    for n, shape in enumerate(children):
        one = revision(shape, task=f"c{n}", above=above)
        refused = over_budget(one, above, held)
        # by the same template each child may take as many as the parent: one at a time
        taken = {entry.path for other in held for entry in other.access}
        assert bool(refused) == bool(taken & {entry.path for entry in one.access})
        held += [] if refused else [one]
    allowed, together = Counter[str](), Counter[str]()
    for entry in above.access:
        allowed[entry.path] += entry.lease_budget
    for entry in (entry for one in held for entry in one.access):
        together[entry.path] += entry.lease_budget
    assert together <= allowed


def test_nobody_is_above_themselves() -> None:
    top = revision(task="a")
    middle = revision(task="b", above=top)
    again = revision(task="a", above=middle)
    assert excess_over_parent(again, middle) == ["the tasks above it go in a circle: a → b → a"]


def test_a_chain_that_is_not_the_parents_is_refused() -> None:
    top, other = revision(task="a"), revision(Shape(tools=frozenset()), task="a")
    assert excess_over_parent(revision(task="b", above=other), top) == ["it names others above it than its parent does"]
    assert excess_over_parent(revision(task="b"), top) == ["it names others above it than its parent does"]


def test_the_digest_covers_everybody_above() -> None:
    digests = {revision(task="b", above=revision(task="a", **changes)).digest for changes in ({}, {"number": 2})}
    assert len(digests) == 2
    assert b"delegation" not in revision().body


def test_nobody_above_approves() -> None:
    top = revision(task="a", owner=Party("e-owner-of-a", "o"), requester=Party("e-req-of-a", "r"))
    low = revision(task="c", above=revision(task="b", above=top, owner=Party("e-agent-of-c", "both")))
    assert low.involved() == {
        "e-req-of-a": "requester of a",
        "e-owner-of-a": "owner of a",
        "e-agent-of-a": "agent of a",
        "e-agent-of-b": "agent of b",
        "e-agent-of-c": "agent",
        "e-owner": "owner",
        "e-req": "requester",
    }


@pytest.mark.parametrize(
    ("by", "kind"),
    [("e-req", "Operator"), ("e-agent-of-b", "Agent"), ("e-agent-of-a", None), ("e-owner", None), ("e-other", None)],
)
def test_the_parents_requester_and_its_agent_hand_it_on_and_nobody_else(by: str, kind: str | None) -> None:
    middle = revision(task="b", above=revision(task="a"))
    assert delegator_kind(revision(task="c", above=middle, requester=Party(by, by))) == kind


def test_an_agent_that_asked_for_the_parent_is_no_operator() -> None:
    middle = revision(task="b", above=revision(task="a"), requester=Party("e-agent-of-a", "agent-of-a"))
    assert delegator_kind(middle) == "Agent"
    assert delegator_kind(revision(task="c", above=middle, requester=Party("e-agent-of-a", "agent-of-a"))) == "Agent"
