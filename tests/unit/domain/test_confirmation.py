"""Only evidence proves. Each check fails alone, each lie that Vault can tell is seen through, and nothing that is
taken away from a good trail, or that others add to it, makes a verdict better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.domain.confirmation import Check, Credential, Probed, Proof, confirm, is_proven
from jitvault.domain.evidence import Canary, Trail
from jitvault.domain.lifecycle import LADDER, Verdict
from jitvault.domain.observation import Kind, Observation, Place
from jitvault.domain.quiet import is_quiet

START = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
WORKER, OLD_WORKER, TOKEN, STRANGER = "hmac-worker", "hmac-worker-before", "hmac-token", "hmac-stranger"
LEASE = "database/creds/app-ro/afiJklUfE3Mdm2cqvTtmwdss"
LEASE_HMAC, ALIAS, ALIAS_HMAC = "hmac-lease", "auth/token/create/jitvault-15m/h123", "hmac-alias"
INVALID, INVALID_HMAC = "invalid lease", "hmac-invalid-lease"
LOOKUP_OP = "op-lookup"
DEAD_TARGET = Probed(refused=True, open_sessions=0, evidence="refused")


@dataclass
class Story:
    """A trail under construction: each line stands 100 bytes and 10 ms after the one before it."""

    epoch: int = 1
    source: str = "audit"
    lines: list[Observation] = field(default_factory=list)
    canaries: list[Canary] = field(default_factory=list)
    workers: frozenset[str] = frozenset({WORKER, OLD_WORKER})
    _tick: int = 0
    _skipped: int = 0

    def _next(self) -> tuple[Place, datetime]:
        self._tick += 1
        place = Place(self.source, self.epoch, 100 * (self._tick - self._skipped))
        return place, START + timedelta(milliseconds=10 * self._tick)

    def wait(self, seconds: float) -> Story:
        self._tick += int(seconds * 100)
        return self

    def gap(self) -> Story:
        self.epoch += 1
        return self

    def restart(self) -> Story:
        """A gap after which the file begins anew: time goes on, offsets do not."""
        self._skipped = self._tick
        return self.gap()

    def canary(self) -> Story:
        place, at = self._next()
        self.canaries.append(Canary(place, at))
        return self

    def add(self, kind: Kind, subject: str = "", **how: Any) -> Story:
        place, at = self._next()
        line = Observation(
            line=f"{len(self.lines):064x}",
            place=place,
            at=at,
            closing=how.pop("closing", True),
            kind=kind,
            request_id=how.pop("request_id", f"r-{self._tick}"),
            path=how.pop("path", kind.value),
            subject=subject,
            actor=how.pop("actor", WORKER),
            op=how.pop("op", ""),
            remote="127.0.0.1",
            failed=how.pop("failed", False),
            error=how.pop("error", ""),
            detail=how.pop("detail", {}),
        )
        assert not how
        self.lines.append(line)
        return self

    # what happens to a lease
    def issued(self, **how: Any) -> Story:
        return self.add(Kind.LEASE_ISSUED, LEASE, **{"actor": TOKEN, **how})

    def revoked(self, **how: Any) -> Story:
        return self.add(Kind.LEASE_REVOKED, how.pop("subject", LEASE), **how)

    def looked_up(self, **how: Any) -> Story:
        gone = {"op": LOOKUP_OP, "failed": True, "error": INVALID_HMAC, **how}
        return self.add(Kind.LEASE_LOOKUP, gone.pop("subject", LEASE_HMAC), **gone)

    def hazard(self, path: str, **how: Any) -> Story:
        return self.add(Kind.HAZARD, path=path, **{"actor": STRANGER, **how})

    # what happens to a token
    def created(self, **how: Any) -> Story:
        return self.add(Kind.TOKEN_CREATED, how.pop("subject", TOKEN), **how)

    def token_revoked(self, **how: Any) -> Story:
        return self.add(Kind.TOKEN_REVOKED, how.pop("subject", TOKEN), **how)

    def token_looked_up(self, **how: Any) -> Story:
        gone = {"op": LOOKUP_OP, "failed": True, "error": "1 error occurred: * invalid accessor", **how}
        return self.add(Kind.TOKEN_LOOKUP, gone.pop("subject", TOKEN), **gone)

    def trail(self) -> Trail:
        return Trail(tuple(self.lines), tuple(self.canaries), self.workers)


def lease(**changes: Any) -> Credential:
    made = Credential(
        kind="lease",
        subject=LEASE,
        lookup_subject=LEASE_HMAC,
        mount="database",
        claimed=Verdict.GONE,
        lookup_ops=frozenset({LOOKUP_OP}),
        gone_errors=frozenset({INVALID, INVALID_HMAC}),
    )
    return replace(made, **changes)


def token(**changes: Any) -> Credential:
    made = Credential(
        kind="token",
        subject=TOKEN,
        lookup_subject=TOKEN,
        mount="auth/token",
        claimed=Verdict.GONE,
        lookup_ops=frozenset({LOOKUP_OP}),
        gone_errors=frozenset({"invalid accessor", INVALID, INVALID_HMAC}),
        expires_at=START + timedelta(hours=1),
    )
    return replace(made, **changes)


def good() -> Story:
    """A lease's whole life with everything that proves its end."""
    return Story().canary().issued().revoked().looked_up().canary()


