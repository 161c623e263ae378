"""What is revoked or forced below a prefix: whose end that is, whose it is not, and of whom it takes the proof away.

A token has no backend: whoever revokes it, it is dead. A lease has one, and whether that was reached only our own
synchronous revocation says. What is forced drops the record of both.
"""

from __future__ import annotations

from typing import Any

import pytest
from credential_story import DEAD_TARGET, LEASE, STRANGER, Story, good, lease, probed, token
from hypothesis import given
from hypothesis import strategies as st

from jitvault.engines.interface import ProbeResult
from jitvault.lifecycle.confirmation.checks import Proof, is_proven, judge_credential
from jitvault.lifecycle.confirmation.hazards import touches
from jitvault.lifecycle.confirmation.timeline import Credential, is_below, prefix_of
from jitvault.model.states import Verdict

ROLE = "auth/token/create/jitvault-15m"
OWN = f"{ROLE}/h{'0' * 64}"
BREAK_GLASS = f"sys/leases/revoke-prefix/{ROLE}"
PATH = "database/creds/app-ro"
ACTS = ("revoke-force", "revoke-prefix")


def failed(proof: Proof) -> set[int]:
    return {check.n for check in proof.checks if not check.ok}


def of_token(story: Story, **changes: Any) -> Proof:
    credential = token(**{"lease_path": f"{ROLE}/", **changes})
    return judge_credential(credential, story.token_looked_up().canary().trail(), probed=None, target=False)


def of_lease(story: Story, **changes: Any) -> Proof:
    credential: Credential = lease(**{"lease_path": LEASE, **changes})
    return judge_credential(credential, story.looked_up().canary().trail(), probed=DEAD_TARGET, target=True)


# -- tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [BREAK_GLASS, f"{BREAK_GLASS}/", f"sys/revoke-prefix/{ROLE}", f"sys/{'leases/'}revoke-prefix/auth"]
)
@pytest.mark.parametrize("actor", [STRANGER, ""])
def test_whoever_revokes_all_of_its_role_ends_a_token(path: str, actor: str) -> None:
    proof = of_token(Story().canary().created().hazard(path, actor=actor))
    assert failed(proof) == set()
    assert proof.verdict is Verdict.AUDIT_CONFIRMED


def test_a_mere_acceptance_ends_a_token_as_well() -> None:
    """What `bao lease revoke -prefix` gets without -sync is a 202: it fails without an error, and cannot fail later."""
    assert failed(of_token(Story().canary().created().hazard(BREAK_GLASS, failed=True))) == set()


def test_a_token_that_is_known_by_its_lease_is_ended_by_its_own_prefix() -> None:
    story = Story().canary().created().hazard(f"sys/leases/revoke-prefix/{OWN}")
    assert failed(of_token(story, lease_path=OWN)) == set()


@pytest.mark.parametrize(
    ("path", "how"),
    [
        (BREAK_GLASS, {"failed": True, "error": "hmac-sha256:of-a-reason"}),
        (BREAK_GLASS, {"closing": False}),
        (f"{BREAK_GLASS}m", {}),
        (f"sys/leases/revoke-prefix/{ROLE[:-1]}", {}),
        (f"sys/leases/revoke-prefix/{PATH}", {}),
        ("sys/leases/revoke-prefix/", {}),
        (f"{BREAK_GLASS}/h{'1' * 64}", {}),
    ],
    ids=str,
)
def test_what_is_revoked_elsewhere_or_not_at_all_is_no_end_of_a_token(path: str, how: dict[str, Any]) -> None:
    proof = of_token(Story().canary().created().hazard(path, **how))
    assert failed(proof) == {2}
    assert proof.verdict is Verdict.GONE


def test_a_token_without_a_path_is_below_no_prefix() -> None:
    proof = of_token(Story().canary().created().hazard(BREAK_GLASS), lease_path="")
    assert 2 in failed(proof)
    assert not is_proven(proof, target=False)


