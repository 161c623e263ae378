"""Check 7: a task is quiet when nothing of its tokens is open, and a listing settles what lines alone cannot say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from credential_story import ALIAS, LIST_OP, START, STRANGER, TOKEN, WORKER, Story, good_token, others, probed
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.trail import AuditTrail, Canary
from jitvault.lifecycle.confirmation.quiet_rules import (
    OpenQuestions,
    is_quiet,
    listing_covers_all,
    open_questions,
    settles_at,
)
from jitvault.model.evidence import Lack, Missing, Quiet
from jitvault.model.proof_check import Check

TOKENS = frozenset({TOKEN})
CREDS, READ = "database/creds/app-ro", "hmac-wrapping"
LEASED = frozenset({CREDS, "database/creds/other"})
LISTINGS = frozenset({LIST_OP})
NONE = OpenQuestions()
EMPTY = AuditTrail((), (), frozenset())
# how long the server lets a request take; longer than any story here unless a test says else
SETTLE = timedelta(hours=1)


def newest(story: Story, after: float = 2) -> Canary:
    """A canary at the end of the story's present stretch, `after` seconds behind its last line."""
    last = max((line.at for line in story.lines), default=START)
    return Canary(Place(story.source, story.epoch, 10**9), last + timedelta(seconds=after))


def doubted(
    story: Story, *, after: float = 2, settle: timedelta = SETTLE, tokens: frozenset[str] = TOKENS
) -> OpenQuestions:
    return open_questions(tokens, story.trail(), leased=LEASED, settle=settle, newest=newest(story, after))


def settled(story: Story, ops: frozenset[str] = LISTINGS) -> bool:
    return listing_covers_all(TOKENS, story.trail(), ops, at=newest(story).place)


def judge(trail: AuditTrail, canary: Canary, *, tokens: frozenset[str] = TOKENS, settle: timedelta = SETTLE) -> Check:
    """Check 7 as a whole, with every lease proven dead."""
    return is_quiet(
        tokens,
        trail,
        leases_dead=True,
        now_canary=canary.at,
        open_questions=open_questions(tokens, trail, leased=LEASED, settle=settle, newest=canary),
        settled=listing_covers_all(tokens, trail, LISTINGS, at=canary.place),
    )


def quiet(story: Story, *, after: float = 2, tokens: frozenset[str] = TOKENS, settle: timedelta = SETTLE) -> Check:
    return judge(story.trail(), newest(story, after), tokens=tokens, settle=settle)


def whole() -> Story:
    story = good_token().used(request_id="a", closing=False)
    return story.used(request_id="a").token_revoked()


# -- a second of silence ----------------------------------------------------------------------------------


def test_a_task_whose_token_says_nothing_more_is_quiet() -> None:
    check = quiet(whole())
    assert check.ok
    assert check == Check(7, ok=True, evidence=Quiet(2000))


@pytest.mark.parametrize(("after", "ok"), [(0, False), (0.5, False), (0.999999, False), (1, True), (1.5, True)])
def test_a_second_has_to_pass_by_vaults_clock(after: float, ok: bool) -> None:
    assert quiet(whole(), after=after).ok is ok


def asked(trail: AuditTrail = EMPTY, tokens: frozenset[str] = TOKENS, **how: Any) -> Check:
    """Check 7 where everything else speaks for it."""
    good = {"leases_dead": True, "now_canary": START + timedelta(hours=1), "open_questions": NONE, "settled": True}
    return is_quiet(tokens, trail, **{**good, **how})


def test_quiet_needs_a_canary() -> None:
    assert asked(whole().trail()).ok
    assert not asked(whole().trail(), now_canary=None).ok


def test_quiet_needs_every_lease_dead() -> None:
    assert not asked(whole().trail(), leases_dead=False).ok


def test_empty_evidence_is_not_quiet() -> None:
    assert not asked().ok
    assert not asked(Story().canary().add(Kind.USED, STRANGER, actor=STRANGER).canary().trail()).ok


