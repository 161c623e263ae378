"""Only evidence proves. Each check fails alone, each lie that Vault can tell is seen through, and nothing that is
taken away from a good trail, or that others add to it, makes a verdict better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from credential_story import (
    ALIAS,
    ALIAS_HMAC,
    DEAD_TARGET,
    INVALID,
    INVALID_HMAC,
    LEASE,
    LEASE_HMAC,
    LIST_OP,
    LIVE_OP,
    OLD_WORKER,
    START,
    STRANGER,
    TOKEN,
    WORKER,
    Story,
    good,
    good_token,
    lease,
    others,
    probed,
    token,
)
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import AuditTrail, shown
from jitvault.engines.interface import ProbeResult
from jitvault.lifecycle.confirmation.checks import Proof, is_proven, judge_credential
from jitvault.lifecycle.confirmation.timeline import Credential
from jitvault.model.evidence import Contiguous, Gap, Lack, Missing
from jitvault.model.proof_check import Check
from jitvault.model.states import Verdict


def judge(story: Story, credential: Credential | None = None, *, probed: ProbeResult | None = DEAD_TARGET) -> Proof:
    """The strictest question: is it dead, also by the target?"""
    return judge_credential(credential or lease(), story.trail(), probed=probed, target=True)


def judge_token(story: Story, credential: Credential | None = None) -> Proof:
    return judge_credential(credential or token(), story.trail(), probed=None, target=False)


def failed(proof: Proof) -> set[int]:
    return {check.n for check in proof.checks if not check.ok}


# the first six values say more one after another
LADDER = [*Verdict][:6]


def rank(verdict: Verdict) -> int:
    """How much a verdict says: what is not on the ladder says less than its proven rungs."""
    if verdict is Verdict.EXPIRED:
        return LADDER.index(Verdict.AUDIT_CONFIRMED)
    return LADDER.index(verdict) if verdict in LADDER else -1


def unproven(proof: Proof) -> bool:
    return rank(proof.verdict) < rank(Verdict.AUDIT_CONFIRMED)


# -- the good cases ---------------------------------------------------------------------------------------


def test_a_lease_with_all_its_evidence_is_dead_by_the_target() -> None:
    proof = judge(good())
    assert failed(proof) == set()
    assert [check.n for check in proof.checks] == [1, 2, 3, 4, 5, 6]
    assert proof.verdict is Verdict.TARGET_CONFIRMED
    assert is_proven(proof, target=True)


def test_without_a_probe_it_is_dead_by_the_audit_stream() -> None:
    proof = judge_credential(lease(), good().trail(), probed=None, target=False)
    assert [check.n for check in proof.checks] == [1, 2, 3, 4, 5]
    assert proof.verdict is Verdict.AUDIT_CONFIRMED
    assert is_proven(proof, target=False)
    assert not is_proven(proof, target=True)


def test_a_token_with_all_its_evidence_is_dead() -> None:
    proof = judge_token(good_token())
    assert failed(proof) == set()
    assert proof.verdict is Verdict.AUDIT_CONFIRMED


def test_a_token_that_revoked_itself_is_dead() -> None:
    story = Story().canary().created().token_revoked(actor=TOKEN).token_looked_up().canary()
    assert judge_token(story).verdict is Verdict.AUDIT_CONFIRMED


def test_a_token_whose_accessor_was_lost_is_proven_by_its_lease_path() -> None:
    by_path = token(alias=ALIAS, alias_lookup=ALIAS_HMAC)
    story = Story().canary().created().revoked(subject=ALIAS).looked_up(subject=ALIAS_HMAC).canary()
    assert judge_token(story, by_path).verdict is Verdict.AUDIT_CONFIRMED
    assert unproven(judge_token(story))


def test_openbaos_hmac_and_vaults_words_both_say_gone() -> None:
    for error in (INVALID, INVALID_HMAC, "1 error occurred: * invalid lease"):
        story = Story().canary().issued().revoked().looked_up(error=error).canary()
        assert judge(story).verdict is Verdict.TARGET_CONFIRMED


def test_an_earlier_session_of_the_worker_is_the_worker() -> None:
    story = Story().canary().issued().revoked(actor=OLD_WORKER).looked_up().canary()
    assert judge(story).verdict is Verdict.TARGET_CONFIRMED


def test_the_evidence_names_the_lines_it_rests_on() -> None:
    story = good()
    evidence = {check.n: check.evidence for check in judge(story).checks}
    for n, line in zip((1, 2, 3), story.lines, strict=True):
        assert getattr(evidence[n], "sha256", None) == line.line
    assert evidence[5] == Contiguous("audit", 100, 500)


# -- each check alone, in its own trail -------------------------------------------------------------------

ALONE: list[tuple[str, int, Callable[[], Proof]]] = [
    ("2 no revocation line", 2, lambda: judge(Story().canary().issued().looked_up().canary())),
    (
        "2 only its request line",
        2,
        lambda: judge(Story().canary().issued().revoked(closing=False).looked_up().canary()),
    ),
    ("2 it failed", 2, lambda: judge(Story().canary().issued().revoked(failed=True, error="x").looked_up().canary())),
    ("2 another lease", 2, lambda: judge(Story().canary().issued().revoked(subject=LEASE + "2").looked_up().canary())),
    ("2 before the issue", 2, lambda: judge(Story().canary().revoked().issued().looked_up().canary())),
    ("2 by somebody else", 2, lambda: judge(Story().canary().issued().revoked(actor=STRANGER).looked_up().canary())),
    ("4 tidy", 4, lambda: judge(Story().canary().issued().hazard("sys/leases/tidy").revoked().looked_up().canary())),
    ("5 no canary before", 5, lambda: judge(Story().issued().revoked().looked_up().canary())),
    ("5 no canary after", 5, lambda: judge(Story().canary().issued().revoked().looked_up())),
    ("5 a gap", 5, lambda: judge(Story().canary().issued().gap().canary().revoked().looked_up().canary())),
    ("6 not probed", 6, lambda: judge(good(), probed=None)),
    ("6 accepted", 6, lambda: judge(good(), probed=probed(refused=False))),
    ("6 a session", 6, lambda: judge(good(), probed=probed(open_sessions=1))),
]


@pytest.mark.parametrize(("n", "proof"), [case[1:] for case in ALONE], ids=[case[0] for case in ALONE])
def test_a_check_that_fails_alone_keeps_the_verdict_down(n: int, proof: Callable[[], Proof]) -> None:
    found = proof()
    assert failed(found) == {n}
    assert not is_proven(found, target=True)
    assert found.verdict is (Verdict.AUDIT_CONFIRMED if n == 6 else Verdict.GONE)
    assert [check.n for check in found.checks] == [1, 2, 3, 4, 5, 6]


def test_without_its_issue_line_the_interval_has_no_beginning() -> None:
    # 1 cannot fail alone: 4 and 5 speak of the interval that begins there
    for story in (
        Story().canary().revoked().looked_up().canary(),
        Story().canary().issued(closing=False).revoked().looked_up().canary(),
        Story().canary().issued(failed=True).revoked().looked_up().canary(),
        Story().canary().add(Kind.USED, LEASE, actor=TOKEN).revoked().looked_up().canary(),
        Story().canary().add(Kind.LEASE_ISSUED, LEASE + "2", actor=TOKEN).revoked().looked_up().canary(),
    ):
        proof = judge(story)
        assert failed(proof) == {1, 4, 5}
        assert proof.verdict is Verdict.GONE


@pytest.mark.parametrize(
    "how",
    [
        {"op": "another-op"},
        {"op": ""},
        {"actor": STRANGER},
        {"actor": TOKEN},
        {"actor": ""},
        {"subject": "hmac-another-lease"},
        {"subject": LEASE},
        {"subject": ""},
        {"failed": False},
        {"error": ""},
        {"error": "hmac-something-else"},
        {"error": "permission denied"},
        {"closing": False},
    ],
    ids=str,
)
def test_a_lookup_that_does_not_say_gone_in_the_stream_is_none(how: dict[str, Any]) -> None:
    # 3 cannot fail alone either: 4 and 5 speak of the interval that ends there
    proof = judge(Story().canary().issued().revoked().looked_up(**how).canary())
    assert failed(proof) == {3, 4, 5}
    assert unproven(proof)


def test_a_lease_that_vaults_memory_alone_has_is_gone() -> None:
    proof = judge(Story().canary().issued().revoked().not_in_storage().canary())
    assert proof.verdict is Verdict.TARGET_CONFIRMED


@pytest.mark.parametrize(
    "how",
    [
        {"op": "another-op"},
        {"actor": STRANGER},
        {"actor": TOKEN},
        {"subject": "database/creds/app-ro/another"},
        {"subject": LEASE_HMAC},
        {"failed": False},
        {"error": ""},
        {"error": "hmac-lease-expired"},
        {"closing": False},
    ],
    ids=str,
)
def test_a_lease_that_vaults_storage_may_have_is_not_gone(how: dict[str, Any]) -> None:
    proof = judge(Story().canary().issued().revoked().not_in_storage(**how).canary())
    assert failed(proof) == {3, 4, 5}
    assert unproven(proof)


def test_a_token_without_accessor_is_gone_when_its_lease_is_not_in_storage() -> None:
    by_path = token(alias=ALIAS, alias_lookup=ALIAS_HMAC)
    story = Story().canary().created().revoked(subject=ALIAS)
    assert judge_token(story.not_in_storage(subject=ALIAS).canary(), by_path).verdict is Verdict.AUDIT_CONFIRMED


def test_a_lookup_right_before_a_gap_does_not_count_where_a_later_one_does() -> None:
    cut_off = Story().canary().issued().revoked().looked_up().gap().canary()
    proof = judge(cut_off.looked_up().listed().canary(), gapped())
    assert proof.verdict is Verdict.TARGET_CONFIRMED


def test_what_an_engine_does_not_know_is_no_hazard() -> None:
    refused = {"request_id": "r-unknown", "failed": True, "detail": {"unsupported": True}}
    story = Story().canary().issued().hazard("database/none", request_id="r-unknown", closing=False)
    story = story.hazard("database/none", **refused).revoked().looked_up().canary()
    assert judge(story).verdict is Verdict.TARGET_CONFIRMED


def test_a_lookup_counts_only_after_the_revocation() -> None:
    proof = judge(Story().canary().issued().looked_up().revoked().canary())
    assert failed(proof) == {3, 4, 5}
    assert unproven(proof)


def test_a_lookup_that_is_not_in_the_stream_is_a_claim() -> None:
    proof = judge(Story().canary().issued().revoked().canary())
    assert 3 in failed(proof)
    assert proof.verdict is Verdict.GONE


def test_the_lookup_of_another_kind_of_credential_is_none() -> None:
    assert unproven(
        judge(Story().canary().issued().revoked().token_looked_up(subject=LEASE_HMAC, error=INVALID).canary())
    )
    assert unproven(judge_token(Story().canary().created().token_revoked().looked_up(subject=TOKEN).canary()))


EMPTY = AuditTrail((), (), frozenset())


@pytest.mark.parametrize("credential", [lease(), token(), lease(lookup_ops=frozenset()), token(alias=ALIAS)])
@pytest.mark.parametrize("reported", list(Verdict))
def test_empty_evidence_fails_every_check(credential: Credential, reported: Verdict) -> None:
    proof = judge_credential(replace(credential, reported=reported), EMPTY, probed=None, target=True)
    assert failed(proof) == {1, 2, 3, 4, 5, 6}
    assert unproven(proof)
    assert not is_proven(proof, target=False)


def test_an_empty_name_proves_nothing() -> None:
    nameless = token(subject="", lookup_subject="", alias="", alias_lookup="", expires_at=None)
    story = Story().canary().created(subject="").revoked(subject="").looked_up(subject="").canary()
    assert unproven(judge_token(story, nameless))


@pytest.mark.parametrize("reported", list(Verdict))
def test_a_claim_is_never_taken_for_a_proof(reported: Verdict) -> None:
    story = Story().canary().issued().canary()
    proof = judge(story, lease(reported=reported, lookup_ops=frozenset()))
    assert unproven(proof)
    if reported not in (Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED):
        assert proof.verdict is reported


@pytest.mark.parametrize("reported", [Verdict.REVOKE_FAILED, Verdict.IRREVOCABLE])
def test_what_failed_is_not_gone_because_an_older_lookup_said_so(reported: Verdict) -> None:
    assert judge(Story(), lease(reported=reported)).verdict is reported


@pytest.mark.parametrize("reported", [Verdict.ACKNOWLEDGED, Verdict.REVOKE_REQUESTED])
def test_what_was_found_again_is_not_gone_because_an_older_lookup_said_so(reported: Verdict) -> None:
    assert judge(Story(), lease(reported=reported, found_last=True)).verdict is reported
    assert judge(Story(), lease(reported=reported)).verdict is Verdict.GONE


# -- the lies of a revocation (docs/vault-facts.md, "Revocation") -------------------------------------------------


def test_204_for_a_lease_that_never_was_is_no_proof() -> None:
    # Vault answers 204 and then "invalid lease" for any name at all
    assert unproven(judge(Story().canary().revoked().looked_up().canary()))


@pytest.mark.parametrize(
    "path",
    [
        "sys/leases/tidy",
        "sys/leases/revoke-force/database/creds/app-ro",
        "sys/revoke-force/database",
        "sys/mounts/database",
        "sys/remount",
        "sys/audit/jitvault",
        "sys/audit/test",
        "auth/token/tidy",
        "database/config/app",
        "database/roles/app-ro",
        "database/reset/app",
        "database/rotate-root/app",
    ],
)
@pytest.mark.parametrize("failed_", [False, True])
def test_nothing_that_makes_a_revocation_look_done_may_happen_in_between(path: str, failed_: bool) -> None:
    before = Story().canary().hazard(path).issued().revoked().looked_up().canary()
    assert judge(before).verdict is Verdict.TARGET_CONFIRMED
    after = Story().canary().issued().revoked().looked_up().hazard(path).canary()
    assert judge(after).verdict is Verdict.TARGET_CONFIRMED
    for story in (
        Story().canary().issued().hazard(path, failed=failed_).revoked().looked_up().canary(),
        Story().canary().issued().revoked().hazard(path, failed=failed_).looked_up().canary(),
        Story().canary().issued().hazard(path, closing=False).revoked().looked_up().canary(),
        Story().canary().issued().hazard(path, actor=WORKER).revoked().looked_up().canary(),
    ):
        proof = judge(story)
        assert failed(proof) == {4}
        evidence = next(check.evidence for check in proof.checks if check.n == 4)
        assert isinstance(evidence, Missing) and (evidence.lack, evidence.about) == (Lack.HAZARD, path)
        assert unproven(proof)


@pytest.mark.parametrize("path", ["aws/config/root", "database2/config/app", "sys/mounts/kv", "data/config/base"])
def test_what_happens_to_another_mount_is_no_matter(path: str) -> None:
    story = Story().canary().issued().hazard(path).revoked().looked_up().canary()
    assert judge(story).verdict is Verdict.TARGET_CONFIRMED


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("database/roles/app-ro", True),
        ("database/roles/app-rw", False),
        ("database/roles/app-ro/x", True),
        ("database/roles", True),
        ("database/static-roles/app-rw", True),
        ("database/config/other", True),
        ("database/rotate-role/app-rw", True),
    ],
)
def test_a_write_to_a_role_is_a_hazard_to_what_came_from_it(path: str, is_one: bool) -> None:
    story = Story().canary().issued().hazard(path).revoked().looked_up().canary()
    proof = judge(story, lease(lease_path="database/creds/app-ro/8Vc1"))
    assert (failed(proof) == {4}) is unproven(proof) is is_one
    check = next(check for check in proof.checks if check.n == 4)
    assert check.permanent is is_one
    # the ledger keeps that with the evidence
    assert msgspec.convert(msgspec.to_builtins(check), Check).permanent is is_one


@pytest.mark.parametrize(
    "path", ["database/prod/config/app", "sys/mounts/database/prod", "sys/mounts/database/prod/tune"]
)
def test_a_mount_of_several_parts_is_one_mount(path: str) -> None:
    story = Story().canary().issued().hazard(path).revoked().looked_up().canary()
    assert unproven(judge(story, lease(mount="database/prod")))


def test_a_hazard_in_another_stretch_is_placed_by_vaults_time() -> None:
    # a line of another node's log: its offset says nothing about ours
    story = Story().canary().issued().revoked().looked_up().canary()
    other = Story(source="node-2").wait(0.02).hazard("sys/leases/tidy").lines[0]
    between = replace(other, at=story.lines[1].at)
    assert unproven(
        judge_credential(
            lease(), replace(story.trail(), observations=(*story.lines, between)), probed=None, target=False
        )
    )
    early = replace(other, at=START)
    assert not unproven(
        judge_credential(lease(), replace(story.trail(), observations=(early, *story.lines)), probed=None, target=False)
    )


@pytest.mark.parametrize("how", [{"failed": True}, {"failed": True, "error": "hmac-backend-failed"}])
def test_a_revoke_line_with_an_error_is_no_revocation(how: dict[str, Any]) -> None:
    # an error, only `response.data.error`, or a mere 202: an observation says `failed` for each of them
    proof = judge(Story().canary().issued().revoked(**how).looked_up().canary())
    assert failed(proof) == {2}
    assert unproven(proof)


def test_a_failed_revocation_may_be_followed_by_a_good_one() -> None:
    story = Story().canary().issued().revoked(failed=True).revoked().looked_up().canary()
    assert judge(story).verdict is Verdict.TARGET_CONFIRMED


@pytest.mark.parametrize("name", [LEASE, LEASE_HMAC])
@pytest.mark.parametrize("how", [{}, {"failed": True, "error": "hmac-backend-failed"}, {"actor": ""}, {"actor": TOKEN}])
def test_after_somebody_elses_revocation_ours_found_nothing_to_do(name: str, how: dict[str, Any]) -> None:
    # by path, or with the lease id in the body, which the stream shows as an HMAC
    theirs = {"actor": STRANGER, "subject": name, **how}
    proof = judge(Story().canary().issued().revoked(**theirs).revoked().looked_up().canary())
    assert failed(proof) == {2}
    assert unproven(proof)


def test_somebody_elses_revocation_after_ours_changes_nothing() -> None:
    story = Story().canary().issued().revoked().revoked(actor=STRANGER).looked_up().canary()
    assert judge(story).verdict is Verdict.TARGET_CONFIRMED


def test_an_attempt_that_vault_refused_changes_nothing() -> None:
    # else an agent could keep its own lease from being confirmed
    denied = {"actor": TOKEN, "failed": True, "error": "hmac-denied", "detail": {"denied": True}}
    story = Story().canary().issued().revoked(**denied).revoked().looked_up().canary()
    assert judge(story).verdict is Verdict.TARGET_CONFIRMED


def test_the_re_creation_of_the_audit_device_ends_the_stretch() -> None:
    story = Story().canary().issued().hazard("sys/audit/test", closing=False, actor="").gap().canary()
    proof = judge(story.revoked().looked_up().canary())
    assert {4, 5} <= failed(proof)
    assert unproven(proof)


def enabled(story: Story, **answer: Any) -> Story:
    """One more audit device, as the line of the request and that of the answer tell it."""
    enables = {"path": "sys/audit/second", "request_id": "r-enable", "detail": {"enables": True}}
    return story.hazard(**enables, closing=False).hazard(**{**enables, **answer})


@pytest.mark.parametrize("failed_", [False, True])
def test_a_device_that_is_enabled_beside_ours_is_no_hazard(failed_: bool) -> None:
    story = enabled(Story().canary().issued(), failed=failed_).revoked().looked_up().canary()
    assert judge(story).verdict is Verdict.TARGET_CONFIRMED


def test_a_device_that_is_enabled_is_a_hazard_where_ours_did_not_go_on_over_it() -> None:
    def begun() -> Story:
        return Story().canary().issued()

    def ended(story: Story) -> Story:
        return story.revoked().looked_up().canary()

    enables = {"path": "sys/audit/jitvault", "request_id": "r-enable", "detail": {"enables": True}}
    for story in (
        # ours is made anew: its file has the answer alone
        ended(begun().hazard(**enables)),
        # it is not known whether it was done, and whether ours went on
        ended(begun().hazard(**enables, closing=False)),
        # the answer is another request's
        ended(begun().hazard(**enables, closing=False).hazard(**{**enables, "request_id": "r-other"})),
        # one of the two is not of an enabling
        ended(begun().hazard(**{**enables, "detail": {}}, closing=False).hazard(**enables)),
        # nobody said which request it was
        ended(begun().hazard(**{**enables, "request_id": ""}, closing=False).hazard(**{**enables, "request_id": ""})),
        # each line stands in the file of another node
        ended(begun().elsewhere("node-2").hazard(**enables, closing=False).elsewhere("audit").hazard(**enables)),
    ):
        proof = judge(story)
        assert 4 in failed(proof)
        assert unproven(proof)
    proof = judge(ended(begun().hazard(**enables, closing=False).gap().hazard(**enables).canary()))
    assert {4, 5} <= failed(proof)
    # taking one away is one whatever became of it
    gone = {"path": "sys/audit/second", "request_id": "r-gone"}
    assert failed(judge(ended(begun().hazard(**gone, closing=False).hazard(**gone)))) == {4}


@pytest.mark.parametrize("actor", [STRANGER, TOKEN, ""])
def test_an_operation_id_of_ours_in_somebody_elses_line_counts_for_nothing(actor: str) -> None:
    # headers can be forged: an id counts only with the accessor of a worker's session
    proof = judge(Story().canary().issued().revoked().looked_up(actor=actor).canary())
    assert 3 in failed(proof)
    assert unproven(proof)
    proof = judge(Story().canary().issued().revoked(actor=actor, op="op-revoke").looked_up().canary())
    assert 2 in failed(proof)
    assert unproven(proof)


def test_without_a_known_session_nobody_is_the_worker() -> None:
    story = good()
    story.workers = frozenset()
    assert unproven(judge(story))


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_gap_anywhere_from_issue_to_lookup_is_found(place: int) -> None:
    steps: list[Callable[[Story], Story]] = [Story.canary, Story.issued, Story.revoked, Story.looked_up, Story.canary]
    story = Story()
    for n, step in enumerate(steps):
        if n == place + 1:
            story.gap()
        step(story)
    if place == 3:
        # after the lookup nothing is left that a gap could hide but the canary that closes it
        assert failed(judge(story)) == {5}
    else:
        assert 5 in failed(judge(story))
    assert unproven(judge(story))


def test_a_file_that_began_anew_is_another_stretch_though_its_offsets_fit() -> None:
    story = Story().canary().issued().canary().canary().canary().restart().canary().revoked().looked_up().canary()
    assert story.lines[-1].place.offset < story.canaries[3].place.offset
    assert failed(judge(story)) == {5}
    assert unproven(judge(story))


def test_canaries_of_another_stretch_or_source_do_not_bracket() -> None:
    story = good()
    for change in ({"epoch": 2}, {"source": "node-2"}, {"epoch": 0}):
        elsewhere = [replace(c, place=replace(c.place, **change)) for c in story.canaries]
        assert failed(judge(Story(lines=story.lines, canaries=elsewhere))) == {5}


def test_the_canary_before_must_stand_before_the_issue_line() -> None:
    inside = Story().issued().canary().revoked().looked_up().canary()
    assert failed(judge(inside)) == {5}
    early = Story().canary().issued().revoked().canary().looked_up()
    assert failed(judge(early)) == {5}


# -- tokens -----------------------------------------------------------------------------------------------


def test_a_revocation_that_only_warns_found_no_token() -> None:
    warned = {"warnings": ["No token found with this accessor"]}
    proof = judge_token(Story().canary().created().token_revoked(detail=warned).token_looked_up().canary())
    assert failed(proof) == {2}
    assert unproven(proof)


WARNED = {"detail": {"warnings": ["No token found with this accessor"]}}


def test_a_revocation_without_an_answer_is_one_when_the_next_finds_nothing_to_do() -> None:
    story = Story().canary().created().token_revoked(closing=False).token_revoked(**WARNED)
    assert judge_token(story.token_looked_up().canary()).verdict is Verdict.AUDIT_CONFIRMED


ACCEPTED = {"failed": False, "error": ""}
BEGUN = {"failed": False, "error": "", "detail": {"revocation_begun": True}}


def test_a_revocation_that_vault_began_and_never_ended_is_one() -> None:
    """The server died in the middle: from then on Vault does not accept the token, and cannot revoke it either."""
    story = Story().canary().created().token_revoked(closing=False)
    story = story.token_revoked(failed=True, error="hmac-token-not-found").token_looked_up(**BEGUN)
    assert judge_token(story.token_looked_up(**BEGUN).canary()).verdict is Verdict.AUDIT_CONFIRMED


@pytest.mark.parametrize(
    "story",
    [
        # nobody asked for a revocation
        lambda: Story().canary().created().token_looked_up(**BEGUN).token_looked_up(**BEGUN).canary(),
        # it was looked up before the revocation
        lambda: Story().canary().created().token_looked_up(**BEGUN).token_revoked(closing=False).canary(),
        # a stranger looked it up, or asked for the revocation
        lambda: begun_by().token_looked_up(**BEGUN, actor=STRANGER).token_looked_up(**BEGUN).canary(),
        lambda: begun_by().token_looked_up(**BEGUN).token_looked_up(**BEGUN, actor=STRANGER).canary(),
        lambda: begun_by(actor=STRANGER).token_looked_up(**BEGUN).token_looked_up(**BEGUN).canary(),
        # it is another token, or one that Vault accepts
        lambda: begun_by().token_looked_up(**BEGUN, subject="hmac-another").token_looked_up(**BEGUN).canary(),
        lambda: begun_by().token_alive().token_alive().canary(),
        lambda: begun_by().token_looked_up(**ACCEPTED).token_looked_up(**ACCEPTED).canary(),
        # the look-up has no answer
        lambda: begun_by().token_looked_up(**BEGUN, closing=False).canary(),
    ],
)
def test_a_token_that_vault_may_accept_is_not_dead(story: Callable[[], Story]) -> None:
    assert unproven(judge_token(story()))


def never_ended(story: Story) -> Story:
    """A revocation on which the server died, and what the worker then finds."""
    story = story.token_revoked(closing=False).gap().canary()
    story = story.token_revoked(failed=True, error="hmac-token-not-found").token_looked_up(**BEGUN)
    return story.token_looked_up(**BEGUN).listed().canary()


def test_a_token_whose_revocation_began_was_not_taken_away_in_a_gap() -> None:
    story = never_ended(Story().canary().created())
    assert judge_token(story, gapped_token()).verdict is Verdict.AUDIT_CONFIRMED
    unlisted = replace(gapped_token(), listing_ops=frozenset())
    assert failed(judge_token(story, unlisted)) == {5}


def test_a_token_that_was_revoked_after_a_gap_has_to_have_been_seen_after_it() -> None:
    story = Story().canary().created().canary().gap().canary().token_revoked().token_looked_up().listed().canary()
    assert failed(judge_token(story, gapped_token())) == {5}


def begun_by(**how: Any) -> Story:
    return Story().canary().created().token_revoked(closing=False, **how)


@pytest.mark.parametrize(
    "story",
    [
        # nothing found it gone afterwards
        lambda: Story().canary().created().token_revoked(closing=False).token_looked_up(),
        lambda: Story().canary().created().token_revoked(**WARNED).token_revoked(closing=False).token_looked_up(),
        # it has its answer, which says that nothing was done
        lambda: (
            Story()
            .canary()
            .created()
            .token_revoked(closing=False, request_id="same")
            .token_revoked(failed=True, request_id="same")
            .token_revoked(**WARNED)
            .token_looked_up()
        ),
        # somebody else's, or about another one
        lambda: Story().canary().created().token_revoked(closing=False, actor=STRANGER).token_revoked(**WARNED),
        lambda: Story().canary().created().token_revoked(closing=False).token_revoked(**WARNED, actor=STRANGER),
        lambda: Story().canary().created().token_revoked(closing=False, subject="hmac-other").token_revoked(**WARNED),
        # before it was made
        lambda: Story().canary().token_revoked(closing=False).created().token_revoked(**WARNED),
        lambda: Story().canary().created().token_revoked(closing=False, failed=True).token_revoked(**WARNED),
    ],
)
def test_a_revocation_without_an_answer_is_none_otherwise(story: Callable[[], Story]) -> None:
    proof = judge_token(story().token_looked_up().canary())
    assert 2 in failed(proof)
    assert unproven(proof)


@pytest.mark.parametrize("how", [{"failed": True}, {"closing": False}, {"subject": "hmac-other"}])
def test_a_token_revocation_that_is_none(how: dict[str, Any]) -> None:
    proof = judge_token(Story().canary().created().token_revoked(**how).token_looked_up().canary())
    assert 2 in failed(proof)
    assert unproven(proof)


@pytest.mark.parametrize("name", [ALIAS, ALIAS_HMAC])
def test_somebody_else_revoked_the_tokens_lease_first(name: str) -> None:
    by_path = token(alias=ALIAS, alias_lookup=ALIAS_HMAC)
    story = Story().canary().created().revoked(subject=name, actor=STRANGER).revoked(subject=ALIAS)
    assert unproven(judge_token(story.looked_up(subject=ALIAS_HMAC).canary(), by_path))


def test_a_token_without_an_alias_is_not_proven_by_a_nameless_lease() -> None:
    story = Story().canary().created().revoked(subject="").looked_up(subject="").canary()
    assert unproven(judge_token(story))


def test_tidying_tokens_is_a_hazard_to_a_token() -> None:
    for path in ("auth/token/tidy", "sys/leases/tidy", "sys/leases/revoke-force/auth/token"):
        story = Story().canary().created().hazard(path).token_revoked().token_looked_up().canary()
        assert failed(judge_token(story)) == {4}
    story = Story().canary().created().hazard("database/config/app").token_revoked().token_looked_up().canary()
    assert judge_token(story).verdict is Verdict.AUDIT_CONFIRMED


def test_an_expired_token_is_proven_by_vaults_clock() -> None:
    # expiry writes no line: the first canary after it has to say what time it is
    expiring = token(expires_at=START + timedelta(seconds=5), lookup_ops=frozenset(), reported=Verdict.LIVE)
    before = Story().canary().created().wait(3).canary()
    assert judge_token(before, expiring).verdict is Verdict.LIVE
    after = Story().canary().created().wait(6).canary()
    proof = judge_token(after, expiring)
    assert proof.verdict is Verdict.EXPIRED
    assert failed(proof) == set()
    assert is_proven(proof, target=False)
    assert not is_proven(proof, target=True)


def test_a_token_expires_at_its_instant_and_not_before() -> None:
    story = Story().canary().created().canary()
    last = story.canaries[-1].at
    assert judge_token(story, token(expires_at=last, lookup_ops=frozenset())).verdict is Verdict.EXPIRED
    later = token(expires_at=last + timedelta(microseconds=1), lookup_ops=frozenset())
    assert unproven(judge_token(story, later))
    assert unproven(judge_token(story, token(expires_at=None, lookup_ops=frozenset())))


def renewed(story: Story, seconds: object = 5, **how: Any) -> Story:
    return story.add(Kind.RENEWED, how.pop("subject", TOKEN), **{"detail": {"increment_s": seconds}, **how})


def test_a_renewed_token_is_over_when_its_last_renewal_is() -> None:
    expiring = token(expires_at=START + timedelta(seconds=5), lookup_ops=frozenset(), reported=Verdict.LIVE)
    story = renewed(Story().canary().created().wait(3)).wait(4).canary()
    assert judge_token(story, expiring).verdict is Verdict.LIVE
    assert judge_token(story.wait(2).canary(), expiring).verdict is Verdict.EXPIRED
    # the ledger's own time counts as well, where it is later
    later = replace(expiring, expires_at=START + timedelta(hours=1))
    assert judge_token(story, later).verdict is Verdict.LIVE


@pytest.mark.parametrize("seconds", [0, -5, 10**12, None])
def test_a_renewal_that_does_not_say_for_how_long_leaves_the_time_open(seconds: int | None) -> None:
    expiring = token(expires_at=START + timedelta(seconds=5), lookup_ops=frozenset())
    detail = {} if seconds is None else {"increment_s": seconds}
    story = renewed(Story().canary().created(), detail=detail).wait(3600).canary()
    assert unproven(judge_token(story, expiring))
    assert judge_token(
        renewed(Story().canary().created(), failed=True, detail=detail).wait(6).canary(), expiring
    ).verdict


def test_a_renewal_lets_a_token_live_for_what_its_answer_says_whatever_was_asked_for() -> None:
    expiring = token(expires_at=START, lookup_ops=frozenset(), reported=Verdict.LIVE)
    for asked in ({"increment_s": 3600}, {"increment_s": 0}, {}):
        story = renewed(Story().canary().created(), detail={**asked, "ttl_s": 5}).wait(4).canary()
        assert judge_token(story, expiring).verdict is Verdict.LIVE
        assert judge_token(story.wait(2).canary(), expiring).verdict is Verdict.EXPIRED


def test_a_token_lives_no_longer_than_its_role_lets_it_whatever_a_renewal_gave() -> None:
    """Vault shows no increment in the line of a request, and the answer of this one is not there."""
    expiring = token(expires_at=START, last_end=START + timedelta(seconds=20))
    story = renewed(Story().canary().created(), detail={}, closing=False, request_id="r").wait(10)
    story = story.token_looked_up().canary()
    assert judge_token(story, expiring).verdict is not Verdict.EXPIRED
    assert judge_token(story.wait(15).canary(), expiring).verdict is Verdict.EXPIRED
    assert unproven(judge_token(story, replace(expiring, last_end=None)))


def test_a_renewal_without_an_answer_may_still_be_under_way() -> None:
    expiring = token(expires_at=START + timedelta(seconds=5))
    story = renewed(Story().canary().created(), closing=False, request_id="r-lost").wait(60).canary()
    assert unproven(judge_token(story, expiring))
    # once Vault says that there is no such token, nothing can renew it
    assert judge_token(story.token_looked_up().canary(), expiring).verdict is Verdict.EXPIRED
    answered = renewed(renewed(Story().canary().created(), closing=False, request_id="r"), request_id="r")
    assert judge_token(answered.wait(6).canary(), expiring).verdict is Verdict.EXPIRED


def test_a_renewal_that_vault_denied_is_not_under_way_and_renews_nothing() -> None:
    expiring = token(expires_at=START + timedelta(seconds=5))
    detail = {"increment_s": 3600, "denied": True, "itself": True}
    story = renewed(Story().canary().created(), closing=False, request_id="r", failed=True, detail=detail)
    assert judge_token(story.wait(6).canary(), expiring).verdict is Verdict.EXPIRED
    # one without its answer that was not denied still is
    open_ = renewed(story, closing=False, request_id="r-2", failed=True)
    assert unproven(judge_token(open_.wait(60).canary(), expiring))


@pytest.mark.parametrize(("named", "proven"), [("hmac-sha256:itself", False), ("hmac-sha256:another", True)])
def test_a_renewal_that_names_the_token_itself_counts_as_well(named: str, proven: bool) -> None:
    expiring = token(expires_at=START + timedelta(seconds=5))
    story = Story().canary().created().add(Kind.UNWRAPPED, TOKEN, alias="hmac-sha256:itself")
    story = renewed(story, closing=False, request_id="r", subject="", token=named).wait(60).canary()
    assert (judge_token(story, expiring).verdict is Verdict.EXPIRED) is proven


def test_an_expiry_needs_its_issue_line_and_an_unbroken_stretch() -> None:
    expiring = token(expires_at=START + timedelta(seconds=5))
    assert unproven(judge_token(Story().canary().wait(6).canary(), expiring))
    assert unproven(judge_token(Story().canary().created().gap().wait(6).canary(), expiring))
    assert unproven(judge_token(Story().created().wait(6).canary(), expiring))
    assert unproven(judge_token(Story().canary().created().hazard("auth/token/tidy").wait(6).canary(), expiring))


def test_a_lease_never_expires_by_the_clock() -> None:
    # its backend may have failed to take it back: only a revocation and a lookup tell
    expiring = lease(expires_at=START + timedelta(seconds=5))
    assert unproven(judge(Story().canary().issued().wait(6).canary(), expiring))


# -- check 5 over a gap -----------------------------------------------------------------------------------

NEW = "hmac-token-with-another-salt"


def gapped(**changes: Any) -> Credential:
    return lease(**{"live_ops": frozenset({LIVE_OP}), "listing_ops": frozenset({LIST_OP}), **changes})


def gapped_token(**changes: Any) -> Credential:
    both = {"live_ops": frozenset({LIVE_OP}), "listing_ops": frozenset({LIST_OP}), "other_hmacs": frozenset({NEW})}
    return token(**{**both, **changes})


def begun() -> Story:
    """A lease's first stretch; after the gap there is a canary."""
    return Story().canary().issued().canary().gap().canary()