def good_token() -> Story:
    return Story().canary().created().token_revoked().token_looked_up().canary()


def judge(story: Story, credential: Credential | None = None, *, probed: Probed | None = DEAD_TARGET) -> Proof:
    """The strictest question: is it dead, also by the target?"""
    return confirm(credential or lease(), story.trail(), probed=probed, target=True)


def judge_token(story: Story, credential: Credential | None = None) -> Proof:
    return confirm(credential or token(), story.trail(), probed=None, target=False)


def failed(proof: Proof) -> set[int]:
    return {check.n for check in proof.checks if not check.ok}


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
    proof = confirm(lease(), good().trail(), probed=None, target=False)
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
        assert line.line[:16] in evidence[n]
    assert "bytes 100 to 500" in evidence[5]


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
    ("6 accepted", 6, lambda: judge(good(), probed=Probed(refused=False, open_sessions=0, evidence="ok"))),
    ("6 a session", 6, lambda: judge(good(), probed=Probed(refused=True, open_sessions=1, evidence="1 open"))),
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


EMPTY = Trail((), (), frozenset())


@pytest.mark.parametrize("credential", [lease(), token(), lease(lookup_ops=frozenset()), token(alias=ALIAS)])
@pytest.mark.parametrize("claimed", list(Verdict))
def test_empty_evidence_fails_every_check(credential: Credential, claimed: Verdict) -> None:
    proof = confirm(replace(credential, claimed=claimed), EMPTY, probed=None, target=True)
    assert failed(proof) == {1, 2, 3, 4, 5, 6}
    assert unproven(proof)
    assert not is_proven(proof, target=False)
    quiet = is_quiet(frozenset({TOKEN}), EMPTY, leases_dead=True, now_canary=START)
    assert not quiet.ok


def test_an_empty_name_proves_nothing() -> None:
    nameless = token(subject="", lookup_subject="", alias="", alias_lookup="", expires_at=None)
    story = Story().canary().created(subject="").revoked(subject="").looked_up(subject="").canary()
    assert unproven(judge_token(story, nameless))


@pytest.mark.parametrize("claimed", list(Verdict))
def test_a_claim_is_never_taken_for_a_proof(claimed: Verdict) -> None:
    story = Story().canary().issued().canary()
    proof = judge(story, lease(claimed=claimed, lookup_ops=frozenset()))
    assert unproven(proof)
    if claimed not in (Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED):
        assert proof.verdict is claimed


@pytest.mark.parametrize("claimed", [Verdict.REVOKE_FAILED, Verdict.IRREVOCABLE])
def test_what_failed_is_not_gone_because_an_older_lookup_said_so(claimed: Verdict) -> None:
    assert judge(Story(), lease(claimed=claimed)).verdict is claimed


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
        assert path in next(check.evidence for check in proof.checks if check.n == 4)
        assert unproven(proof)