def test_a_late_act_of_the_token_starts_the_second_anew() -> None:
    story = whole().wait(5).used()
    assert not quiet(story, after=0.5).ok
    assert quiet(story, after=1).ok


def test_another_tokens_request_is_no_matter() -> None:
    story = whole().add(Kind.USED, STRANGER, actor=STRANGER, closing=False, request_id="theirs")
    assert quiet(story).ok


def test_an_unused_token_that_expired_is_quiet() -> None:
    assert quiet(Story().canary().created()).ok


def test_a_token_revoked_by_its_lease_path_is_quiet_only_a_second_later() -> None:
    story = Story().canary().created().wait(30).revoked(subject=ALIAS)
    assert not quiet(story, after=0.5).ok
    assert quiet(story, after=1).ok


def test_a_task_without_any_token_is_quiet_once_a_canary_says_so() -> None:
    assert quiet(Story(), tokens=frozenset()).ok
    assert not asked(tokens=frozenset(), leases_dead=False).ok
    assert not asked(tokens=frozenset(), now_canary=None).ok


# -- requests without an answer ---------------------------------------------------------------------------

ACTS = [Kind.USED, Kind.LEASE_ISSUED, Kind.DENIED, Kind.LEASE_REVOKED]


@pytest.mark.parametrize("kind", ACTS)
def test_a_request_without_its_answer_is_not_quiet(kind: Kind) -> None:
    # a read in flight while its token is revoked can still get a lease
    pending = whole().add(kind, "x", actor=TOKEN, closing=False, request_id="in-flight")
    check = quiet(pending, after=1000)
    assert not check.ok
    assert check.evidence == Missing(lack=Lack.PENDING, count=1, about="in-flight")
    answered = pending.add(kind, "x", actor=TOKEN, request_id="in-flight")
    assert quiet(answered).ok


@pytest.mark.parametrize("kind", ACTS)
def test_a_request_is_pending_until_its_answer_comes_or_cannot_come_any_more(kind: Kind) -> None:
    story = whole().add(kind, "x", actor=TOKEN, closing=False, request_id="in-flight")
    settle = timedelta(seconds=90)
    assert doubted(story, after=90, settle=settle) == replace(NONE, pending=("in-flight",))
    late = doubted(story, after=90.000001, settle=settle)
    assert late == replace(NONE, unanswered=late.unanswered)
    assert late.unanswered == Missing(lack=Lack.UNANSWERED, count=1)
    assert late.why_list == late.unanswered
    # an answer that comes after all says what it was
    assert doubted(story.wait(100).add(kind, "x", actor=TOKEN, request_id="in-flight"), settle=settle) == NONE


def test_each_request_waits_for_itself() -> None:
    story = whole()
    for name in ("old-2", "old-1"):
        story.used(closing=False, request_id=name)
    story.wait(60)
    for name in ("new-2", "new-1"):
        story.used(closing=False, request_id=name)
    found = doubted(story, after=45, settle=timedelta(seconds=90))
    assert found.pending == ("new-1", "new-2")
    assert found.unanswered == Missing(lack=Lack.UNANSWERED, count=2)


@pytest.mark.parametrize(
    "how",
    [{"actor": STRANGER}, {"actor": ""}, {"actor": WORKER}, {"kind": Kind.TOKEN_REVOKED}],
    ids=str,
)
def test_what_waits_for_no_answer(how: dict[str, Any]) -> None:
    # the end of the token is check 2's
    story = whole().add(how.pop("kind", Kind.USED), TOKEN, closing=False, **{"actor": TOKEN, **how})
    assert doubted(story, after=7200) == NONE


# -- gaps -------------------------------------------------------------------------------------------------


def test_a_task_in_one_stretch_leaves_nothing_open() -> None:
    assert doubted(whole()) == NONE
    assert NONE.why_list is None