def over_gap() -> Story:
    return begun().alive().revoked().looked_up().listed().canary()


def over_gap_token() -> Story:
    """The audit device was made anew, with another salt."""
    story = Story().canary().created().canary().gap().canary().token_alive(subject=NEW)
    return story.token_revoked(subject=NEW).token_looked_up(subject=NEW).listed().canary()


OVER_A_GAP: list[tuple[str, Story]] = [
    ("alive, then revoked", over_gap()),
    ("listed before it was revoked", begun().alive().listed().revoked().looked_up().canary()),
    ("listed before it was seen alive", begun().listed().alive().revoked().looked_up().canary()),
    ("alive behind several gaps", begun().gap().gap().canary().alive().revoked().looked_up().listed().canary()),
    ("a gap after the revocation", begun().alive().revoked().gap().looked_up().listed().canary()),
    (
        "in another source",
        Story().canary().issued().elsewhere("node-2").alive().revoked().looked_up().listed().canary(),
    ),
    ("the file began anew", Story().canary().issued().restart().alive().revoked().looked_up().listed().canary()),
]


@pytest.mark.parametrize("story", [case[1] for case in OVER_A_GAP], ids=[case[0] for case in OVER_A_GAP])
def test_over_a_gap_a_listing_and_a_look_up_that_found_it_alive_prove(story: Story) -> None:
    proof = judge(story, gapped())
    assert failed(proof) == set()
    assert proof.verdict is Verdict.TARGET_CONFIRMED