def test_what_was_revoked_with_all_of_its_role_before_it_was_made_is_not_ended() -> None:
    assert failed(of_token(Story().canary().hazard(BREAK_GLASS).created())) == {2}


def test_after_all_of_its_role_was_revoked_ours_finds_nothing_and_that_is_no_matter() -> None:
    warned = {"warnings": ["No token found with this accessor"]}
    story = Story().canary().created().hazard(BREAK_GLASS).token_revoked(detail=warned)
    assert failed(of_token(story)) == set()


@pytest.mark.parametrize("forced", [ROLE, "auth", "auth/token", OWN, f"{OWN}/"])
def test_what_is_forced_at_its_role_takes_a_tokens_proof_away(forced: str) -> None:
    """Also of one token alone, where it is not known which lease is ours."""
    story = Story().canary().created().hazard(f"sys/leases/revoke-force/{forced}")
    assert 4 in failed(of_token(story))
    assert failed(of_token(Story().canary().created().hazard(f"sys/revoke-force/{forced}").token_revoked())) == {4}


@pytest.mark.parametrize("forced", [PATH, "database", "auth/token/create/jitvault-1h", f"{ROLE}m"])
def test_what_is_forced_elsewhere_leaves_a_token_its_proof(forced: str) -> None:
    assert (
        failed(of_token(Story().canary().created().hazard(f"sys/leases/revoke-force/{forced}").token_revoked()))
        == set()
    )


def test_what_is_forced_is_no_end_of_a_token() -> None:
    assert failed(of_token(Story().canary().created().hazard(f"sys/leases/revoke-force/{ROLE}"))) == {2, 4}


# -- leases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("prefix", [PATH, f"{PATH}/", "database", "database/creds", LEASE, f"{LEASE}/"])
def test_what_is_revoked_or_forced_above_a_lease_takes_its_proof_away(act: str, prefix: str) -> None:
    """Revoked by somebody else and then by us: 204, "invalid lease", and nobody knows what the backend did."""
    for path in (f"sys/leases/{act}/{prefix}", f"sys/{act}/{prefix}"):
        alone = of_lease(Story().canary().issued().hazard(path))
        assert failed(alone) == {2, 4}
        with_ours = of_lease(Story().canary().issued().hazard(path).revoked())
        assert failed(with_ours) == {4}
        assert with_ours.verdict is Verdict.GONE
        between = of_lease(Story().canary().issued().revoked().hazard(path))
        assert failed(between) == {4}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("prefix", [ROLE, f"{PATH}2", PATH[:-1], "aws", f"{PATH}/another", f"{LEASE}x", LEASE[:-1]])
def test_what_is_revoked_or_forced_elsewhere_leaves_a_lease_its_proof(act: str, prefix: str) -> None:
    proof = of_lease(Story().canary().issued().hazard(f"sys/leases/{act}/{prefix}").revoked())
    assert failed(proof) == set()
    assert proof.verdict is Verdict.TARGET_CONFIRMED


@pytest.mark.parametrize("act", ACTS)
def test_a_lease_that_was_seen_alive_afterwards_was_not_taken_away(act: str) -> None:
    story = Story().canary().issued().hazard(f"sys/leases/{act}/{PATH}").alive().revoked()
    assert failed(of_lease(story, live_ops=frozenset({"op-live"}))) == set()


def test_where_nobody_knows_its_path_everything_in_sys_is_a_hazard() -> None:
    for act in ACTS:
        story = Story().canary().issued().hazard(f"sys/leases/{act}/aws").revoked()
        assert failed(of_lease(story, lease_path="")) == {4}


# -- prefixes --------------------------------------------------------------------------------------------------

segments = st.lists(st.sampled_from(["a", "ab", "b", "creds"]), min_size=1, max_size=4).map("/".join)