GAPPED: list[tuple[str, Callable[[], Story]]] = [
    ("an act", lambda: Story().created().gap().used()),
    ("another act", lambda: Story().created().used().gap().add(Kind.LEASE_ISSUED, "x", actor=TOKEN)),
    ("its revocation", lambda: Story().created().gap().token_revoked()),
    ("its revocation by path", lambda: Story().created().gap().revoked(subject=ALIAS)),
    ("a request line", lambda: Story().created().gap().used(closing=False)),
    ("in another source", lambda: Story().created().elsewhere("node-2").used()),
    ("only the newest canary", lambda: whole().gap()),
    ("only the newest canary, in another source", lambda: whole().elsewhere("node-2")),
    ("back in the first source", lambda: Story().created().elsewhere("node-2").used().elsewhere("audit")),
]


@pytest.mark.parametrize("story", [case[1] for case in GAPPED], ids=[case[0] for case in GAPPED])
def test_whatever_of_a_task_stands_in_another_stretch_leaves_a_gap(story: Callable[[], Story]) -> None:
    found = doubted(story())
    assert found == replace(NONE, gap=found.gap, pending=found.pending)
    assert found.gap == found.why_list == Missing(lack=Lack.GAP)


def test_what_is_not_the_tasks_leaves_no_gap() -> None:
    story = Story(epoch=1).add(Kind.USED, STRANGER, actor=STRANGER).created(subject=STRANGER)
    story.token_revoked(subject=STRANGER).hazard("sys/leases/tidy").issued(actor=STRANGER).gap()
    assert doubted(story) == NONE
    assert doubted(story.created().token_revoked()) == NONE
    # nor where the task has no line yet, wherever the canary stands
    assert doubted(Story().gap().elsewhere("node-2")) == NONE


def test_a_lease_that_was_shown_elsewhere_leaves_a_gap_as_well() -> None:
    # its revocation stands in another stretch than its issue, so that check 5 asks for a listing
    story = whole().used(path=CREDS, alias=READ).elsewhere("node-2")
    story.add(Kind.LEASE_ISSUED, "x", actor="", token=READ).elsewhere("audit")
    assert doubted(story).gap


# -- leases that no line shows ----------------------------------------------------------------------------


def read_in_a_wrapping(**how: Any) -> Story:
    return whole().used(**{"path": CREDS, "alias": READ, **how})


def test_a_lease_that_was_read_in_a_wrapping_is_hidden_until_that_is_opened() -> None:
    found = doubted(read_in_a_wrapping())
    assert found == replace(NONE, hidden=found.hidden, wrapped=found.wrapped)
    assert found.hidden == Missing(lack=Lack.HIDDEN_LEASE, about=CREDS)
    assert found.why_list == found.hidden
    opened = doubted(read_in_a_wrapping().add(Kind.LEASE_ISSUED, "x", actor=STRANGER, token=READ))
    assert opened == replace(NONE, wrapped=opened.wrapped)
    assert [read.lease_id for read in (*found.wrapped, *opened.wrapped)] == ["", "x"]


@pytest.mark.parametrize(
    "how",
    [
        {"token": "hmac-another-wrapping"},
        {"token": ""},
        {"kind": Kind.UNWRAPPED},
        {"kind": Kind.CUBBYHOLE_READ},
        {"kind": Kind.UNWRAP_REFUSED},
        {"kind": Kind.REWRAPPED},
    ],
    ids=str,
)
def test_it_stays_hidden_whatever_else_happens_to_a_wrapping(how: dict[str, Any]) -> None:
    how = {"kind": Kind.LEASE_ISSUED, "token": READ, "actor": STRANGER, **how}
    assert doubted(read_in_a_wrapping().add(how.pop("kind"), "x", **how)).hidden


def test_each_wrapping_hides_a_lease_of_its_own() -> None:
    story = read_in_a_wrapping().used(path=CREDS, alias="hmac-wrapping-2")
    story.add(Kind.LEASE_ISSUED, "x", actor="", token=READ)
    assert doubted(story).hidden
    found = doubted(story.add(Kind.LEASE_ISSUED, "y", actor="", token="hmac-wrapping-2"))
    assert (found.why_list, [read.lease_id for read in found.wrapped]) == (None, ["x", "y"])