def test_what_was_revoked_before_the_gap_needs_the_listing_alone() -> None:
    before = Story().canary().issued().revoked().canary().gap().canary().looked_up().listed().canary()
    proof = judge(before, gapped(live_ops=frozenset()))
    assert failed(proof) == set()
    assert proof.verdict is Verdict.TARGET_CONFIRMED


def test_the_evidence_over_a_gap_names_its_lines() -> None:
    story = over_gap()
    evidence = {check.n: check.evidence for check in judge(story, gapped()).checks}[5]
    assert isinstance(evidence, Gap)
    for line in story.lines:
        assert (line.line in (evidence.listing, evidence.line)) is (line.op in (LIVE_OP, LIST_OP))


NOT_LISTED: list[tuple[str, Callable[[Story], Story]]] = [
    ("nothing was listed", lambda s: s.looked_up().canary()),
    ("by somebody else", lambda s: s.looked_up().listed(actor=STRANGER).canary()),
    ("by the task's token", lambda s: s.looked_up().listed(actor=TOKEN).canary()),
    ("by nobody", lambda s: s.looked_up().listed(actor="").canary()),
    ("without a canary after it", lambda s: s.looked_up().canary().listed()),
    ("its canary came after another gap", lambda s: s.looked_up().canary().listed().gap().canary()),
    ("only its request line", lambda s: s.looked_up().listed(closing=False).canary()),
    ("it failed", lambda s: s.looked_up().listed(failed=True).canary()),
    ("its line does not show what was listed", lambda s: s.looked_up().listed(detail={"elided": True}).canary()),
    ("it left something unaccounted for", lambda s: s.looked_up().listed(op="op-list-2").canary()),
    ("in a later stretch", lambda s: s.looked_up().canary().gap().listed().canary()),
    ("in another source", lambda s: s.looked_up().canary().elsewhere("node-2").listed().canary()),
]