@given(segments, segments)
def test_below_is_by_whole_segments(path: str, prefix: str) -> None:
    whole = prefix_of(f"sys/leases/revoke-prefix/{prefix}", "revoke-prefix")
    assert whole == prefix + "/"
    assert is_below(path, whole) is (path.split("/")[: len(prefix.split("/"))] == prefix.split("/"))


@given(segments, segments, st.sampled_from(ACTS), st.booleans())
def test_a_slash_at_the_end_changes_nothing(path: str, prefix: str, act: str, of_a_token: bool) -> None:
    said = {
        touches(f"sys/leases/{act}/{p}", "a", lease_path, token=of_a_token)
        for p in (prefix, f"{prefix}/")
        for lease_path in (path, f"{path}/")
    }
    assert len(said) == 1


@given(segments, segments, st.booleans())
def test_what_is_revoked_is_never_more_of_a_hazard_than_what_is_forced(
    path: str, prefix: str, of_a_token: bool
) -> None:
    revoked, forced = (touches(f"sys/leases/{act}/{prefix}", "a", path, token=of_a_token) for act in reversed(ACTS))
    assert forced or not revoked
    if of_a_token:
        assert not revoked


def test_another_act_has_no_prefix() -> None:
    for path in ("sys/leases/tidy", "sys/leases/revoke/a", "sys/leases/revoke-prefixes/a", "kv/revoke-prefix/a", ""):
        assert prefix_of(path, "revoke-prefix") is None


# -- what Vault was made to forget -----------------------------------------------------------------------------


def test_what_was_forced_is_unverifiable_whatever_the_stream_says() -> None:
    """No line of Vault's can make up for it: a revocation says nothing, since there was no record left."""
    for target, said in ((False, None), (True, None), (False, DEAD_TARGET)):
        proof = judge_credential(lease(forced=True), good().trail(), probed=said, target=target)
        assert proof.verdict is Verdict.UNVERIFIABLE
        assert not is_proven(proof, target=target)


@pytest.mark.parametrize(
    "probed",
    [
        probed(refused=False),
        probed(open_sessions=1),
    ],
)
def test_what_was_forced_and_still_works_is_unverifiable(probed: ProbeResult) -> None:
    assert (
        judge_credential(lease(forced=True), good().trail(), probed=probed, target=True).verdict is Verdict.UNVERIFIABLE
    )


def test_of_what_was_forced_the_target_alone_can_say_that_it_is_dead() -> None:
    forced = Story().canary().issued().hazard(f"sys/leases/revoke-force/{LEASE}").looked_up().canary()
    proof = judge_credential(lease(forced=True, lease_path=LEASE), forced.trail(), probed=DEAD_TARGET, target=True)
    assert failed(proof) == {2, 4}
    assert proof.verdict is Verdict.TARGET_CONFIRMED


@pytest.mark.parametrize("path", ["database/config/app", "database/roles/app-ro"])
@pytest.mark.parametrize("alive", [False, True])
def test_where_its_mount_was_written_to_the_target_that_was_asked_may_be_another(path: str, alive: bool) -> None:
    """Moved to another server and back, a mount makes its login there, and the one that is asked knows none."""
    story = Story().canary().issued().hazard(path)
    story = (story.alive() if alive else story).hazard(f"sys/leases/revoke-force/{LEASE}").looked_up().canary()
    proof = judge_credential(lease(forced=True, lease_path=LEASE), story.trail(), probed=DEAD_TARGET, target=True)
    assert proof.verdict is Verdict.UNVERIFIABLE


@pytest.mark.parametrize("lost", ["issue", "lookup", "canary"])
def test_what_was_forced_has_to_have_been_there_and_be_gone(lost: str) -> None:
    story = good()
    if lost == "canary":
        story.canaries.pop()
    else:
        del story.lines[0 if lost == "issue" else -1]
    proof = judge_credential(lease(forced=True), story.trail(), probed=DEAD_TARGET, target=True)
    assert proof.verdict is Verdict.UNVERIFIABLE