def test_a_read_that_shows_neither_lease_nor_wrapping_hides_one_as_well() -> None:
    story = read_in_a_wrapping(alias="")
    assert doubted(story).hidden
    # a lease that some other line shows is not that one
    assert doubted(story.add(Kind.LEASE_ISSUED, "x", actor=TOKEN)).hidden


def test_a_credential_without_a_lease_is_never_quiet_whatever_is_listed() -> None:
    """A PKI role that makes no leases: there is nothing to revoke, and nothing is listed."""
    found = doubted(read_in_a_wrapping(alias=""))
    assert found.unleased is not None and found.unleased.about == CREDS
    assert doubted(read_in_a_wrapping()).unleased is None
    listed = read_in_a_wrapping(alias="").listed().canary()
    assert settled(listed)
    check = quiet(listed)
    assert (check.ok, check.evidence) == (False, found.unleased)


@pytest.mark.parametrize(
    "how",
    [
        {"failed": True, "error": "permission denied"},
        {"actor": STRANGER},
    ],
    ids=str,
)
def test_what_makes_no_lease_of_the_task_hides_none(how: dict[str, Any]) -> None:
    assert doubted(read_in_a_wrapping(**how)) == NONE


def test_a_lease_that_its_line_shows_is_not_hidden() -> None:
    assert doubted(whole().add(Kind.LEASE_ISSUED, "x", actor=TOKEN, path=CREDS)) == NONE
    assert doubted(whole().add(Kind.DENIED, TOKEN, actor=TOKEN, path=CREDS, failed=True)) == NONE


def test_of_several_doubts_each_is_told() -> None:
    story = read_in_a_wrapping().used(closing=False, request_id="old").wait(100).gap()
    story.used(closing=False, request_id="new")
    found = doubted(story, settle=timedelta(seconds=90))
    assert found.gap
    assert found.hidden
    assert found.unanswered
    assert found.pending == ("new",)


# -- what a listing settles -------------------------------------------------------------------------------


def test_a_listing_after_everything_that_the_tokens_did_settles() -> None:
    assert settled(whole().listed().canary())
    assert not settled(whole().canary())


AFTERWARDS: list[tuple[str, Callable[[Story], Story]]] = [
    ("an act", Story.used),
    ("a request", lambda s: s.used(closing=False)),
    ("a lease", lambda s: s.add(Kind.LEASE_ISSUED, "x", actor=TOKEN)),
    ("a refusal", lambda s: s.add(Kind.DENIED, TOKEN, actor=TOKEN, failed=True)),
    ("the end of the token", Story.token_revoked),
    ("its end, by itself", lambda s: s.token_revoked(actor=TOKEN)),
    ("its end by its path", lambda s: s.revoked(subject=ALIAS)),
    ("another token of the task", Story.created),
]


@pytest.mark.parametrize("act", [case[1] for case in AFTERWARDS], ids=[case[0] for case in AFTERWARDS])
def test_what_was_listed_before_an_act_does_not_know_what_it_made(act: Callable[[Story], Story]) -> None:
    story = act(whole().listed().canary()).canary()
    assert not settled(story)
    # the next listing does
    assert settled(story.listed().canary())
    # and where several were made the last one counts
    assert not settled(act(story))


def test_what_others_do_after_a_listing_does_not_unsettle() -> None:
    story = whole().listed().add(Kind.USED, STRANGER, actor=STRANGER).created(subject=STRANGER)
    story.token_revoked(subject=STRANGER).issued(actor=STRANGER).hazard("sys/leases/tidy").canary()
    assert settled(story)


NO_LISTING: list[tuple[str, Callable[[], Story]]] = [
    ("by somebody else", lambda: whole().listed(actor=STRANGER).canary()),
    ("by the task's token", lambda: whole().listed(actor=TOKEN).canary()),
    ("another operation", lambda: whole().listed(op="op-list-2").canary()),
    ("no operation", lambda: whole().listed(op="").canary()),
    ("only its request line", lambda: whole().listed(closing=False).canary()),
    ("it failed", lambda: whole().listed(failed=True).canary()),
    ("no canary after it", lambda: whole().canary().listed()),
    ("in an earlier stretch", lambda: whole().listed().canary().gap().canary()),
    ("in another source", lambda: whole().elsewhere("node-2").listed().canary().elsewhere("audit").canary()),
]


