"""What was read in a wrapping is looked for at the target, by the second in which it was made and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import permutations
from typing import Any

import pytest
from credential_story import START, STRANGER, TOKEN, WORKER, Story
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.trail import AuditTrail, Canary
from jitvault.engines.interface import ProbeResult
from jitvault.engines.postgresql.login_names import made_at, prefix_for
from jitvault.errors import NotConfirmed
from jitvault.lifecycle.confirmation.wrapped_reads import (
    UNNAMED,
    WrappedRead,
    judge_by_target,
    made_by,
    open_read,
    target_check,
    unexplained,
    unproven_read,
    wrapped_reads,
    written_since,
)
from jitvault.model.evidence import MOST_SIGNED, Lack, Missing, SignedAnswer, SignedForm

TOKENS, CREDS = frozenset({TOKEN}), "database/creds/app-ro"
LEASED = frozenset({CREDS})
SETTLE = timedelta(seconds=90)
WRAPPED = {"wrapped": True}


def asked_for(story: Story, request: str = "read", **how: Any) -> Story:
    return story.used(**{"path": CREDS, "request_id": request, "closing": False, "detail": WRAPPED, **how})


def answered(story: Story, request: str = "read", alias: str = "w", **how: Any) -> Story:
    return story.used(**{"path": CREDS, "request_id": request, "alias": alias, "detail": WRAPPED, **how})


def opened(story: Story, lease: str = "x", token: str = "w") -> Story:
    return story.add(Kind.LEASE_ISSUED, lease, actor=STRANGER, token=token, path="sys/wrapping/unwrap")


def reads(story: Story, tokens: frozenset[str] = TOKENS) -> tuple[WrappedRead, ...]:
    return wrapped_reads(tokens, story.trail(), leased=LEASED, settle=SETTLE)


def read() -> WrappedRead:
    return WrappedRead("f" * 64, CREDS, START, START + timedelta(seconds=2), "")


# -- which reads ------------------------------------------------------------------------------------------


def test_a_read_is_made_between_its_request_and_its_answer() -> None:
    story = answered(asked_for(Story()).wait(3))
    first, last = story.lines
    assert reads(story) == (WrappedRead(first.line, CREDS, first.at, last.at, ""),)


def test_without_one_of_the_two_lines_it_may_have_taken_as_long_as_a_request_can() -> None:
    (unanswered,), (alone,) = reads(asked_for(Story())), reads(answered(Story()))
    assert (unanswered.ended - unanswered.begun, alone.ended - alone.begun) == (SETTLE, SETTLE)


def test_a_wrapping_of_less_than_a_second_shows_in_the_answer() -> None:
    assert len(reads(answered(asked_for(Story(), detail={})))) == 1


@pytest.mark.parametrize(
    "story",
    [
        lambda: asked_for(Story(), detail={}),
        lambda: asked_for(Story(), actor=STRANGER),
        lambda: asked_for(Story(), path="auth/token/lookup-self"),
        lambda: answered(asked_for(Story()), failed=True, alias=""),
        lambda: asked_for(Story()).add(Kind.DENIED, TOKEN, actor=TOKEN, path=CREDS, request_id="read", failed=True),
        lambda: asked_for(Story()).add(Kind.LEASE_ISSUED, "x", actor=TOKEN, path=CREDS, request_id="read"),
    ],
    ids=["open", "somebody's", "elsewhere", "failed", "denied", "shown"],
)
def test_what_hides_no_credential_is_none(story: Any) -> None:
    assert reads(story()) == ()


def test_its_lease_is_the_one_that_its_own_wrapping_shows_however_often_it_was_moved() -> None:
    story = opened(answered(asked_for(Story())), "theirs", "w-other")
    assert [one.lease_id for one in reads(story)] == [""]
    for old, new in (("w", "w2"), ("w2", "w3"), ("w3", "w2")):
        story.add(Kind.REWRAPPED, "", actor=STRANGER, token=old, alias=new)
    assert [one.lease_id for one in reads(opened(story, "own", "w3"))] == ["own"]
    # opened as a JWT by the body it names another token, and a line that names none opens nothing
    assert [one.lease_id for one in reads(opened(answered(asked_for(Story())), token="jwt"))] == [""]
    assert [one.lease_id for one in reads(opened(asked_for(Story()), token=""))] == [""]


# -- leases of nobody -------------------------------------------------------------------------------------


def test_a_read_explains_one_lease_that_was_made_meanwhile() -> None:
    def at(seconds: float) -> datetime:
        return START + timedelta(seconds=seconds)

    one, two = read(), replace(read(), begun=at(1), ended=at(5))
    assert unexplained({"a": at(0), "b": at(2)}, [two, one]) == []
    assert unexplained({"a": at(-0.001), "b": at(5.001)}, [one, two]) == ["a", "b"]
    assert unexplained({"a": at(1), "b": at(1), "c": at(1)}, [one, two]) == ["c"]
    # the one that is over first is used up first: the other one explains what came later
    assert unexplained({"a": at(1.5), "b": at(4)}, [one, two]) == []


@given(st.lists(st.integers(0, 6), max_size=4), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=4))
def test_as_many_leases_are_explained_as_can_be(made: list[int], reads: list[tuple[int, int]]) -> None:
    def at(seconds: int) -> datetime:
        return START + timedelta(seconds=seconds)

    leases = {str(n): at(second) for n, second in enumerate(made)}
    spans = [replace(read(), begun=at(begun), ended=at(begun + long)) for begun, long in reads]
    # by trying every order of leases on every read
    best = max(
        sum(a is not None and a.begun <= leases[i] <= a.ended for i, a in zip(leases, order, strict=False))
        for order in permutations([*spans, *[None] * len(leases)], len(leases))
    )
    assert len(leases) - len(unexplained(leases, spans)) == best


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=6))
def test_a_time_is_of_a_read_between_its_request_and_its_answer(reads: list[tuple[int, int]]) -> None:
    spans = [
        replace(read(), begun=START + timedelta(seconds=begun), ended=START + timedelta(seconds=begun + long))
        for begun, long in reads
    ]
    is_within = made_by(spans)
    for half in range(-1, 30):
        at = START + timedelta(seconds=half / 2)
        assert is_within(at) is any(one.begun <= at <= one.ended for one in spans)


# -- what the target says ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "may"), [(-3, False), (-1.5, True), (0, True), (1, True), (2, True), (3, True), (3.5, False)]
)
def test_a_credential_of_another_second_is_not_the_reads(seconds: float, may: bool) -> None:
    """By the second in which it was made; a second before and after, should the clock have been set meanwhile."""
    assert read().may_have_made(START + timedelta(seconds=seconds)) is may


GONE = ProbeResult(refused=True, open_sessions=0, evidence="it does not exist")


def test_one_that_is_still_there_is_no_proof() -> None:
    at = START + timedelta(seconds=1)
    there, none = ProbeResult(refused=False, open_sessions=2, evidence="it exists"), {UNNAMED: GONE}
    said = judge_by_target("postgresql", read(), {"v-token-x": at}, {**none, "v-token-x": there})
    assert said == open_read(read(), "it exists", name="v-token-x")
    unknown = {"v-token-a": at, "v-token-x": at}
    let_in_by_none = {**none, **dict.fromkeys(unknown, GONE)}
    assert judge_by_target("postgresql", read(), unknown, let_in_by_none).ok
    for answers in ({**none, "v-token-a": GONE}, {**let_in_by_none, "v-token-x": there}):
        assert not judge_by_target("postgresql", read(), unknown, answers).ok
    assert judge_by_target("postgresql", read(), {"v-token-x": START + timedelta(minutes=1)}, none).ok


def test_a_session_of_nobody_who_is_known_may_be_the_reads() -> None:
    assert judge_by_target("postgresql", read(), {}, {UNNAMED: GONE}).ok
    left = replace(GONE, open_sessions=1, evidence="1 session does not end")
    assert judge_by_target("postgresql", read(), {}, {UNNAMED: left}) == open_read(read(), "1 session does not end")
    assert not judge_by_target("postgresql", read(), {}, {}).ok


@pytest.mark.parametrize(("size", "is_kept"), [(MOST_SIGNED, True), (MOST_SIGNED + 1, False)])
def test_of_what_an_issuer_signed_too_many_bytes_are_named_by_their_digest_alone(size: int, is_kept: bool) -> None:
    der = bytes(size)
    said = target_check("pki", "01", replace(GONE, signed=(SignedForm.OCSP, der))).evidence
    assert isinstance(said, SignedAnswer) and said.sha256 == sha256(der).hexdigest()
    assert said.der == (der if is_kept else None)


def test_each_read_has_to_be_answered_for() -> None:
    one, other, dead = read(), replace(read(), line="e" * 64), target_check("postgresql", CREDS, GONE)
    assert unproven_read((one, other), {one.line: dead, other.line: dead}) is None
    not_asked = Missing(lack=Lack.READ_NOT_ASKED, read=other.shown)
    assert unproven_read((one, other), {one.line: dead}) == not_asked
    there = open_read(one, "there")
    assert unproven_read((one,), {one.line: there}) == there.evidence
    assert unproven_read((replace(one, lease_id="x"),), {}) is None


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("database/config/app", True),
        ("database/roles/app-ro", True),
        ("database/roles/app-rw", False),
        ("other/config/app", False),
    ],
)
def test_a_write_to_the_mount_may_have_changed_how_credentials_are_named(path: str, counts: bool) -> None:
    newest = Canary(Place("audit", 1, 10**9), START + timedelta(hours=1))
    written = Story().created().hazard(path)
    found = written_since(TOKENS, written.trail(), mount="database", path=CREDS, newest=newest)
    assert (found is not None) is counts
    before = Story().hazard(path).created()
    assert written_since(TOKENS, before.trail(), mount="database", path=CREDS, newest=newest) is None


# -- the engine's names -----------------------------------------------------------------------------------

CONNECTION = {"plugin_name": "postgresql-database-plugin", "connection_details": {"username": "vault_manager"}}
NAME = "v-token-app-read-Wd3dxOUxG22PGJii7Kzq-1795788730"


def test_a_name_says_by_which_role_and_when_a_login_was_made() -> None:
    prefix = prefix_for(CONNECTION, "app-readonly")
    assert prefix == "v-token-app-read-"
    assert made_at([NAME], prefix) == {NAME: datetime.fromisoformat("2026-11-27T14:12:10+00:00")}
    assert prefix_for(CONNECTION, "ro") == "v-token-ro-"
    # the role `app` begins like `app-readonly`
    assert made_at([NAME], prefix_for(CONNECTION, "app")) == {}


@pytest.mark.parametrize(
    "connection",
    [
        {**CONNECTION, "connection_details": {"username_template": "x-{{random 8}}"}},
        {**CONNECTION, "username_template": "x"},
        {**CONNECTION, "plugin_name": "mysql-database-plugin"},
        {},
    ],
)
def test_who_names_logins_in_another_way_cannot_be_searched(connection: dict[str, Any]) -> None:
    with pytest.raises(NotConfirmed, match="cannot be found"):
        prefix_for(connection, "app-readonly")


@pytest.mark.parametrize(
    "name",
    [
        "v-token-app-read-only",
        NAME[:-11],
        NAME + "9",
        NAME.replace("Wd3d", "Wd-d"),
        NAME[:-1] + "x",
    ],
)
def test_a_name_that_is_not_as_vault_makes_them_is_not_passed_over(name: str) -> None:
    with pytest.raises(NotConfirmed, match="not named as Vault names"):
        made_at([NAME, name], "v-token-app-read-")


# -- laws -------------------------------------------------------------------------------------------------

HASHES = st.sampled_from(["w", "w2", "jwt", ""])
LINES = st.lists(
    st.builds(
        lambda kind, n, request, closing, actor, token, alias, failed, detail: replace(
            Story().add(kind, "lease" if kind is Kind.LEASE_ISSUED else "").lines[0],
            line=f"{n:064x}",
            place=Place("audit", 1, n),
            at=START + timedelta(seconds=n),
            path=CREDS,
            request_id=request,
            closing=closing,
            actor=actor,
            token=token,
            alias=alias,
            failed=failed,
            detail=detail,
        ),
        st.sampled_from([Kind.USED, Kind.LEASE_ISSUED, Kind.REWRAPPED, Kind.DENIED]),
        st.integers(1, 99),
        st.sampled_from(["r1", "r2", ""]),
        st.booleans(),
        st.sampled_from([TOKEN, STRANGER, WORKER]),
        HASHES,
        HASHES,
        st.booleans(),
        st.sampled_from([{}, WRAPPED]),
    ),
    unique_by=lambda o: o.line,
    max_size=10,
).map(lambda lines: sorted(lines, key=lambda o: o.place.offset))


def renamed(o: Observation) -> Observation:
    """The same line of a device with another salt."""
    other = {name: f"other {getattr(o, name)}" if getattr(o, name) else "" for name in ("actor", "token", "alias")}
    return replace(o, **other)


@given(LINES)
def test_names_mean_nothing_but_that_they_are_the_same(lines: list[Observation]) -> None:
    found = wrapped_reads(TOKENS, AuditTrail(tuple(lines), (), frozenset()), leased=LEASED, settle=SETTLE)
    others = AuditTrail(tuple(map(renamed, lines)), (), frozenset())
    assert wrapped_reads(frozenset({f"other {TOKEN}"}), others, leased=LEASED, settle=SETTLE) == found


@given(LINES, LINES)
def test_more_lines_of_others_never_take_a_read_away(lines: list[Observation], more: list[Observation]) -> None:
    theirs = [
        replace(o, line=f"other {o.line}", actor=STRANGER, request_id=f"other {o.request_id}", token="", alias="")
        for o in more
    ]
    found = wrapped_reads(TOKENS, AuditTrail(tuple(lines), (), frozenset()), leased=LEASED, settle=SETTLE)
    again = wrapped_reads(TOKENS, AuditTrail((*theirs, *lines), (), frozenset()), leased=LEASED, settle=SETTLE)
    assert again == found
