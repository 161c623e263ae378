"""Rolling lives: what is held is renewed in small steps while all holds, and is gone soon when nobody does it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attended import Attended, wait_for
from commands import EXAMPLE
from go_between import Fate, GoBetween, Moment
from rig import Rig, own_rig

from jitvault.errors import AuditUntrusted
from jitvault.ledger.model import OpState
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.record.due_time import is_due_now
from jitvault.lifecycle.requests import reader as papers
from jitvault.lifecycle.requests.sign import sign_decision
from jitvault.model.revision import Revision
from jitvault.model.states import PROVEN
from jitvault.sandbox.world import World, env
from jitvault.settings import load
from jitvault.stream import reading as observe
from jitvault.wiring import Wiring
from jitvault.worker.process import context_factory

Spec = Callable[..., Path]
STEP_S = 6
# where nothing has to end by itself: a command takes some seconds on a busy machine
LONG_STEP_S = 60


@pytest.fixture
def rig(lab: World, tmp_path: Path) -> Rig:
    return own_rig(lab, {**env(lab, "", EXAMPLE), "JITVAULT_ROLLING_STEP": f"{STEP_S}s"}, tmp_path)


def can_log_in(rig: Rig, login: dict[str, str]) -> bool:
    try:
        rig.connect(login).close()
    except psycopg.OperationalError:
        return False
    return True


def lease_ttl(rig: Rig, lease_id: str) -> int:
    return int(rig.admin.write("sys/leases/lookup", {"lease_id": lease_id})["data"]["ttl"])


def renewals(rig: Rig, task: str, kind: str) -> list[OpState]:
    return [op.state for op in rig.operations(task) if op.kind == kind]


def test_what_is_held_is_renewed_in_small_steps_and_its_end_is_proven(rig: Rig, spec: Spec) -> None:
    file = spec()
    granted = rig.granted(file)
    short = spec(window="13s")
    with Attended(rig) as worker:
        rig.active(short)
        # longer than a step before anybody unwraps: it is renewed by its accessor
        time.sleep(STEP_S + 1)
        held = rig.use(granted)
        wait_for(lambda: lease_ttl(rig, held.lease_id) <= STEP_S)
        time.sleep(2 * STEP_S)
        assert rig.is_live(held.token) and can_log_in(rig, held.login)
        assert lease_ttl(rig, held.lease_id) <= STEP_S
        assert rig.record(file.stem).task.state == "active"
        assert worker.log.states(file.stem) == ["active"]
        assert len(renewals(rig, file.stem, "renew_token")) >= 4
        assert len(renewals(rig, file.stem, "renew_lease")) >= 3
        # while it is renewed, so that it is over by its end alone
        proof = rig("operator", "complete", file.stem).json
    # its last renewal was for the whole seconds that were left, and nothing was to be renewed after it
    ended = rig.record(short.stem).task
    assert ended.end_reason == "deadline" and ended.ending_at and ended.ends_at and ended.ending_at >= ended.ends_at
    assert proof["token"]["verdict"] == "audit_confirmed"
    assert [lease["verdict"] for lease in proof["leases"]] == ["target_confirmed"]
    assert rig.findings(file.stem) == []


def test_an_access_that_is_given_back_after_its_deadline_ended_by_that(rig: Rig, spec: Spec) -> None:
    """Whether the agent signs that or its token is revoked by itself, and however late a worker sees it."""
    signed, revoked = spec(window="10s"), spec(window="10s")
    with Attended(rig):
        rig.active(signed)
        held = rig.active(revoked)
        ends_at = rig.record(revoked.stem).task.ends_at
        assert ends_at is not None
    time.sleep(max(0.0, (ends_at - datetime.now(UTC)).total_seconds()))
    if rig.is_live(held.token):
        rig.vault(held.token).write("auth/token/revoke-self")
    rig.cli("agent", "complete", signed.stem, "--wait", "1s", worker=False, code=13)
    with Attended(rig):
        for task in (signed.stem, revoked.stem):
            wait_for(lambda task=task: rig.record(task).task.end_reason)
            assert rig.record(task).task.end_reason == "deadline"


def test_the_worker_dead_for_one_step_all_is_gone(rig: Rig, spec: Spec) -> None:
    file = spec()
    granted = rig.granted(file)
    with Attended(rig):
        held = rig.use(granted)
        both = {"renew_token", "renew_lease"}
        wait_for(lambda: both <= {op.kind for op in rig.operations(file.stem) if op.answer == "ok"})
    dead = time.monotonic()
    in_vault = rig.vault(held.token).read("auth/token/lookup-self")["data"]
    assert can_log_in(rig, held.login)
    # `status` tells when that is, and the bound that is committed for further renewals apart from it
    told = rig("auditor", "status", file.stem).json["grant"]
    ends, bound = (datetime.fromisoformat(told[name]) for name in ("expires_unrenewed_at", "expires_at"))
    assert abs(ends - datetime.fromisoformat(in_vault["expire_time"])) < timedelta(seconds=1.5)
    assert bound > ends + timedelta(seconds=STEP_S) and told["renewed_at"] is not None
    wait_for(lambda: not rig.is_live(held.token), STEP_S + 1)
    wait_for(lambda: not can_log_in(rig, held.login), STEP_S + 2 - (time.monotonic() - dead))
    # Vault takes a lease away when all of its revocation statements have run
    wait_for(lambda: not rig.lease_is_live(held.lease_id), 5)
    # whoever comes next finds it, and proves it when no renewal that the chain allows for can have it live any more
    rig("operator", "status", file.stem, code=None)
    latest = rig.record(file.stem).grants[-1].expires_at
    assert latest is not None
    assert rig("operator", "status", file.stem).json["state"] == "ending"
    time.sleep(max(0.0, (latest - datetime.now(UTC)).total_seconds()))
    wait_for(lambda: rig("operator", "status", file.stem, code=None).json["state"] in PROVEN, 20)
    told = rig("operator", "status", file.stem).json
    assert told["end_reason"] == "expired"
    assert told["proof"]["token"]["verdict"] == "expired"
    assert [lease["verdict"] for lease in told["proof"]["leases"]] == ["target_confirmed"]


@pytest.fixture
def in_long_steps(rig: Rig) -> Rig:
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_ROLLING_STEP": f"{LONG_STEP_S}s"}
    return rig


def test_a_lease_is_cut_to_a_step_by_any_command_that_has_the_workers_identity(in_long_steps: Rig, spec: Spec) -> None:
    rig, file = in_long_steps, spec(more="  network: loopback\n")
    held = rig.active(file)
    assert lease_ttl(rig, held.lease_id) > 800
    rig("operator", "status", file.stem)
    assert lease_ttl(rig, held.lease_id) <= LONG_STEP_S
    rig("operator", "complete", file.stem)


def test_a_step_that_was_edited_in_the_ledger_gives_no_more_than_the_workers_own(
    in_long_steps: Rig, spec: Spec
) -> None:
    rig, file = in_long_steps, spec(more="  network: loopback\n")
    held = rig.active(file)
    assert rig.sql("UPDATE grants SET step_s = 900 WHERE task_id = ?", file.stem) == 1
    rig.redigest(file.stem)
    rig("operator", "status", file.stem)
    assert renewals(rig, file.stem, "renew_lease") and lease_ttl(rig, held.lease_id) <= LONG_STEP_S
    rig("operator", "complete", file.stem)


def test_what_cannot_be_renewed_is_left_alone(rig: Rig, spec: Spec) -> None:
    file = spec(template="pki-service", choices="{service: orders}")
    rig("operator", "grant", file, code=4)
    rig("approver-1", "approve", file.stem, "--yes")
    held = rig.use(dict(rig("operator", "grant", file.stem).json))
    rig("operator", "status", file.stem)
    (lease,) = rig.record(file.stem).leases
    assert (lease.renew_at, renewals(rig, file.stem, "renew_lease")) == (None, [OpState.ABANDONED])
    assert lease_ttl(rig, held.lease_id) > 800
    time.sleep(STEP_S / 2)
    rig("operator", "status", file.stem)
    assert len(renewals(rig, file.stem, "renew_lease")) == 1
    assert OpState.ABANDONED not in renewals(rig, file.stem, "renew_token")
    rig("operator", "complete", file.stem)


def test_what_was_asked_and_what_it_came_to_are_both_told(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium", window="20m")
    file.write_text(file.read_text().replace("{for: 20m}", "{for: 20m, ttl: 30m, heartbeat: 5m}"))
    rig("operator", "grant", file, code=4)
    rig("approver-1", "approve", file.stem, "--yes")
    granted = rig("operator", "grant", file.stem).json
    ttl = {"requested_ttl_s": 1800, "ttl_s": 900, "step_s": STEP_S}
    assert granted["ttl"] == ttl
    grant = rig("operator", "status", file.stem).json["grant"]
    assert {name: grant[name] for name in ttl} == ttl
    rig("operator", "complete", file.stem)
    (row,) = rig("auditor", "report", file.stem).json["leases"]
    assert (row["requested_ttl_s"], row["ttl_s"]) == (1800, 900)
    short = spec()
    short.write_text(short.read_text().replace("{for: 15m}", "{for: 15m, ttl: 9s}"))
    assert "window.ttl: expected at least 10s" in rig("operator", "submit", short, code=8).stderr


# -- what goes wrong on the way ------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_renewal_whose_answer_is_lost_is_looked_up(rig: Rig, spec: Spec, moment: Moment) -> None:
    between = GoBetween((rig.world.servers.vault.host, rig.world.servers.vault.port))
    rig.cli.variables = {**rig.cli.variables, "VAULT_ADDR": between.address}
    try:
        file = spec()
        held = rig.active(file)
        time.sleep(STEP_S / 2)
        between.when("auth/token/renew-accessor", moment, fate=Fate.LOSE)
        between.when("sys/leases/renew", moment, fate=Fate.LOSE)
        rig("operator", "status", file.stem, code=None)
    finally:
        between.down()
    assert renewals(rig, file.stem, "renew_token") == renewals(rig, file.stem, "renew_lease") == [OpState.SETTLED]
    grant, (lease,) = rig.record(file.stem).grants[-1], rig.record(file.stem).leases
    (facts,) = rig.task_tokens(file.stem)
    # a renewal that was not done by then may still come
    assert grant.expires_at and grant.expires_at > datetime.fromisoformat(facts["expire_time"])
    assert (lease_ttl(rig, held.lease_id) <= STEP_S) == (moment == "after")
    assert grant.renew_at and lease.renew_at
    rig.cli.variables = {**rig.cli.variables, "VAULT_ADDR": rig.world.address}
    verdict = rig("operator", "complete", file.stem).json["token"]["verdict"]
    # a token that was not renewed may have run out by now
    assert verdict == "audit_confirmed" or (verdict == "expired" and grant.expires_at <= datetime.now(UTC))


def test_an_answer_from_before_does_not_shorten_what_counts_for_a_proof(rig: Rig, spec: Spec) -> None:
    """A gateway answers a renewal with what Vault said of an earlier one."""
    between = GoBetween((rig.world.servers.vault.host, rig.world.servers.vault.port))
    between.change = lambda what, body: (
        re.sub(rb'"lease_duration":\d+', b'"lease_duration":2', body) if "renew-accessor" in what else body
    )
    rig.cli.variables = {**rig.cli.variables, "VAULT_ADDR": between.address}
    try:
        file = spec()
        rig.active(file)
        time.sleep(STEP_S / 2)
        rig("operator", "status", file.stem, code=None)
    finally:
        between.down()
    assert set(renewals(rig, file.stem, "renew_token")) <= {OpState.ANSWERED, OpState.SETTLED}
    grant, (facts,) = rig.record(file.stem).grants[-1], rig.task_tokens(file.stem)
    assert grant.expires_at and grant.expires_at >= datetime.fromisoformat(facts["expire_time"])
    # it is renewed again as early as that answer asks for
    assert grant.renew_at and grant.renew_at < datetime.now(UTC) + timedelta(seconds=2)
    rig.cli.variables = {**rig.cli.variables, "VAULT_ADDR": rig.world.address}
    rig("operator", "revoke", file.stem)


def test_nothing_is_renewed_while_the_stream_is_not_trusted(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file = spec()
    held = rig.active(file)
    foreign = tmp_path / "elsewhere.log"
    foreign.write_bytes(b"")
    time.sleep(STEP_S / 2)
    rig.turn(file.stem, code=7, extra={"JITVAULT_AUDIT_FILE": str(foreign)})
    assert not renewals(rig, file.stem, "renew_token")
    wait_for(lambda: not rig.is_live(held.token), STEP_S)
    rig("operator", "status", file.stem, code=None)
    assert rig.record(file.stem).task.end_reason == "expired"


def test_a_worker_keeps_nothing_that_is_due_on_a_stream_that_is_not_trusted(
    rig: Rig, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loops read the stream, whoever's it is; that it was read up to now each look sees for itself."""
    monkeypatch.setattr(observe, "PATIENCE_S", 0.5)
    file = spec()
    rig.active(file)
    foreign = tmp_path / "elsewhere.log"
    foreign.write_bytes(b"")
    time.sleep(STEP_S / 2 + 0.2)
    with rig.environment(None, {"JITVAULT_AUDIT_FILE": str(foreign)}):
        hand = context_factory(Wiring(load()))()
    hand = replace(hand, mode=replace(hand.mode, is_scheduled=True))
    assert hand.mode.is_daemon and is_due_now(hand, rig.record(file.stem))
    with pytest.raises(AuditUntrusted):
        advance(hand, file.stem)
    assert not renewals(rig, file.stem, "renew_token")
    rig("operator", "revoke", file.stem, code=None)