@pytest.mark.parametrize("end", [case[1] for case in NOT_LISTED], ids=[case[0] for case in NOT_LISTED])
def test_over_a_gap_nothing_is_proven_without_a_listing(end: Callable[[Story], Story]) -> None:
    revoked_after = begun().alive().revoked()
    revoked_before = Story().canary().issued().revoked().canary().gap().canary()
    for story in (revoked_after, revoked_before):
        proof = judge(end(story), gapped())
        assert failed(proof) == {5}
        assert proof.verdict is Verdict.GONE


def test_after_a_second_gap_a_look_up_that_has_a_listing_beside_it_counts() -> None:
    """Each try looks up and lists anew. The first look-up that lies between two gaps shows nothing by itself."""
    between = begun().alive().revoked().looked_up().canary().gap().canary()
    proof = judge(between.looked_up().listed().canary(), gapped())
    assert failed(proof) == set()
    assert shown(between.lines[-2], Lack.GONE_LINE) == proof.checks[2].evidence
    # without a gap before it the first one counts, whatever was listed later
    whole = Story().canary().issued().revoked().looked_up().canary()
    first = whole.lines[-1].line
    proof = judge(whole.gap().canary().looked_up().listed().canary(), gapped())
    assert failed(proof) == set()
    assert getattr(proof.checks[2].evidence, "sha256", None) == first