@pytest.mark.parametrize("path", ["aws/config/root", "database2/config/app", "sys/mounts/kv", "data/config/base"])
def test_what_happens_to_another_mount_is_no_matter(path: str) -> None:
    story = Story().canary().issued().hazard(path).revoked().looked_up().canary()
    assert judge(story).verdict is Verdict.TARGET_CONFIRMED


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
        confirm(lease(), replace(story.trail(), observations=(*story.lines, between)), probed=None, target=False)
    )
    early = replace(other, at=START)
    assert not unproven(
        confirm(lease(), replace(story.trail(), observations=(early, *story.lines)), probed=None, target=False)
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
    expiring = token(expires_at=START + timedelta(seconds=5), lookup_ops=frozenset(), claimed=Verdict.LIVE)
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


# -- check 7: quiet ---------------------------------------------------------------------------------------


def quiet(story: Story, *, after: float = 2, dead: bool = True, tokens: tuple[str, ...] = (TOKEN,)) -> Check:
    """Check 7 with the newest canary `after` seconds behind the story's last line."""
    last = max((line.at for line in story.lines), default=START)
    canary = last + timedelta(seconds=after)
    return is_quiet(frozenset(tokens), story.trail(), leases_dead=dead, now_canary=canary)


def used(story: Story, **how: Any) -> Story:
    return story.add(Kind.USED, TOKEN, **{"actor": TOKEN, **how})


def whole() -> Story:
    story = good_token()
    used(story, request_id="a", closing=False)
    return used(story, request_id="a").token_revoked()


def test_a_task_whose_token_says_nothing_more_is_quiet() -> None:
    check = quiet(whole())
    assert check.ok
    assert "2000 ms" in check.evidence
    assert check.as_json() == {"n": 7, "name": "quiet", "ok": True, "evidence": check.evidence}


@pytest.mark.parametrize(("after", "ok"), [(0, False), (0.5, False), (0.999999, False), (1, True), (1.5, True)])
def test_a_second_has_to_pass_by_vaults_clock(after: float, ok: bool) -> None:
    assert quiet(whole(), after=after).ok is ok


def test_quiet_needs_a_canary() -> None:
    assert not is_quiet(frozenset({TOKEN}), whole().trail(), leases_dead=True, now_canary=None).ok


def test_quiet_needs_every_lease_dead() -> None:
    assert not quiet(whole(), dead=False).ok


@pytest.mark.parametrize("kind", [Kind.USED, Kind.LEASE_ISSUED, Kind.DENIED, Kind.LEASE_REVOKED])
def test_a_request_without_its_answer_is_not_quiet(kind: Kind) -> None:
    # a read in flight while its token is revoked can still get a lease
    pending = whole().add(kind, "x", actor=TOKEN, closing=False, request_id="in-flight")
    check = quiet(pending, after=1000)
    assert not check.ok
    assert "in-flight" in check.evidence
    answered = pending.add(kind, "x", actor=TOKEN, request_id="in-flight")
    assert quiet(answered).ok


def test_a_late_act_of_the_token_starts_the_second_anew() -> None:
    story = whole().wait(5)
    used(story)
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
    assert quiet(Story(), tokens=()).ok
    assert not quiet(Story(), tokens=(), dead=False).ok
    assert not is_quiet(frozenset(), EMPTY, leases_dead=True, now_canary=None).ok


# -- laws -------------------------------------------------------------------------------------------------


def stories() -> list[tuple[Credential, Trail]]:
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
    ]


GOOD = stories()
KEPT = st.lists(st.booleans(), min_size=16, max_size=16)
PROBES = st.none() | st.builds(Probed, refused=st.booleans(), open_sessions=st.integers(0, 2), evidence=st.just("x"))


@pytest.mark.parametrize(("credential", "trail"), GOOD)
def test_the_trails_of_the_laws_are_good(credential: Credential, trail: Trail) -> None:
    assert not unproven(confirm(credential, trail, probed=DEAD_TARGET, target=False))


@given(st.sampled_from(GOOD), KEPT, KEPT, PROBES)
def test_less_evidence_never_gives_a_better_verdict(
    good_: tuple[Credential, Trail], lines: list[bool], canaries: list[bool], probed: Probed | None
) -> None:
    credential, trail = good_
    whole_ = confirm(credential, trail, probed=DEAD_TARGET, target=True)
    part = replace(
        trail,
        observations=tuple(o for o, keep in zip(trail.observations, lines, strict=False) if keep),
        canaries=tuple(c for c, keep in zip(trail.canaries, canaries, strict=False) if keep),
    )
    assert rank(confirm(credential, part, probed=probed, target=True).verdict) <= rank(whole_.verdict)


