from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_revision import NOW, SPEC, TEMPLATE, resolved, revision, set_in

from jitvault.errors import InvalidInput
from jitvault.model.delegation import MARGIN, within
from jitvault.model.grant_terms import grant_terms
from jitvault.model.revision import Resolved
from jitvault.policy.decision import Obligations


def with_ttls(ttl: int, wrap: int) -> Resolved:
    changed = set_in(set_in(TEMPLATE, "spec.ttl", f"{ttl}s"), "spec.wrap_ttl", f"{wrap}s")
    return resolved(set_in(changed, "spec.max_window", "8h"))


def bounds_of(cap: int | None, start: datetime, parent_ends: datetime | None) -> Obligations:
    own = Obligations(max_ttl_s=cap)
    return within(own, start, parent_ends) if parent_ends else own


@st.composite
def lives(draw: st.DrawFn) -> tuple[int, int]:
    """A template's TTL and wrap TTL, in seconds."""
    wrap = draw(st.integers(5, 600))
    return draw(st.integers(wrap + 5, 8 * 3600)), wrap


@given(
    st.integers(1, 8 * 3600),
    st.lists(lives(), min_size=1, max_size=3),
    st.integers(0, 999_999),
    st.booleans(),
    st.data(),
)
def test_no_ttl_exceeds_any_bound(
    window: int, templates: list[tuple[int, int]], micros: int, fixed: bool, data: st.DataObject
) -> None:
    start = NOW + timedelta(microseconds=micros)
    end = {"until": f"{NOW + timedelta(seconds=window):%Y-%m-%dT%H:%M:%SZ}"} if fixed else {"for": f"{window}s"}
    closes = NOW + timedelta(seconds=window) if fixed else start + timedelta(seconds=window)
    asked = data.draw(st.none() | st.integers(1, 8 * 3600), label="asked")
    cap = data.draw(st.none() | st.integers(1, 8 * 3600), label="policy's cap")
    parent = data.draw(st.none() | st.integers(1, 8 * 3600), label="what is left of the parent")
    level = data.draw(st.sampled_from(["low", "medium", "high", "critical"]))
    more = data.draw(st.none() | st.integers(0, 3600), label="extended by")
    until = closes + timedelta(seconds=more) if more is not None else None
    closes = until or closes
    spec = set_in(
        set_in(SPEC, "spec.window", {**end, **({"ttl": f"{asked}s"} if asked else {})}), "spec.criticality", level
    )
    found = revision(spec, access=[with_ttls(*lives) for lives in templates])
    parent_ends = start + timedelta(seconds=parent) if parent else None
    # with a margin: what is above is over by Vault's clock later
    left = max(0, parent - MARGIN // timedelta(seconds=1)) if parent else None
    closes = min([closes, *([start + timedelta(seconds=left)] if left is not None else [])])
    requested = asked or {"low": 900, "medium": 600, "high": 300, "critical": 120}[level]
    bounds = [
        requested,
        (closes - start) // timedelta(seconds=1),
        *(ttl for ttl, _ in templates),
        *([cap] if cap else []),
    ]
    try:
        given_ = grant_terms(found, start, bounds_of(cap, start, parent_ends), until=until)
    except InvalidInput:
        # too little is left to unwrap for 5 s and then work for 5 s
        assert min(bounds) < 10
        return
    assert given_.ttl_s == min(bounds)
    assert given_.requested_ttl_s == requested
    assert all(given_.wrap_ttl_s <= wrap for _, wrap in templates)
    assert 5 <= given_.wrap_ttl_s <= given_.ttl_s - 5
    assert given_.ends_at == closes


@pytest.mark.parametrize(("seconds", "wrap"), [(10, 5), (11, 6), (124, 119), (125, 120), (126, 120), (600, 120)])
def test_the_wrapping_token_leaves_time_to_work(seconds: int, wrap: int) -> None:
    found = grant_terms(revision(set_in(SPEC, "spec.window", {"for": f"{seconds}s"})), NOW)
    assert (found.ttl_s, found.wrap_ttl_s) == (seconds, wrap)


def test_terms_refuse_what_is_too_short_or_over() -> None:
    with pytest.raises(InvalidInput, match=r"task t-1: window: expected at least 10s.*; 9s are left"):
        grant_terms(revision(set_in(SPEC, "spec.window", {"for": "9s"})), NOW)
    over = revision(set_in(SPEC, "spec.window", {"until": "2030-01-31T08:00:00Z"}))
    with pytest.raises(InvalidInput, match="; 0s are left"):
        grant_terms(over, NOW)


@given(st.none() | st.integers(10, 9 * 3600), st.none() | st.integers(10, 9 * 3600), st.integers(10, 8 * 3600))
def test_terms_never_exceed_what_policy_caps(ttl: int | None, longest: int | None, window: int) -> None:
    found = revision(set_in(SPEC, "spec.window", {"for": f"{window}s"}), access=[with_ttls(8 * 3600, 5)])
    free, bound = grant_terms(found, NOW), grant_terms(found, NOW, Obligations(max_ttl_s=ttl, max_window_s=longest))
    assert bound.window_s == min([free.window_s, *filter(None, [longest])])
    assert bound.ttl_s == min([bound.window_s, free.ttl_s, *filter(None, [ttl])])
    assert bound.ends_at == NOW + timedelta(seconds=bound.window_s)
    assert bound.wrap_ttl_s <= bound.ttl_s - 5


def test_a_cap_that_leaves_no_time_to_work_is_refused() -> None:
    with pytest.raises(InvalidInput, match="; 9s are left"):
        grant_terms(revision(SPEC), NOW, Obligations(max_ttl_s=9))