def test_a_listing_before_the_gap_does_not_know_what_the_gap_hid() -> None:
    story = Story().canary().issued().listed().canary().gap().canary().alive().revoked().looked_up().canary()
    assert failed(judge(story, gapped())) == {5}


NOT_ALIVE: list[tuple[str, Callable[[], Story]]] = [
    ("nobody looked", lambda: begun().revoked()),
    ("only before the gap", lambda: Story().canary().issued().alive().canary().gap().canary().revoked()),
    ("by somebody else", lambda: begun().alive(actor=STRANGER).revoked()),
    ("by the task's token", lambda: begun().alive(actor=TOKEN).revoked()),
    ("by nobody", lambda: begun().alive(actor="").revoked()),
    ("after the revocation", lambda: begun().revoked().alive()),
    ("it failed", lambda: begun().alive(failed=True, error=INVALID_HMAC).revoked()),
    ("only its request line", lambda: begun().alive(closing=False).revoked()),
    ("another look-up", lambda: begun().alive(op="op-else").revoked()),
    ("a look-up without an id", lambda: begun().alive(op="").revoked()),
    ("another gap before the revocation", lambda: begun().alive().canary().gap().canary().revoked()),
    ("in another source", lambda: begun().elsewhere("node-2").alive().elsewhere("audit").revoked()),
]


