"""Whose tasks a freeze is about, and which freezes hold."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from test_revision import revision

from jitvault.model.scope import FreezeStatement, Scope, as_dated, freezes_in_force

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
CONTENT = structs.replace(
    revision().content, access=[structs.replace(revision().access[0], template=name) for name in ("pg-read", "pki")]
)
AGENT, TEMPLATE = Scope(agent="research-agent"), Scope(template="pg-read")


def word(scope: Scope, at: int, *, freezes: bool = True) -> FreezeStatement:
    return FreezeStatement(scope, freezes, "olga", "why", NOW + timedelta(seconds=at))


@pytest.mark.parametrize(
    ("scope", "covers"),
    [
        (Scope(), True),
        (AGENT, True),
        (Scope(agent="e-agent"), True),
        (Scope(agent="RESEARCH-Agent"), True),
        (Scope(agent="other"), False),
        (Scope(owner="data-owner"), True),
        (Scope(owner="research-agent"), False),
        (TEMPLATE, True),
        (Scope(template="pki"), True),
        (Scope(template="pg"), False),
        (Scope(agent="research-agent", template="pg-write"), False),
    ],
)
def test_what_a_scope_covers(scope: Scope, covers: bool) -> None:
    assert scope.covers(CONTENT) is covers


@pytest.mark.parametrize(
    ("scope", "entity", "covers"),
    [
        (Scope(agent="old-name"), "e-agent", True),
        (Scope(agent="old-name"), "e-owner", False),
        (Scope(owner="old-name"), "e-owner", True),
        (Scope(owner="old-name"), "e-agent", False),
        (Scope(agent="old-name"), "", False),
        (Scope(template="old-name"), "e-agent", False),
    ],
)
def test_a_freeze_is_about_an_entity_whatever_it_is_called_by_now(scope: Scope, entity: str, covers: bool) -> None:
    assert FreezeStatement(scope, True, "olga", "why", NOW, entity).covers(CONTENT) is covers


def test_a_scope_has_a_name_and_a_key_of_its_own() -> None:
    assert [str(Scope()), str(AGENT)] == ["everything", "agent research-agent"]
    assert (Scope().key, Scope().as_json(), AGENT.as_json()) == ("all", {}, {"agent": "research-agent"})
    assert len({s.key for s in (Scope(), AGENT, TEMPLATE, Scope(template="research-agent"))}) == 4


def test_a_freeze_holds_until_it_is_lifted_by_name_or_with_all_others() -> None:
    held = word(AGENT, 1)
    assert freezes_in_force([held]) == [held]
    assert freezes_in_force([held, word(AGENT, 2, freezes=False)]) == []
    assert freezes_in_force([held, word(Scope(), 2, freezes=False)]) == []
    # what was said before it, or about something else, lifts nothing
    assert freezes_in_force([word(AGENT, 0, freezes=False), held]) == [held]
    assert freezes_in_force([held, word(AGENT, 1, freezes=False)]) == [held]
    assert freezes_in_force([held, word(TEMPLATE, 2, freezes=False)]) == [held]
    # a freeze of everything is not lifted by a part of it
    everything = word(Scope(), 1)
    assert freezes_in_force([everything, word(AGENT, 2, freezes=False)]) == [everything]
    assert freezes_in_force([held, word(AGENT, 2, freezes=False), word(AGENT, 3)]) == [word(AGENT, 3)]


WORDS = st.lists(st.builds(word, st.sampled_from([Scope(), AGENT, TEMPLATE]), st.integers(0, 5), freezes=st.booleans()))


@given(WORDS)
def test_whatever_the_order_a_freeze_that_nobody_lifted_later_holds(words: list[FreezeStatement]) -> None:
    found = freezes_in_force(words)
    assert {id(w) for w in found} == {id(w) for w in freezes_in_force(list(reversed(words)))}
    for one in words:
        later = [w for w in words if not w.freezes and w.at > one.at and w.scope in (one.scope, Scope())]
        assert (one in found) == (one.freezes and not later)


@given(at=st.integers(-100, 100), freezes=st.booleans())
def test_what_is_dated_later_than_now_is_older_than_whatever_comes_now(at: int, freezes: bool) -> None:
    said = word(AGENT, at, freezes=freezes)
    dated = as_dated(said, NOW)
    if at <= 5:
        assert dated == said
    elif freezes:
        # a lift that comes now ends it
        assert dated == word(AGENT, 0)
    else:
        # a freeze that comes now is not ended by it
        assert dated is None


@given(st.text(min_size=1))
def test_a_shell_reads_the_options_of_a_scope_as_one_name(name: str) -> None:
    assert shlex.split(Scope(owner=name).options) == ["--owner", name]
    assert Scope().options == "--all"