@pytest.mark.parametrize("story", [case[1] for case in NO_LISTING], ids=[case[0] for case in NO_LISTING])
def test_what_does_not_settle(story: Callable[[], Story]) -> None:
    assert not settled(story())


def test_no_operation_settles_nothing() -> None:
    assert not settled(whole().listed(op="").canary(), frozenset())


def test_across_stretches_a_listing_follows_by_vaults_time() -> None:
    assert settled(whole().gap().listed().canary())
    assert settled(whole().restart().listed().canary())
    late = whole().gap().listed().canary().elsewhere("node-2").used().elsewhere("audit").canary()
    assert not settled(late)


# -- quiet where something is left open -------------------------------------------------------------------

A_GAP = Missing(lack=Lack.GAP)
HIDDEN = Missing(lack=Lack.HIDDEN_LEASE, about=CREDS)
NO_ANSWER = Missing(lack=Lack.UNANSWERED, count=1)
OPEN = [
    OpenQuestions(gap=A_GAP),
    OpenQuestions(hidden=HIDDEN),
    OpenQuestions(unanswered=NO_ANSWER),
    OpenQuestions(gap=A_GAP, hidden=HIDDEN, unanswered=NO_ANSWER),
]


@pytest.mark.parametrize("open_questions", OPEN, ids=lambda d: d.why_list.lack if d.why_list else "nothing")
def test_a_doubt_keeps_a_task_from_being_quiet_until_a_listing_settles_it(open_questions: OpenQuestions) -> None:
    trail = whole().trail()
    unsettled = asked(trail, open_questions=open_questions, settled=False)
    assert (unsettled.ok, unsettled.evidence) == (False, open_questions.why_list)
    check = asked(trail, open_questions=open_questions, settled=True)
    assert check.ok and isinstance(check.evidence, Quiet)
    assert check.evidence.listed == open_questions.why_list


def test_where_nothing_is_open_nothing_need_be_settled() -> None:
    assert asked(whole().trail(), settled=False).ok


@pytest.mark.parametrize("open_questions", [NONE, *OPEN], ids=lambda d: d.why_list.lack if d.why_list else "nothing")
def test_what_a_listing_cannot_settle(open_questions: OpenQuestions) -> None:
    trail, last = whole().trail(), whole().lines[-1].at
    assert not asked(trail, open_questions=replace(open_questions, pending=("r-1",))).ok
    assert not asked(trail, open_questions=open_questions, leases_dead=False).ok
    assert not asked(trail, open_questions=open_questions, now_canary=None).ok
    assert not asked(trail, open_questions=open_questions, now_canary=last + timedelta(seconds=0.9)).ok
    assert not asked(EMPTY, open_questions=open_questions).ok


def test_what_was_read_in_a_wrapping_needs_a_listing_and_the_target() -> None:
    """What Vault lists says that the lease is gone, and nothing about the login."""
    story = read_in_a_wrapping().listed().canary()
    found = doubted(story)
    (read,) = found.wrapped
    dead = probed()
    for said in (None, probed(refused=False), probed(open_sessions=1)):
        check = asked(story.trail(), open_questions=found, target_answers={read.line: said} if said else {})
        why = said.evidence if said else Missing(lack=Lack.READ_NOT_ASKED, read=read.shown)
        assert check == Check(7, ok=False, evidence=why)
    assert asked(story.trail(), open_questions=found, target_answers={read.line: dead}).ok
    assert not asked(story.trail(), open_questions=found, target_answers={read.line: dead}, settled=False).ok
    # a lease that showed is proven by its own checks
    shown = doubted(read_in_a_wrapping().add(Kind.LEASE_ISSUED, "x", actor=STRANGER, token=READ))
    assert asked(story.trail(), open_questions=shown).ok