def test_a_target_that_does_not_answer_keeps_no_token_from_its_renewal(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    time.sleep(STEP_S / 2)
    rig.world.servers.postgres.stop()
    try:
        error = rig.turn(file.stem, code=5)
        assert error is not None and "could not renew a lease" in str(error) and "when the target answers" in error.hint
        assert renewals(rig, file.stem, "renew_token") != [OpState.ABANDONED]
        assert OpState.ABANDONED in renewals(rig, file.stem, "renew_lease") + renewals(rig, file.stem, "renew_token")
        assert rig.is_live(held.token)
    finally:
        rig.world.servers.postgres.start()
    assert rig.record(file.stem).task.due_at <= datetime.now(UTC)
    rig("operator", "status", file.stem)
    assert lease_ttl(rig, held.lease_id) <= STEP_S
    rig("operator", "complete", file.stem)


# -- what does not hold -------------------------------------------------------------------------------------


def ends(rig: Rig, task: str, reason: str) -> None:
    """The task ends as nobody asks for it, without another renewal."""
    before = len(renewals(rig, task, "renew_token"))
    with Attended(rig):
        wait_for(lambda: rig.state(task) in ("confirmed", "sealed"))
    assert rig.record(task).task.end_reason == reason
    assert len(renewals(rig, task, "renew_token")) <= before
    assert not rig.database_roles()


def approved(rig: Rig, spec: Spec) -> Path:
    """A task that an approver agreed to, whose agent holds a login, and whose next renewal is due."""
    file = spec(criticality="medium")
    rig("operator", "grant", file, code=4)
    rig("approver-1", "approve", file.stem, "--yes")
    rig.use(dict(rig("operator", "grant", file.stem).json))
    time.sleep(STEP_S / 2)
    return file


@contextmanager
def entity(rig: Rig, name: str, **body: Any) -> Iterator[None]:
    rig.admin.write(f"identity/entity/name/{name}", body)
    try:
        yield
    finally:
        rig.admin.write(f"identity/entity/name/{name}", {"disabled": False})


@pytest.mark.parametrize("who", ["research-agent", "approver-1", "operator"])
def test_nothing_is_renewed_for_or_by_somebody_who_is_disabled(rig: Rig, spec: Spec, who: str) -> None:
    file = approved(rig, spec)
    with entity(rig, who, disabled=True):
        ends(rig, file.stem, "policy")


@pytest.mark.parametrize(
    ("who", "group"),
    [
        ("approver-1", "jitvault-approvers"),
        ("operator", "jitvault-operators"),
        ("research-agent", "jitvault-agents"),
    ],
)
def test_nothing_is_renewed_when_somebody_left_their_group(rig: Rig, spec: Spec, who: str, group: str) -> None:
    # policies that say nothing of the agents' group
    policies = Path(rig.cli.variables["JITVAULT_POLICIES"])
    (policies / "delegate.cedar").unlink()
    rules = (policies / "grant.cedar").read_text()
    rules = rules.replace('principal in Group::"jitvault-agents",', "principal,")
    (policies / "grant.cedar").write_text(rules.replace('principal in Group::"jitvault-agents"', "false"))
    file = approved(rig, spec)
    members = rig.admin.read(f"identity/group/name/{group}")["data"]["member_entity_ids"]
    left = [one for one in members if one != rig.entity(who)]
    rig.admin.write(f"identity/group/name/{group}", {"member_entity_ids": left})
    try:
        ends(rig, file.stem, "policy")
    finally:
        rig.admin.write(f"identity/group/name/{group}", {"member_entity_ids": members})


def test_nothing_is_renewed_after_the_approval_is_taken_away(rig: Rig, spec: Spec) -> None:
    file = approved(rig, spec)
    rig.admin.delete(f"jitvault/metadata/decisions/{rig.entity('approver-1')}/{file.stem}")
    ends(rig, file.stem, "policy")


def test_a_denial_after_the_issue_ends_it(rig: Rig, spec: Spec) -> None:
    file = approved(rig, spec)
    # the command says that it is too late; whoever signs all the same is heard
    revision = Revision.of(rig.record(file.stem).revision.body)
    person = rig.wiring("approver-2").person
    sign_decision(person, revision, decision="deny", groups=["jitvault-approvers"], reason="too many rows")
    ends(rig, file.stem, "policy")
    assert "too many rows" in str([e.body for e in rig.record(file.stem).events if e.kind == "ending"])


def test_an_approval_that_expires_bounds_the_issue_alone(rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    file = approved(rig, spec)
    monkeypatch.setattr(papers, "APPROVAL_LIFE", timedelta(seconds=1))
    rig("operator", "status", file.stem)
    assert renewals(rig, file.stem, "renew_token")
    assert rig.record(file.stem).task.state == "active"
    rig("operator", "complete", file.stem)


def test_missing_beats_end_the_task_and_each_line_of_its_token_is_one(rig: Rig, spec: Spec) -> None:
    file = spec()
    file.write_text(file.read_text().replace("{for: 15m}", f"{{for: 15m, heartbeat: {STEP_S}s}}"))
    with Attended(rig):
        granted = rig.granted(file)
        # nobody is silent who has not begun
        time.sleep(STEP_S + 1)
        held = rig.use(granted)
        for _ in range(STEP_S):
            time.sleep(STEP_S / 2)
            rig.vault(held.token).read("auth/token/lookup-self")
        assert rig.record(file.stem).task.state == "active"
        silent = time.monotonic()
        wait_for(lambda: not rig.is_live(held.token))
        assert STEP_S - 1 < time.monotonic() - silent < STEP_S + 3
        wait_for(lambda: rig.state(file.stem) == "confirmed")
    assert rig.record(file.stem).task.end_reason == "heartbeat"


def test_nobody_gets_more_time_by_hand(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    rig.sql("UPDATE tasks SET ends_at = '2100-01-01 00:00:00.000000' WHERE task_id = ?", file.stem)
    assert "ends_at was set by hand" in rig("operator", "status", file.stem, code=12).stderr