@pytest.mark.parametrize("story", [case[1] for case in NOT_ALIVE], ids=[case[0] for case in NOT_ALIVE])
def test_over_a_gap_nothing_is_proven_unless_it_was_seen_alive_after_it(story: Callable[[], Story]) -> None:
    evidence = story().looked_up().listed().canary()
    proof = judge(evidence, gapped(), probed=None)
    assert failed(proof) == {5, 6}
    assert proof.verdict is Verdict.GONE
    assert proof.checks[4].evidence == Missing(lack=Lack.NOT_SEEN_ALIVE)
    # the target's own word makes up for it: a record that was taken away would have left the login working
    assert failed(judge(evidence, gapped())) == set()


def test_an_operation_without_an_id_is_none_of_ours() -> None:
    nameless = begun().alive(op="").revoked().looked_up().listed(op="").canary()
    assert failed(judge(nameless, gapped(live_ops=frozenset(), listing_ops=frozenset()))) == {5}


def test_the_stretches_around_a_gap_need_their_canaries_all_the_same() -> None:
    # without a canary before the issue it has to have been seen alive, as over a gap
    no_first = Story().issued().canary().gap().canary().alive().revoked().looked_up().listed().canary()
    assert failed(judge(no_first, gapped())) == set()
    assert failed(judge(no_first, gapped(live_ops=frozenset()), probed=None)) == {5, 6}
    assert failed(judge(no_first, gapped(listing_ops=frozenset()))) == {5}
    one_stretch = Story().issued().canary().revoked().looked_up().listed().canary()
    assert failed(judge(one_stretch, gapped(), probed=None)) == {5, 6}
    no_last = begun().alive().revoked().looked_up().listed().gap().canary()
    assert failed(judge(no_last, gapped())) == {5}


