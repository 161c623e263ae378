"""Vault does what it is asked and the answer does not come, or it says that it is asked too often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest
import requests
from go_between import Fate, Moment
from hands import without_a_token
from invariants import at_target, check, check_over, deliveries, live_tokens, reasons, verdicts
from psycopg import sql
from rig import PREFIX, Held, Rig
from stage import ALL, Stage, hasty, patient, until_done

from jitvault.lifecycle.revocation import revoke
from jitvault.model.event_bodies import EndCause
from jitvault.model.states import EndReason

Spec = Callable[..., Path]

CREATE = "PUT auth/token/create/"
LOOK_AT_TOKEN = "PUT auth/token/lookup-accessor"
DELIVER = "PUT jitvault-inbox/data/"
REVOKE_TOKEN = "PUT auth/token/revoke-accessor"
REVOKE_LEASE = "PUT sys/leases/revoke/"
LOOK_AT_LEASE = "PUT sys/leases/lookup$"
ALWAYS = 1_000


@pytest.fixture
def rig(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    hasty(monkeypatch, 0.7)
    yield stage.rig(tmp_path)
    stage.between.clear()


def holding(rig: Rig, file: Path, leases: int) -> Held:
    """A task that is active and has several leases."""
    held = rig.active(file)
    for _ in range(leases - 1):
        rig.vault(held.token).read(PREFIX)
    rig("operator", "status", file.stem)
    assert len(rig.record(file.stem).leases) == leases
    return held


# -- done, and the answer is lost --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [CREATE, LOOK_AT_TOKEN, DELIVER])
def test_an_answer_that_comes_too_late_during_a_grant(stage: Stage, rig: Rig, spec: Spec, where: str) -> None:
    file = spec()
    held_back = stage.between.when(where, "after", fate=Fate.HOLD)
    first = rig("operator", "grant", file, code=5)
    assert held_back.struck == 1
    assert "was lost" in first.error["message"]
    assert "same command again" in first.error["hint"]
    check(rig, first)
    until_done(rig, "grant", file, watch=lambda result: check(rig, result))
    # what was made and perhaps delivered is dead; the one that lives was delivered once
    (token,) = live_tokens(rig)
    *earlier, last = rig.record(file.stem).grants
    assert token["meta"]["jitvault_grant"] == last.grant_id
    assert [grant.settled for grant in earlier] == [True]
    assert set(deliveries(rig, file.stem).values()) == {1}


@pytest.mark.parametrize("where", [REVOKE_TOKEN, LOOK_AT_LEASE, *((LOOK_AT_TOKEN, REVOKE_LEASE) if ALL else ())])
def test_an_answer_that_comes_too_late_during_a_complete(stage: Stage, rig: Rig, spec: Spec, where: str) -> None:
    file = spec()
    held = rig.active(file)
    held_back = stage.between.when(where, "after", fate=Fate.HOLD)
    first = rig("operator", "complete", file.stem, code=None)
    assert held_back.struck == 1
    assert first.code in (0, 5, 6)
    assert not rig.is_live(held.token)
    assert not at_target(rig, rig.record(file.stem))
    check(rig, first)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed"]
    check_over(rig, file.stem)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_token_that_cannot_be_ended_or_seen_keeps_no_lease_alive(
    stage: Stage, rig: Rig, spec: Spec, moment: Moment
) -> None:
    """One credential that fails does not stop the others: each is taken back as far as it can be."""
    file = spec()
    holding(rig, file, 3)
    for where in (REVOKE_TOKEN, LOOK_AT_TOKEN):
        stage.between.when(where, moment, fate=Fate.LOSE, times=ALWAYS)
    first = rig("operator", "complete", file.stem, code=None)
    assert first.code in (5, 6)
    ended = rig.record(file.stem)
    assert ended.task.state == "ending"
    assert not [lease.lease_id for lease in ended.leases if rig.lease_is_live(lease.lease_id)]
    assert not at_target(rig, ended)
    check(rig, first)
    stage.between.clear()
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    check_over(rig, file.stem)


@pytest.mark.usefixtures("hurried")
def test_a_lease_whose_answers_are_lost_does_not_stop_the_next_one(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    held = holding(rig, file, 3)
    first_lease = rig.record(file.stem).leases[0].lease_id
    # with its token Vault ends the leases by itself; that this does not come first, the token is not ended yet
    stage.between.when(REVOKE_TOKEN, "before", fate=Fate.LOSE, times=ALWAYS)
    stage.between.when(f"PUT sys/leases/revoke/{first_lease}", "before", fate=Fate.LOSE, times=ALWAYS)
    first = rig("operator", "complete", file.stem, code=None)
    assert first.code in (5, 6)
    live = [lease.lease_id for lease in rig.record(file.stem).leases if rig.lease_is_live(lease.lease_id)]
    assert live == [first_lease]
    assert rig.is_live(held.token)
    check(rig, first)
    stage.between.clear()
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    check_over(rig, file.stem)


@pytest.mark.usefixtures("hurried")
def test_look_ups_whose_answers_are_lost_stop_no_revocation(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    holding(rig, file, 3)
    # with its token Vault ends the leases by itself; that this does not come first, the token is not ended yet
    stage.between.when(REVOKE_TOKEN, "before", fate=Fate.LOSE, times=ALWAYS)
    stage.between.when("PUT sys/leases/lookup", "before", fate=Fate.LOSE, times=ALWAYS)
    # a lease whose revocation was not answered is looked up at once, before the next one is revoked
    stage.between.when("PUT sys/leases/revoke/", "after", fate=Fate.LOSE, times=ALWAYS)
    first = rig("operator", "complete", file.stem, code=None)
    assert first.code in (5, 6)
    assert not any(rig.lease_is_live(lease.lease_id) for lease in rig.record(file.stem).leases)
    check(rig, first)
    stage.between.clear()
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    check_over(rig, file.stem)


@contextmanager
def refused(rig: Rig, *paths: str) -> Iterator[None]:
    """Vault refuses these paths to the worker."""
    policy = "sys/policies/acl/jitvault-worker"
    before = (rig.admin.read(policy) or {})["data"]["policy"]
    denials = "".join(f'path "{path}" {{ capabilities = ["deny"] }}\n' for path in paths)
    rig.admin.write(policy, {"policy": f"{before}\n{denials}"})
    try:
        yield
    finally:
        rig.admin.write(policy, {"policy": before})


@pytest.mark.parametrize("is_in_doubt", [False, True], ids=["", "looked up first"])
def test_a_token_that_may_not_be_ended_or_seen_keeps_no_lease_alive(rig: Rig, spec: Spec, is_in_doubt: bool) -> None:
    """As where somebody edited the worker's policy: what Vault still permits is done."""
    file = spec()
    held = holding(rig, file, 3)
    if is_in_doubt:
        rig.admin.write("sys/leases/tidy")
    # where it is looked up first, and that is refused, it is ended all the same
    end = () if is_in_doubt else ("auth/token/revoke-accessor",)
    with refused(rig, "auth/token/lookup-accessor", *end):
        rig("operator", "complete", file.stem, code=10)
        assert rig.is_live(held.token) is not is_in_doubt
        assert not [lease.lease_id for lease in rig.record(file.stem).leases if rig.lease_is_live(lease.lease_id)]
        # the command named the reason, and no check has one
        check(rig, killed=True)
    if is_in_doubt:
        # nobody saw the token alive between the hazard and its end
        rig("operator", "complete", file.stem, code=6)
        return
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    check_over(rig, file.stem)


