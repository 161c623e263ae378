"""A line is about the task token that Vault says, in whatever order the lines come and whatever a client writes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.trail import derived_tokens, linked, owning_token, with_subjects

START = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
A, B, WORKER, WRAPPING, HUMAN = "accessor-a", "accessor-b", "accessor-worker", "accessor-wrapping", "accessor-human"
TOKENS = {A: "task-a", B: "task-b"}


def line(kind: Kind, n: int = 1, **how: Any) -> Observation:
    found = Observation(
        line=f"{n:064x}",
        place=Place("audit", 1, 100 * n),
        at=START + timedelta(seconds=n),
        closing=True,
        kind=kind,
        request_id=f"request-{n}",
        path="database/creds/app-ro",
        subject="",
        actor="",
        op="",
        remote="10.0.0.7",
        failed=False,
        error="",
        token="",
        alias="",
        detail={},
    )
    return replace(found, **how)


def created(subject: str = A, alias: str = "w1") -> Observation:
    return line(Kind.TOKEN_CREATED, subject=subject, actor=WORKER, alias=alias)


def rewrapped(old: str, new: str, subject: str = "") -> Observation:
    return line(Kind.REWRAPPED, subject=subject, actor=WRAPPING, token=old, alias=new)


def read_in_wrapping(actor: str = A, alias: str = "w2") -> Observation:
    return line(Kind.USED, subject=actor, actor=actor, alias=alias)


# -- what stands for what ---------------------------------------------------------------------------------


def test_a_wrapping_the_token_and_the_wrapping_of_what_it_read_stand_for_the_token() -> None:
    unwrapped = line(Kind.UNWRAPPED, subject=A, actor=WRAPPING, token="w1", alias="token-a")
    assert derived_tokens([created(), unwrapped, read_in_wrapping()]) == {"w1": A, "token-a": A, "w2": A}


def test_lines_that_name_no_new_token_give_nothing() -> None:
    lease = line(Kind.LEASE_ISSUED, subject="database/creds/app-ro/x", actor=HUMAN, token="w2")
    assert derived_tokens([created(alias=""), line(Kind.USED, subject=A, actor=A), lease]) == {}
    assert derived_tokens([created(subject="")]) == {}
    # only a rewrap hands on what the old token stood for
    odd = line(Kind.UNWRAPPED, subject="", actor=WRAPPING, token="w1", alias="w9")
    assert derived_tokens([created(), odd]) == {"w1": A}


def test_a_rewrap_that_shows_what_is_wrapped_needs_no_earlier_line() -> None:
    assert derived_tokens([rewrapped("lost", "w9", subject=A)]) == {"w9": A}


def test_a_rewrap_that_does_not_stands_for_what_the_old_one_did() -> None:
    chain = [rewrapped(f"w{n}", f"w{n + 1}") for n in range(2, 50)]
    found = derived_tokens([*reversed(chain), read_in_wrapping(alias="w2")])
    assert found == {f"w{n}": A for n in range(2, 51)}


def test_the_rewrap_of_nothing_of_ours_stands_for_nothing() -> None:
    assert derived_tokens([created(), rewrapped("theirs", "w9"), rewrapped("", "w8")]) == {"w1": A}


@pytest.mark.parametrize("known", [True, False])
def test_a_circle_ends(known: bool) -> None:
    circle = [rewrapped("w1", "w2"), rewrapped("w2", "w3"), rewrapped("w3", "w1"), rewrapped("w4", "w4")]
    assert derived_tokens([*circle, *([created()] if known else [])]) == ({"w1": A, "w2": A, "w3": A} if known else {})


def test_what_a_line_says_goes_before_what_is_inherited() -> None:
    assert derived_tokens([created(), rewrapped("w1", "w2"), rewrapped("w2", "w3"), created(B, "w2")]) == {
        "w1": A,
        "w2": B,
        "w3": B,
    }


TOKEN = st.sampled_from(["", "w1", "w2", "w3", "w4", "w5"])
NAMES = st.sampled_from(["", A, B])
LINES = st.lists(
    st.builds(
        lambda kind, subject, actor, token, alias, n: line(
            kind, n, subject=subject, actor=actor, token=token, alias=alias
        ),
        st.sampled_from(Kind),
        NAMES,
        NAMES,
        TOKEN,
        TOKEN,
        st.integers(1, 99),
    )
    | st.builds(rewrapped, TOKEN, TOKEN, NAMES),
    max_size=14,
)


@given(LINES, st.data())
def test_neither_order_nor_repetition_changes_what_stands_for_what(lines: list[Observation], data: Any) -> None:
    again = data.draw(st.lists(st.sampled_from(lines), max_size=5)) if lines else []
    assert derived_tokens(data.draw(st.permutations([*lines, *again]))) == derived_tokens(lines)


@given(LINES)
def test_what_is_wrapped_anew_stands_for_what_a_line_or_the_old_one_says(lines: list[Observation]) -> None:
    found = derived_tokens(lines)
    said = {(o.alias, o.stands_for) for o in lines}
    moved = {(o.alias, found.get(o.token)) for o in lines if o.kind is Kind.REWRAPPED}
    for alias, accessor in found.items():
        assert alias
        assert accessor
        assert (alias, accessor) in said | moved
    for o in lines:
        if o.alias and (o.stands_for or (o.kind is Kind.REWRAPPED and o.token in found)):
            assert o.alias in found


@given(LINES, st.text(max_size=20), st.dictionaries(st.text(max_size=9), st.sampled_from([A, B, "task-a"]), max_size=3))
def test_what_a_client_chooses_never_matters(lines: list[Observation], op: str, detail: dict[str, str]) -> None:
    forged = [replace(o, op=op, detail={**detail, "task": "task-a", "accessor": A}, error=A, path=A) for o in lines]
    known = derived_tokens(lines)
    assert derived_tokens(forged) == known
    one, other = linked(lines, TOKENS, known), linked(forged, TOKENS, known)
    assert [(task, o.line) for task, o in one] == [(task, o.line) for task, o in other]


# -- whose a line is --------------------------------------------------------------------------------------


def tasks_of(o: Observation, known: dict[str, str] | None = None) -> list[str]:
    return [task for task, _ in linked([o], TOKENS, known or {})]


@pytest.mark.parametrize(
    "o",
    [
        line(Kind.USED, subject=A, actor=A),
        line(Kind.DENIED, subject=A, actor=A),
        line(Kind.LEASE_ISSUED, subject="database/creds/app-ro/x", actor=A),
        line(Kind.HAZARD, actor=A),
        line(Kind.LEASE_REVOKED, subject="database/creds/app-ro/x", actor=A),
        line(Kind.RENEWED, subject="hmac-of-a-lease", actor=A),
        line(Kind.TOKEN_LOOKUP, subject="hmac-of-anything", actor=A),
        line(Kind.TOKEN_CREATED, subject=A, actor=WORKER, alias="w1"),
        line(Kind.UNWRAPPED, subject=A, actor=WRAPPING, token="w1", alias="token-a"),
        line(Kind.TOKEN_REVOKED, subject=A, actor=WORKER),
        line(Kind.TOKEN_LOOKUP, subject=A, actor=WORKER),
        line(Kind.UNWRAP_REFUSED, token="w1"),
        line(Kind.UNWRAP_REFUSED, token="w1", actor=HUMAN),
        line(Kind.REWRAPPED, token="w1", actor=HUMAN, alias="w7"),
        line(Kind.CUBBYHOLE_READ, token="w1", actor=WRAPPING),
        line(Kind.LEASE_ISSUED, token="w1", actor=HUMAN, subject="database/creds/app-ro/x"),
        line(Kind.REFUSED, token="w1"),
    ],
)
def test_a_line_is_about_who_acted_who_is_named_or_whose_wrapping_it_is(o: Observation) -> None:
    assert tasks_of(o, {"w1": A}) == ["task-a"]


@pytest.mark.parametrize(
    "o",
    [
        line(Kind.USED, subject=HUMAN, actor=HUMAN),
        line(Kind.REFUSED, token="theirs"),
        line(Kind.REFUSED),
        line(Kind.OWN, actor=WORKER, op=A),
        # whoever may hash a text, look up a lease or write a paper can make its subject an accessor
        line(Kind.CANARY, subject=A, actor=HUMAN),
        line(Kind.LEASE_LOOKUP, subject=A, actor=HUMAN),
        line(Kind.LEASE_REVOKED, subject=A, actor=HUMAN),
        line(Kind.WRITTEN, subject=A, actor=HUMAN),
    ],
)
def test_a_line_about_nothing_of_ours_is_left_out(o: Observation) -> None:
    assert tasks_of(o, {"w1": A}) == []


def test_a_token_that_is_not_looked_for_is_left_out() -> None:
    assert list(linked([line(Kind.REFUSED, token="w1")], {"": "nobody", B: "task-b"}, {"w1": A})) == []
    assert list(linked([line(Kind.REFUSED)], {"": "nobody"}, {})) == []


def test_theft_by_another_task_shows_in_both_with_the_owner_first() -> None:
    stolen = line(Kind.UNWRAPPED, subject=A, actor=B, token="w1", alias="token-a")
    assert tasks_of(stolen) == ["task-a", "task-b"]
    refused = line(Kind.UNWRAP_REFUSED, actor=B, token="w1")
    assert tasks_of(refused, {"w1": A}) == ["task-a", "task-b"]


def test_a_line_about_two_tokens_of_one_task_comes_once() -> None:
    o = line(Kind.UNWRAPPED, subject=A, actor=B, token="w1", alias="token-a")
    assert [task for task, _ in linked([o], {A: "task", B: "task"}, {})] == ["task"]


def test_a_lease_has_one_owner_whoever_unwraps_it() -> None:
    lease = line(Kind.LEASE_ISSUED, subject="database/creds/app-ro/x", actor=B, token="w2")
    assert tasks_of(lease, {"w2": A}) == ["task-a"]
    # also where the owner is not looked for: it is not the other's
    assert list(linked([lease], {B: "task-b"}, {"w2": A})) == []
    # nor where it is not known yet: a lease that was entered for somebody stays there
    assert tasks_of(lease) == []


def test_the_owner_is_what_vault_shows_before_what_is_inferred() -> None:
    o = line(Kind.UNWRAPPED, subject=A, actor=WRAPPING, token="w1")
    assert owning_token(o, {"w1": B}) == A
    assert owning_token(replace(o, subject=""), {"w1": B}) == B
    assert owning_token(replace(o, subject=""), {}) == WRAPPING


@given(LINES)
def test_every_linked_line_names_one_of_the_tokens(lines: list[Observation]) -> None:
    known = derived_tokens(lines)
    for task, o in linked(lines, TOKENS, known):
        assert task in {TOKENS.get(name) for name in (o.actor, o.subject, known.get(o.token))}


# -- a revocation that names its token in the body --------------------------------------------------------


def test_who_revokes_by_the_token_is_about_that_token_and_who_revokes_its_wrapping_about_nothing() -> None:
    lines = [
        created(alias="w1"),
        line(Kind.UNWRAPPED, 2, subject=A, token="w1", alias="token-a"),
        read_in_wrapping(alias="w2"),
        *(line(Kind.TOKEN_REVOKED, 3 + n, actor=HUMAN, token=token) for n, token in enumerate(("w1", "w2", "other"))),
        line(Kind.TOKEN_REVOKED, 6, actor=HUMAN, token="token-a"),
        line(Kind.REFUSED, 7, token="token-a"),
    ]
    told = with_subjects(lines)
    assert [o.subject for o in told if o.kind is Kind.TOKEN_REVOKED] == ["", "", "", A]
    assert [o for o in told if o.line != lines[-2].line] == [o for o in lines if o is not lines[-2]]