@pytest.mark.parametrize("path", ["sys/leases/tidy", "sys/leases/revoke-force/database", "sys/mounts/database"])
def test_a_hazard_is_one_unless_the_credential_was_seen_alive_after_it(path: str) -> None:
    after = Story().canary().issued().canary().alive().hazard(path).revoked().looked_up().canary()
    assert failed(judge(after, gapped())) == {4}
    unseen = Story().canary().issued().canary().hazard(path).revoked().looked_up().canary()
    assert failed(judge(unseen, gapped())) == {4}
    before = Story().canary().issued().canary().hazard(path).alive().revoked().looked_up().canary()
    assert failed(judge(before, gapped())) == set()
    # by somebody else, or by a look-up that failed, it was not seen
    assert failed(judge(before, gapped(live_ops=frozenset()))) == {4}
    over_a_gap = begun().hazard(path).alive().revoked().looked_up().listed().canary()
    assert failed(judge(over_a_gap, gapped())) == set()
    between = begun().alive().hazard(path).revoked().looked_up().listed().canary()
    assert failed(judge(between, gapped())) == {4}


@pytest.mark.parametrize("path", ["database/config/app", "database/roles/app-readonly"])
def test_what_changes_the_revocation_itself_is_a_hazard_whoever_is_alive(path: str) -> None:
    before = Story().canary().issued().canary().hazard(path).alive().revoked().looked_up().canary()
    assert failed(judge(before, gapped())) == {4}


def test_a_contiguous_stretch_needs_neither_listing_nor_look_up() -> None:
    assert failed(judge(good(), gapped(live_ops=frozenset(), listing_ops=frozenset()))) == set()


def test_a_token_is_proven_over_a_new_salt() -> None:
    proof = judge_token(over_gap_token(), gapped_token())
    assert failed(proof) == set()
    assert proof.verdict is Verdict.AUDIT_CONFIRMED


@pytest.mark.parametrize("other_hmacs", [frozenset(), frozenset({"hmac-else"}), frozenset({""})], ids=str)
def test_another_hmac_is_the_tokens_only_where_it_is_known_to_be(other_hmacs: frozenset[str]) -> None:
    proof = judge_token(over_gap_token(), gapped_token(other_hmacs=other_hmacs))
    assert failed(proof) == {2, 3, 4, 5}
    assert unproven(proof)


def test_a_token_is_never_known_to_be_issued_by_another_hmac() -> None:
    # what was issued is what the create line showed: only then is there an interval to speak of
    story = Story().canary().created(subject=NEW).token_revoked().token_looked_up().canary()
    assert failed(judge_token(story, gapped_token())) == {1, 4, 5}


def test_a_lease_has_no_other_names() -> None:
    story = Story().canary().issued().revoked(subject=NEW).looked_up().canary()
    assert failed(judge(story, gapped(other_hmacs=frozenset({NEW})))) == {2}
    story = Story().canary().issued().revoked().looked_up(subject=NEW).canary()
    assert 3 in failed(judge(story, gapped(other_hmacs=frozenset({NEW}))))


def test_an_expiry_over_a_gap_needs_a_listing() -> None:
    expiring = gapped_token(expires_at=START + timedelta(seconds=5), lookup_ops=frozenset(), live_ops=frozenset())
    story = Story().canary().created().canary().gap().wait(6).listed().canary()
    proof = judge_token(story, expiring)
    assert failed(proof) == set()
    assert proof.verdict is Verdict.EXPIRED
    unlisted = Story().canary().created().canary().gap().wait(6).canary()
    assert failed(judge_token(unlisted, expiring)) == {5}


# -- laws -------------------------------------------------------------------------------------------------


def stories() -> list[tuple[Credential, AuditTrail]]:
    """Good trails of every kind, each with harmless lines in it."""
    busy = Story().canary().canary().issued().add(Kind.USED, TOKEN, actor=TOKEN).revoked(failed=True).revoked()
    busy.hazard("aws/config/root").canary().looked_up().looked_up().canary().canary()
    by_path = Story().canary().created().revoked(subject=ALIAS).looked_up(subject=ALIAS_HMAC).canary()
    expired = Story().canary().created().canary().wait(6).canary().canary()
    return [
        (lease(), good().trail()),
        (lease(), busy.trail()),
        (token(), good_token().trail()),
        (token(alias=ALIAS, alias_lookup=ALIAS_HMAC), by_path.trail()),
        (token(expires_at=START + timedelta(seconds=5), lookup_ops=frozenset()), expired.trail()),
        *((gapped(), story.trail()) for _, story in OVER_A_GAP),
        (gapped_token(), over_gap_token().trail()),
        (gapped_token(), never_ended(Story().canary().created()).trail()),
        (lease(), Story().canary().issued().revoked().not_in_storage().canary().trail()),
    ]