def test_look_ups_that_hang_before_a_revocation_delay_it_for_a_moment_only(
    stage: Stage, rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent has its access meanwhile: without a bound the time of one request more for each lease that it read."""
    monkeypatch.setattr(revoke, "LOOK_FIRST_S", 0.5)
    file = spec()
    held = holding(rig, file, 5)
    rig.admin.write("sys/leases/tidy")
    rig("operator", "status", file.stem)
    stage.between.clear()
    stage.between.when("PUT sys/leases/lookup|PUT auth/token/lookup-accessor", "before", fate=Fate.HOLD, times=ALWAYS)
    worker = rig.wiring().worker
    with worker.ledger.claim(file.stem) as claim:
        why = EndCause(reason=EndReason.OPERATOR, by=rig.entity("operator"))
        revoke.revoke_tokens(worker, worker.record(file.stem), claim, why=why)
    assert [what for what in stage.between.seen if what.startswith("PUT auth/")] == [LOOK_AT_TOKEN, REVOKE_TOKEN]
    assert not [what for what in stage.between.seen if what.startswith("PUT sys/leases/")]
    assert not rig.is_live(held.token)
    stage.between.clear()
    rig("operator", "complete", file.stem, code=None)


def test_a_lease_that_is_gone_already_is_not_looked_up_before_the_token_is_revoked(
    stage: Stage, rig: Rig, spec: Spec
) -> None:
    """A lease of the token that an extension replaced was revoked while the task went on."""
    file = spec()
    held = rig.active(file)
    again = rig.use(rig("operator", "extend", file.stem, "--for", "20m", "--reason", "slow").json)
    late, _ = without_a_token(rig, held)
    rig("operator", "status", file.stem)
    assert [lease.verdict for lease in rig.record(file.stem).leases if lease.lease_id == late] == ["gone"]
    # a grant reads the stream: only a revocation whose line is known is not repeated
    rig.granted(spec())
    assert [op.state for op in rig.operations(file.stem) if (op.kind, op.subject) == ("revoke_lease", late)] == [
        "settled"
    ]
    stage.between.clear()
    rig("operator", "complete", file.stem)
    before = stage.between.seen[: stage.between.seen.index(REVOKE_TOKEN)]
    assert "PUT sys/leases/lookup" not in before
    assert not rig.is_live(again.token)
    check_over(rig, file.stem)


@pytest.mark.usefixtures("hurried")
def test_a_list_of_what_vault_gave_up_on_that_is_not_read_stops_no_revocation(
    stage: Stage, rig: Rig, spec: Spec
) -> None:
    """It is asked for by a lease that waits in Vault's queue, and can be long. A lease that came late has no token."""
    file = spec()
    held = rig.active(file)
    with psycopg.connect(rig.elsewhere, autocommit=True) as elsewhere:
        owner = sql.Identifier(held.login["user"])
        elsewhere.execute(sql.SQL("CREATE SCHEMA kept AUTHORIZATION {}").format(owner))
        rig("operator", "complete", file.stem, code=6)
        assert rig.admin.write("sys/leases/lookup", {"lease_id": held.lease_id})["data"]["ttl"] <= 0
        late, _ = without_a_token(rig, held)
        list_lost = stage.between.when("GET sys/leases", "before", fate=Fate.LOSE, times=ALWAYS)
        check(rig, rig("operator", "complete", file.stem, code=6))
        assert list_lost.struck
        assert not rig.lease_is_live(late)
        stage.between.clear()
        elsewhere.execute("DROP SCHEMA kept")
    until_done(rig, "complete", file.stem)
    check_over(rig, file.stem)


# -- asked too often ------------------------------------------------------------------------------------------------


def _as_admin(rig: Rig) -> dict[str, str]:
    return {"X-Vault-Token": rig.world.admin_token.reveal()}


@contextmanager
def limited(rig: Rig, path: str, used_up_by: str, *, interval: str) -> Iterator[None]:
    """At most one request to `path` in `interval` by whoever comes through the go-between; the first one is used up by
    an empty one to `used_up_by`. Vault answers at once, and refuses.
    """
    quota = "sys/quotas/rate-limit/outage"
    url = f"{rig.cli.variables['VAULT_ADDR']}/v1/{used_up_by}"
    # not by jitvault's own client, which waits for a moment
    empty = partial(requests.put, url, json={"ttl": "nonsense"}, headers=_as_admin(rig), timeout=10)
    rig.admin.write(quota, {"path": path, "rate": 1, "interval": interval})
    try:
        assert 429 in [empty().status_code for _ in range(3)]
        with patient():
            yield
    finally:
        rig.admin.delete(quota)


@pytest.mark.parametrize("where", ["auth/token/create/jitvault-15m", "jitvault-inbox/data/*"])
def test_a_grant_that_is_asked_for_too_often_gives_one_token_later(rig: Rig, spec: Spec, where: str) -> None:
    file = spec()
    rig("operator", "submit", file)
    with limited(rig, where, where.replace("*", "nobody/nothing"), interval="60s"):
        first = rig("operator", "grant", file, code=5)
        assert "429" in first.error["message"]
    check(rig, first)
    until_done(rig, "grant", file, watch=lambda result: check(rig, result))
    assert len(live_tokens(rig)) == 1
    assert len(deliveries(rig, file.stem)) == 1


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("where", "used_up_by"),
    [
        ("auth/token/revoke-accessor", "auth/token/revoke-accessor"),
        ("sys/leases/lookup", "sys/leases/lookup"),
        *([("sys/leases/revoke/*", "sys/leases/revoke/nobody/nothing")] if ALL else []),
    ],
)
def test_what_is_limited_is_named_and_what_is_not_is_taken_back_at_once(
    rig: Rig, spec: Spec, where: str, used_up_by: str
) -> None:
    file = spec()
    held = holding(rig, file, 2)
    with limited(rig, where, used_up_by, interval="60s"):
        first = rig("operator", "complete", file.stem, code=None)
        assert first.code in (5, 6), first
        assert any("429" in reason for reason in [first.stderr, *reasons(rig.record(file.stem))])
        assert rig.record(file.stem).task.state == "ending"
        assert rig.is_live(held.token) == (where == "auth/token/revoke-accessor")
        assert not at_target(rig, rig.record(file.stem))
    check(rig, first)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed", "target_confirmed"]
    check_over(rig, file.stem)


def test_a_limit_that_lets_one_request_by_each_second_only_takes_longer(rig: Rig, spec: Spec) -> None:
    file = spec()
    holding(rig, file, 2)
    with limited(rig, "sys/leases/lookup", "sys/leases/lookup", interval="1s"):
        until_done(rig, "complete", file.stem, times=2)
    check_over(rig, file.stem)
