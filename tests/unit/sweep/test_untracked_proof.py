"""An orphan has no task that vouches for it: only what we saw, did and saw again, in one stretch, proves its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from credential_story import (
    INVALID_HMAC,
    LEASE,
    LEASE_HMAC,
    LIVE_OP,
    LOOKUP_OP,
    NOT_FOUND_HMAC,
    START,
    STRANGER,
    TOKEN,
    Story,
    others,
)
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.observation import Observation, Place
from jitvault.audit.trail import AuditTrail, Canary
from jitvault.model.proof_check import Check
from jitvault.model.states import Verdict
from jitvault.sweep.untracked_proof import UntrackedCredential, judge

REVOKE_OP = "op-revoke"
TOKEN_LEASE = "auth/token/create/jitvault-15m/h" + "0" * 64
PROVEN = (Verdict.AUDIT_CONFIRMED, Verdict.EXPIRED)


def orphan(kind: str = "lease", **changes: Any) -> UntrackedCredential:
    made = UntrackedCredential(
        lease_id=LEASE if kind == "lease" else TOKEN_LEASE,
        kind=kind,
        mount="database" if kind == "lease" else "auth/token",
        hashed=LEASE_HMAC,
        live_ops=frozenset({LIVE_OP}),
        revoke_ops=frozenset({REVOKE_OP}),
        gone_ops=frozenset({LOOKUP_OP}),
        gone_errors=frozenset({"invalid lease", INVALID_HMAC, NOT_FOUND_HMAC}),
        expires_at=START + timedelta(hours=1),
        reported=Verdict.GONE,
    )
    return replace(made, **changes)


def judged(
    story: Story, case: UntrackedCredential | None = None, *, at: timedelta = timedelta(minutes=1)
) -> tuple[Verdict, set[int]]:
    newest = Canary(Place(story.source, story.epoch, 10**9), START + at)
    verdict, checks = judge(case or orphan(), story.trail(), newest)
    assert [check.n for check in checks] == [1, 2, 3, 4, 5]
    return verdict, failed(checks)


def failed(checks: tuple[Check, ...]) -> set[int]:
    return {check.n for check in checks if not check.ok}


def ended(story: Story, **how: Any) -> Story:
    return story.revoked(**{"op": REVOKE_OP, **how})


def good() -> Story:
    return ended(Story().canary().alive()).looked_up().canary()


def good_token() -> Story:
    return ended(Story().canary().alive(), subject=TOKEN_LEASE).looked_up().canary()


# -- the good cases --------------------------------------------------------------------------------------------


def test_seen_ended_and_gone_is_dead() -> None:
    assert judged(good()) == (Verdict.AUDIT_CONFIRMED, set())
    assert judged(good_token(), orphan("token")) == (Verdict.AUDIT_CONFIRMED, set())


def test_its_lease_may_be_named_by_its_hmac() -> None:
    assert judged(ended(Story().canary().alive(), subject=LEASE_HMAC).looked_up().canary())[1] == set()


def test_no_issue_line_is_needed_and_one_is_no_sight_of_it() -> None:
    assert judged(Story().canary().issued().alive().revoked(op=REVOKE_OP).looked_up().canary())[1] == set()
    assert 1 in judged(ended(Story().canary().issued()).looked_up().canary())[1]


def test_a_revocation_that_failed_may_be_followed_by_a_good_one() -> None:
    story = ended(ended(Story().canary().alive(), failed=True)).looked_up().canary()
    assert judged(story) == (Verdict.AUDIT_CONFIRMED, set())


# -- each check --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reported", list(Verdict))
@pytest.mark.parametrize("kind", ["lease", "token"])
def test_empty_evidence_fails_every_check_and_leaves_the_claim(kind: str, reported: Verdict) -> None:
    assert judged(Story(), orphan(kind, reported=reported), at=timedelta(hours=2)) == (reported, {1, 2, 3, 4, 5})


SEEN: list[dict[str, Any]] = [
    {"op": "another"},
    {"op": ""},
    {"op": LOOKUP_OP},
    {"actor": STRANGER},
    {"actor": TOKEN},
    {"actor": ""},
    {"subject": "hmac-another-lease"},
    {"subject": LEASE},
    {"failed": True, "error": INVALID_HMAC},
    {"closing": False},
]


@pytest.mark.parametrize("how", SEEN, ids=str)
def test_who_did_not_see_it_alive_cannot_say_that_it_was_ended(how: dict[str, Any]) -> None:
    verdict, missing = judged(ended(Story().canary().alive(**how)).looked_up().canary())
    assert {1, 2, 4, 5} <= missing
    assert verdict is Verdict.GONE


ENDS: list[dict[str, Any]] = [
    {"failed": True},
    {"closing": False},
    {"subject": LEASE + "2"},
    {"subject": ""},
    {"op": "another"},
    {"op": ""},
    {"actor": STRANGER},
    {"actor": ""},
    {"actor": STRANGER, "op": ""},
    {"detail": {"denied": True}},
]


@pytest.mark.parametrize("how", ENDS, ids=str)
def test_a_revocation_that_is_none_of_ours_or_none_at_all(how: dict[str, Any]) -> None:
    verdict, missing = judged(ended(Story().canary().alive(), **how).looked_up().canary())
    assert missing >= {2, 3}
    assert verdict is Verdict.GONE


def test_before_it_was_seen_it_was_not_ended() -> None:
    assert 2 in judged(ended(Story().canary()).alive().looked_up().canary())[1]


def test_after_somebody_elses_revocation_of_a_lease_ours_found_nothing_to_do() -> None:
    theirs = Story().canary().alive().revoked(actor=STRANGER)
    assert judged(ended(theirs).looked_up().canary()) == (Verdict.GONE, {2, 3, 5})
    refused = Story().canary().alive().revoked(actor=STRANGER, failed=True, detail={"denied": True})
    assert judged(ended(refused).looked_up().canary())[1] == set()
    afterwards = ended(Story().canary().alive()).revoked(actor=STRANGER)
    assert judged(afterwards.looked_up().canary())[1] == set()


def test_whoever_revoked_a_token_it_is_dead() -> None:
    story = Story().canary().alive().revoked(subject=TOKEN_LEASE, actor=STRANGER).looked_up().canary()
    assert judged(story, orphan("token")) == (Verdict.AUDIT_CONFIRMED, set())
    failed_ = Story().canary().alive().revoked(subject=TOKEN_LEASE, actor=STRANGER, failed=True).looked_up().canary()
    assert judged(failed_, orphan("token"))[1] == {2, 3, 5}


LOOKS: list[dict[str, Any]] = [
    {"op": "another"},
    {"op": LIVE_OP},
    {"actor": STRANGER},
    {"actor": ""},
    {"subject": "hmac-another-lease"},
    {"failed": False},
    {"error": ""},
    {"error": "permission denied"},
    {"closing": False},
]


@pytest.mark.parametrize("how", LOOKS, ids=str)
def test_a_look_up_that_does_not_say_gone_is_none(how: dict[str, Any]) -> None:
    verdict, missing = judged(ended(Story().canary().alive()).looked_up(**how).canary())
    assert missing >= {3, 4, 5}
    assert verdict is Verdict.GONE


IN_STORAGE: list[dict[str, Any]] = [
    {"op": "another"},
    {"actor": STRANGER},
    {"subject": LEASE_HMAC},
    {"failed": False},
    {"error": "hmac-lease-expired"},
    {"closing": False},
]


def test_what_vaults_memory_alone_has_is_gone() -> None:
    assert judged(ended(Story().canary().alive()).not_in_storage().canary()) == (Verdict.AUDIT_CONFIRMED, set())


@pytest.mark.parametrize("how", IN_STORAGE, ids=str)
def test_what_vaults_storage_may_have_is_not_gone(how: dict[str, Any]) -> None:
    assert judged(ended(Story().canary().alive()).not_in_storage(**how).canary())[1] >= {3, 4, 5}


def test_gone_counts_only_after_the_revocation() -> None:
    assert judged(ended(Story().canary().alive().looked_up()).canary())[1] == {3}


@pytest.mark.parametrize(
    "path",
    [
        "sys/leases/tidy",
        "sys/leases/revoke-force/database",
        f"sys/leases/revoke-prefix/{LEASE}",
        "sys/mounts/database",
        "database/config/app",
        "database/roles/app-ro",
    ],
)
def test_what_makes_a_revocation_look_done_is_told_from_what_does_not(path: str) -> None:
    for story in (
        ended(Story().canary().alive().hazard(path)).looked_up().canary(),
        ended(Story().canary().alive()).hazard(path).looked_up().canary(),
    ):
        assert judged(story) == (Verdict.GONE, {4})
    for story in (ended(Story().canary().hazard(path).alive()).looked_up().canary(), good().hazard(path)):
        assert judged(story) == (Verdict.AUDIT_CONFIRMED, set())


def test_what_is_a_hazard_to_leases_is_none_to_a_token_of_another_path() -> None:
    for path, missing in (("database/config/app", set()), ("sys/leases/revoke-force/auth/token", {4})):
        story = ended(Story().canary().alive().hazard(path), subject=TOKEN_LEASE).looked_up().canary()
        assert judged(story, orphan("token"))[1] == missing


STRETCHES: list[tuple[str, Callable[[], Story]]] = [
    ("no canary before", lambda: ended(Story().alive()).looked_up().canary()),
    ("no canary after", lambda: ended(Story().canary().alive()).looked_up()),
    ("a gap before the end", lambda: ended(Story().canary().alive().canary().gap().canary()).looked_up().canary()),
    ("a gap after the end", lambda: ended(Story().canary().alive()).canary().gap().canary().looked_up().canary()),
    ("another source", lambda: ended(Story().canary().alive().elsewhere("node-2").canary()).looked_up().canary()),
    ("the canary after stands behind a gap", lambda: ended(Story().canary().alive()).looked_up().gap().canary()),
]


@pytest.mark.parametrize("story", [case[1] for case in STRETCHES], ids=[case[0] for case in STRETCHES])
def test_all_of_it_stands_in_one_stretch_between_canaries(story: Callable[[], Story]) -> None:
    assert judged(story()) == (Verdict.GONE, {5})


# -- expiry ------------------------------------------------------------------------------------------------------


def over(kind: str, *, gone: bool = True, reported: Verdict = Verdict.GONE, at: timedelta) -> Verdict:
    story = Story().canary().alive()
    story = story.looked_up().canary() if gone else story.canary()
    return judged(story, orphan(kind, reported=reported), at=at)[0]


def test_a_token_that_is_gone_and_whose_time_is_over_is_dead() -> None:
    hour = timedelta(hours=1)
    assert over("token", at=hour) is Verdict.EXPIRED
    assert over("token", at=hour - timedelta(microseconds=1)) is Verdict.GONE
    assert over("token", gone=False, at=hour) is Verdict.GONE
    assert over("token", reported=Verdict.IRREVOCABLE, at=hour) is Verdict.IRREVOCABLE
    # its backend may have failed
    assert over("lease", at=hour) is Verdict.GONE
    story = Story().canary().alive().looked_up().canary()
    assert judged(story, orphan("token", expires_at=None), at=2 * hour)[0] is Verdict.GONE


# -- laws --------------------------------------------------------------------------------------------------------

GOOD = [(orphan(), good().trail()), (orphan("token"), good_token().trail())]
NEWEST = Canary(Place("audit", 1, 10**9), START + timedelta(minutes=1))


@given(
    st.sampled_from(GOOD),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.lists(st.booleans(), min_size=2, max_size=2),
)
def test_nothing_less_than_all_of_the_evidence_proves(
    case: tuple[UntrackedCredential, AuditTrail], lines: list[bool], canaries: list[bool]
) -> None:
    one, trail = case
    part = replace(
        trail,
        observations=tuple(o for o, keep in zip(trail.observations, lines, strict=True) if keep),
        canaries=tuple(c for c, keep in zip(trail.canaries, canaries, strict=True) if keep),
    )
    verdict, checks = judge(one, part, NEWEST)
    assert (verdict in PROVEN) is (all(lines) and all(canaries)) is (failed(checks) == set())


@given(st.sampled_from([orphan(), orphan("token")]), st.lists(others((0, 1200)), max_size=8))
def test_lines_by_others_alone_prove_nothing(case: UntrackedCredential, more: list[Observation]) -> None:
    trail = replace(Story().canary().wait(20).canary().trail(), observations=tuple(more))
    verdict, checks = judge(case, trail, NEWEST)
    assert verdict is case.reported
    assert {1, 2, 3, 4, 5} == failed(checks)


@given(st.lists(others((0, 1200)), max_size=6), st.lists(st.booleans(), min_size=3, max_size=3))
def test_lines_by_others_never_make_a_lease_dead(more: list[Observation], lines: list[bool]) -> None:
    trail = good().trail()
    kept = [o for o, keep in zip(trail.observations, lines, strict=True) if keep]
    mixed = sorted([*kept, *more], key=lambda o: (o.place.source, o.place.epoch, o.place.offset))
    verdict, _ = judge(orphan(), replace(trail, observations=tuple(mixed)), NEWEST)
    assert all(lines) or verdict is Verdict.GONE