GOOD = stories()
KEPT = st.lists(st.booleans(), min_size=16, max_size=16)
SESSIONS = st.none() | st.integers(0, 2)
PROBES = st.none() | st.builds(probed, refused=st.booleans(), open_sessions=SESSIONS)


def parts(trail: AuditTrail, lines: list[bool], canaries: list[bool]) -> AuditTrail:
    return replace(
        trail,
        observations=tuple(o for o, keep in zip(trail.observations, lines, strict=False) if keep),
        canaries=tuple(c for c, keep in zip(trail.canaries, canaries, strict=False) if keep),
    )


@pytest.mark.parametrize(("credential", "trail"), GOOD)
def test_the_trails_of_the_laws_are_good(credential: Credential, trail: AuditTrail) -> None:
    assert not unproven(judge_credential(credential, trail, probed=DEAD_TARGET, target=False))


@given(st.sampled_from(GOOD), KEPT, KEPT, PROBES)
def test_less_evidence_never_gives_a_better_verdict(
    good_: tuple[Credential, AuditTrail], lines: list[bool], canaries: list[bool], probed: ProbeResult | None
) -> None:
    credential, trail = good_
    whole_ = judge_credential(credential, trail, probed=DEAD_TARGET, target=True)
    part = parts(trail, lines, canaries)
    assert rank(judge_credential(credential, part, probed=probed, target=True).verdict) <= rank(whole_.verdict)


@given(st.sampled_from(GOOD), KEPT, KEPT, KEPT, KEPT, st.booleans())
def test_of_two_trails_the_one_with_less_evidence_never_gives_the_better_verdict(
    good_: tuple[Credential, AuditTrail],
    lines: list[bool],
    canaries: list[bool],
    fewer_lines: list[bool],
    fewer_canaries: list[bool],
    target: bool,
) -> None:
    credential, trail = good_
    more = parts(trail, lines, canaries)
    less = parts(more, fewer_lines, fewer_canaries)
    verdicts = [judge_credential(credential, t, probed=DEAD_TARGET, target=target).verdict for t in (less, more)]
    assert rank(verdicts[0]) <= rank(verdicts[1])


@pytest.mark.parametrize("over_a_gap", [True, False])
def test_a_token_whose_ttl_is_over_is_dead_though_its_revocation_is_not_proven(over_a_gap: bool) -> None:
    expiring = gapped_token(expires_at=START + timedelta(seconds=5))
    # nobody saw it alive after the gap, or nobody looked whether it was gone
    story = Story().canary().created().canary()
    story = story.gap().token_revoked().token_looked_up().canary() if over_a_gap else story.token_revoked()
    story.wait(6).listed().canary()
    with_it = judge_token(story, expiring)
    story.lines = [line for line in story.lines if line.kind is not Kind.TOKEN_REVOKED]
    without_it = judge_token(story, expiring)
    assert without_it.verdict is Verdict.EXPIRED
    assert rank(with_it.verdict) >= rank(without_it.verdict)


@given(st.sampled_from(GOOD), st.data())
def test_any_one_piece_of_evidence_taken_away_never_gives_a_better_verdict(
    good_: tuple[Credential, AuditTrail], data: st.DataObject
) -> None:
    credential, trail = good_
    lost = data.draw(st.integers(0, len(trail.observations) - 1))
    part = replace(trail, observations=trail.observations[:lost] + trail.observations[lost + 1 :])
    before = judge_credential(credential, trail, probed=DEAD_TARGET, target=True)
    after = judge_credential(credential, part, probed=DEAD_TARGET, target=True)
    assert rank(after.verdict) <= rank(before.verdict)


@pytest.mark.parametrize("lost", range(3))
def test_each_of_the_three_lines_is_needed(lost: int) -> None:
    for story, judged in ((good(), judge), (good_token(), judge_token)):
        del story.lines[lost]
        assert unproven(judged(story))


@given(st.sampled_from(GOOD), KEPT, KEPT, st.lists(others((0, 1200)), max_size=6), st.booleans())
def test_lines_by_others_never_give_a_better_verdict(
    good_: tuple[Credential, AuditTrail], lines: list[bool], canaries: list[bool], more: list[Observation], target: bool
) -> None:
    credential, trail = good_
    # issue lines are Vault's own word that something was issued, whoever asked: what they begin is not forged
    more = [o for o in more if o.kind not in (Kind.LEASE_ISSUED, Kind.TOKEN_CREATED)]
    part = parts(trail, lines, canaries)
    before = judge_credential(credential, part, probed=DEAD_TARGET, target=target)
    mixed = sorted([*part.observations, *more], key=lambda o: (o.place.source, o.place.epoch, o.place.offset))
    after = judge_credential(credential, replace(part, observations=tuple(mixed)), probed=DEAD_TARGET, target=target)
    assert rank(after.verdict) <= rank(before.verdict)


@given(
    st.lists(others((0, 1200)), max_size=8),
    st.sampled_from([lease(), token(), token(alias=ALIAS, alias_lookup=ALIAS_HMAC)]),
)
def test_lines_by_others_alone_prove_no_lease_dead(more: list[Observation], credential: Credential) -> None:
    story = Story().canary()
    trail = replace(story.wait(20).canary().trail(), observations=tuple(more))
    assert unproven(judge_credential(replace(credential, expires_at=None), trail, probed=DEAD_TARGET, target=False))


# -- alive again ------------------------------------------------------------------------------------------


def test_what_is_found_alive_again_is_not_gone_until_it_is_gone_again() -> None:
    """A Vault that was restored from a snapshot has back what was revoked."""
    again = good().alive().canary()
    assert {2, 3} <= failed(judge(again, gapped()))
    assert judge(again, gapped()).verdict in (Verdict.GONE, Verdict.ACKNOWLEDGED)
    # and then a look-up alone is not its end
    assert 2 in failed(judge(again.looked_up().canary(), gapped()))
    assert failed(judge(good().alive().revoked().looked_up().canary(), gapped())) == set()
    # by somebody else it was not found
    assert failed(judge(good().alive(actor=STRANGER).canary(), gapped())) == set()


def test_a_token_that_was_renewed_is_not_over_when_it_was_to_be() -> None:
    expiring = gapped_token(expires_at=START + timedelta(seconds=5))
    story = Story().canary().created().canary().wait(6).listed().canary()
    assert judge_token(story, expiring).verdict is Verdict.EXPIRED
    story.lines.insert(1, replace(story.lines[0], kind=Kind.RENEWED, line="f" * 64))
    assert judge_token(story, expiring).verdict is not Verdict.EXPIRED