@given(st.sampled_from(GOOD), st.data())
def test_any_one_piece_of_evidence_taken_away_never_gives_a_better_verdict(
    good_: tuple[Credential, Trail], data: st.DataObject
) -> None:
    credential, trail = good_
    lost = data.draw(st.integers(0, len(trail.observations) - 1))
    part = replace(trail, observations=trail.observations[:lost] + trail.observations[lost + 1 :])
    before = confirm(credential, trail, probed=DEAD_TARGET, target=True)
    after = confirm(credential, part, probed=DEAD_TARGET, target=True)
    assert rank(after.verdict) <= rank(before.verdict)


@pytest.mark.parametrize("lost", range(3))
def test_each_of_the_three_lines_is_needed(lost: int) -> None:
    for story, judged in ((good(), judge), (good_token(), judge_token)):
        del story.lines[lost]
        assert unproven(judged(story))


def others(at: tuple[int, int]) -> st.SearchStrategy[Observation]:
    """Any line that somebody who is not the worker can leave behind, anywhere in the stream."""
    return st.builds(
        Observation,
        line=st.text("0123456789abcdef", min_size=64, max_size=64),
        place=st.builds(Place, st.sampled_from(["audit", "node-2"]), st.integers(1, 2), st.integers(*at)),
        at=st.integers(-1000, 10_000).map(lambda ms: START + timedelta(milliseconds=ms)),
        closing=st.booleans(),
        kind=st.sampled_from([k for k in Kind if k is not Kind.TOKEN_REVOKED]),
        request_id=st.sampled_from(["r-1", "r-2", "x"]),
        path=st.sampled_from(["sys/leases/tidy", "database/config/app", "kv/data/x", "sys/leases/revoke/" + LEASE]),
        subject=st.sampled_from([LEASE, LEASE_HMAC, TOKEN, ALIAS, ALIAS_HMAC, ""]),
        actor=st.sampled_from([TOKEN, STRANGER, ""]),
        op=st.sampled_from([LOOKUP_OP, "", "op-x"]),
        remote=st.just("127.0.0.1"),
        failed=st.booleans(),
        error=st.sampled_from(["", INVALID, INVALID_HMAC, "invalid accessor", "permission denied"]),
        detail=st.sampled_from([{}, {"denied": True}, {"warnings": ["x"]}]),
    )


@given(st.sampled_from(GOOD), KEPT, KEPT, st.lists(others((0, 1200)), max_size=6), st.booleans())
def test_lines_by_others_never_give_a_better_verdict(
    good_: tuple[Credential, Trail], lines: list[bool], canaries: list[bool], more: list[Observation], target: bool
) -> None:
    credential, trail = good_
    # issue lines are Vault's own word that something was issued, whoever asked: what they begin is not forged
    more = [o for o in more if o.kind not in (Kind.LEASE_ISSUED, Kind.TOKEN_CREATED)]
    part = replace(
        trail,
        observations=tuple(o for o, keep in zip(trail.observations, lines, strict=False) if keep),
        canaries=tuple(c for c, keep in zip(trail.canaries, canaries, strict=False) if keep),
    )
    before = confirm(credential, part, probed=DEAD_TARGET, target=target)
    mixed = sorted([*part.observations, *more], key=lambda o: (o.place.source, o.place.epoch, o.place.offset))
    after = confirm(credential, replace(part, observations=tuple(mixed)), probed=DEAD_TARGET, target=target)
    assert rank(after.verdict) <= rank(before.verdict)


@given(
    st.lists(others((0, 1200)), max_size=8),
    st.sampled_from([lease(), token(), token(alias=ALIAS, alias_lookup=ALIAS_HMAC)]),
)
def test_lines_by_others_alone_prove_no_lease_dead(more: list[Observation], credential: Credential) -> None:
    story = Story().canary()
    trail = replace(story.wait(20).canary().trail(), observations=tuple(more))
    assert unproven(confirm(replace(credential, expires_at=None), trail, probed=DEAD_TARGET, target=False))


@given(st.lists(others((0, 1200)), max_size=6))
def test_lines_by_others_never_make_a_task_quiet(more: list[Observation]) -> None:
    story = whole()
    used(story, closing=False, request_id="in-flight")
    trail = story.trail()
    noisy = replace(trail, observations=(*trail.observations, *more))
    canary = START + timedelta(minutes=5)
    answered = any(o.request_id == "in-flight" and o.closing for o in noisy.observations)
    assert not answered
    assert not is_quiet(frozenset({TOKEN}), noisy, leases_dead=True, now_canary=canary).ok