@pytest.mark.parametrize(
    "story",
    [
        lambda: whole().gap(),
        lambda: whole().used(closing=False, request_id="old").wait(7200).canary(),
    ],
    ids=["gap", "unanswered"],
)
def test_each_doubt_is_settled_by_the_listing_after_it(story: Callable[[], Story]) -> None:
    assert not quiet(story(), after=7200).ok
    assert quiet(story().listed().canary(), after=7200).ok
    assert not quiet(story().listed().canary().used(), after=7200).ok


# -- laws -------------------------------------------------------------------------------------------------


def everything(hours: float = 0) -> AuditTrail:
    """A trail with all that a listing has to settle, and the listing."""
    story = whole().used(request_id="b", closing=False).used(request_id="b", path=CREDS, alias=READ).gap().canary()
    story.used(request_id="never", closing=False).token_revoked().wait(hours * 3600)
    return story.add(Kind.LEASE_ISSUED, "x", actor="", token=READ).canary().listed().canary().trail()


def after_all(trail: AuditTrail, seconds: float) -> Canary:
    return Canary(Place("audit", 2, 10**9), max(o.at for o in trail.observations) + timedelta(seconds=seconds))


TRAILS = st.sampled_from([everything(), everything(2), whole().trail(), read_in_a_wrapping().listed().canary().trail()])
SECONDS = st.sampled_from([0, 0.5, 1, 5, 4000])
KEPT = st.lists(st.booleans(), min_size=24, max_size=24)


def is_evidence(o: Observation) -> bool:
    """Whether a line speaks for quiet: what was answered, opened or listed."""
    return o.op in LISTINGS or (o.kind is Kind.LEASE_ISSUED and bool(o.token)) or (o.kind is Kind.USED and o.closing)


def test_the_trails_of_the_laws_can_be_quiet() -> None:
    assert judge(everything(2), after_all(everything(2), 5)).ok
    assert not judge(everything(), after_all(everything(), 5)).ok
    assert judge(everything(), after_all(everything(), 4000)).ok


@given(TRAILS, KEPT, KEPT, SECONDS)
def test_less_evidence_never_makes_a_task_quiet(
    trail: AuditTrail, lines: list[bool], canaries: list[bool], seconds: float
) -> None:
    part = replace(
        trail,
        observations=tuple(
            o
            for o, keep in zip(trail.observations, lines, strict=False)
            # a read that shows no lease is a doubt itself
            if keep or not is_evidence(o) or o.path in LEASED
        ),
        canaries=tuple(c for c, keep in zip(trail.canaries, canaries, strict=False) if keep),
    )
    canary = after_all(trail, seconds)
    if judge(part, canary).ok:
        assert judge(trail, canary).ok


@given(TRAILS, KEPT, SECONDS, st.sampled_from([NONE, *OPEN]))
def test_what_is_settled_is_never_less_quiet(
    trail: AuditTrail, lines: list[bool], seconds: float, open_questions: OpenQuestions
) -> None:
    part = replace(trail, observations=tuple(o for o, k in zip(trail.observations, lines, strict=False) if k))
    how = {"now_canary": after_all(trail, seconds).at, "open_questions": open_questions}
    unsettled, settled_ = (asked(part, settled=is_settled, **how) for is_settled in (False, True))
    assert settled_.ok or not unsettled.ok
    assert unsettled.ok is (settled_.ok and not open_questions.why_list)


def is_somebody_elses(o: Observation) -> bool:
    """Whether a line is about none of the task's tokens: neither by who acted, nor by what it names."""
    ends = o.kind is Kind.LEASE_REVOKED and o.subject == ALIAS
    begins = o.kind is Kind.TOKEN_CREATED and o.subject == TOKEN
    opens = o.kind is Kind.LEASE_ISSUED and o.token
    return o.actor != TOKEN and not ends and not begins and not opens


@given(TRAILS, KEPT, st.lists(others((0, 3000)).filter(is_somebody_elses), max_size=6), SECONDS)
def test_lines_by_others_never_change_whether_a_task_is_quiet(
    trail: AuditTrail, lines: list[bool], more: list[Observation], seconds: float
) -> None:
    part = replace(trail, observations=tuple(o for o, k in zip(trail.observations, lines, strict=False) if k))
    noisy = replace(part, observations=(*part.observations, *more))
    canary = after_all(trail, seconds)
    assert judge(noisy, canary) == judge(part, canary)


@given(st.lists(others((0, 1200)), max_size=6))
def test_lines_by_others_never_make_a_task_quiet(more: list[Observation]) -> None:
    story = whole().used(closing=False, request_id="in-flight")
    trail = story.trail()
    noisy = replace(trail, observations=(*trail.observations, *more))
    canary = Canary(Place("audit", 1, 10**9), START + timedelta(minutes=5))
    answered = any(o.request_id == "in-flight" and o.closing for o in noisy.observations)
    assert not answered
    assert not judge(noisy, canary).ok


# -- what is hidden where nobody lists ------------------------------------------------------------------


def test_what_was_read_elsewhere_in_a_wrapping_is_never_quiet_until_it_is_opened() -> None:
    story = whole().used(path="kv/data/other", alias=READ)
    found = doubted(story)
    assert found == replace(NONE, elsewhere=found.elsewhere, pending=found.pending)
    assert found.elsewhere == Missing(lack=Lack.READ_ELSEWHERE, about="kv/data/other")
    quiet = is_quiet(
        frozenset({TOKEN}),
        story.canary().trail(),
        leases_dead=True,
        now_canary=START + timedelta(hours=1),
        open_questions=found,
        settled=True,
    )
    assert not quiet.ok
    opened = story.add(Kind.LEASE_ISSUED, "x", actor=STRANGER, token=READ)
    assert doubted(opened).elsewhere is None


def test_what_is_open_to_everybody_is_waited_for_neither_in_a_wrapping_nor_without_an_answer() -> None:
    read = {"path": "pki/cert/ca", "detail": {"wrapped": True, "open_to_all": True}}
    login = {"path": "auth/userpass/login/a", "closing": False, "request_id": "in", "detail": {"open_to_all": True}}
    assert doubted(whole().used(**read, alias=READ).used(**login)) == NONE
    # whatever the line says, a path of the task's gives leases
    assert doubted(whole().used(**{**read, "path": CREDS}, alias=READ)).hidden
    assert doubted(whole().used(**{**login, "path": CREDS})).pending == ("in",)


@pytest.mark.parametrize("path", ["auth/token/lookup-self", "sys/capabilities-self", "cubbyhole/mine"])
def test_what_a_token_asks_about_itself_makes_no_lease_in_a_wrapping_either(path: str) -> None:
    assert doubted(whole().used(path=path, alias=READ)) == NONE


def test_a_gap_that_none_of_its_lines_shows_is_one_as_well() -> None:
    story = whole()
    found = open_questions(TOKENS, story.trail(), leased=LEASED, settle=SETTLE, newest=newest(story), interrupted=True)
    assert found == replace(NONE, gap=Missing(lack=Lack.GAP))


# -- the settle window ------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [timedelta(0), timedelta(seconds=2), timedelta(seconds=90)])
def test_a_task_settles_the_whole_window_after_the_last_line_of_its_tokens(window: timedelta) -> None:
    for story in (whole(), whole().used(closing=False), whole().add(Kind.DENIED, "", actor=TOKEN, failed=True)):
        assert settles_at(TOKENS, story.trail(), window) == story.lines[-1].at + window
    assert settles_at(TOKENS, EMPTY, window) is None
    assert settles_at(frozenset(), whole().trail(), window) is None


def test_who_only_looks_a_token_up_keeps_nothing_in_flight() -> None:
    story = whole()
    before = settles_at(TOKENS, story.trail(), SETTLE)
    story.wait(10).token_looked_up(actor=STRANGER).add(Kind.CANARY, TOKEN).add(Kind.USED, STRANGER, actor=STRANGER)
    assert settles_at(TOKENS, story.trail(), SETTLE) == before
    assert settles_at(TOKENS, story.used().trail(), SETTLE) == story.lines[-1].at + SETTLE
