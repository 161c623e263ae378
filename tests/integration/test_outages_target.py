"""The target is down, or takes connections and says nothing, for longer than any retry; then it is back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from commands import Result
from go_between import Fate, Mute
from invariants import at_target, check, check_over, reasons, verdicts
from rig import PREFIX, ROLE, Held, Rig
from stage import ALL, Stage, hasty, staged, thaw, until_done

from jitvault.engines.postgresql import client
from jitvault.errors import VaultRefused, VaultRejected
from jitvault.model.vault_access import REVOCATION_BEGUN
from jitvault.sandbox.vault_server import VaultServer
from jitvault.vault.tokens import Tokens

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]

REVOKE_LEASE = "PUT sys/leases/revoke/"
GIVEN_UP = "lease has consumed all retry attempts"


def with_raw_storage(directory: Path) -> VaultServer:
    return VaultServer(directory, storage="raft", more_configuration="raw_storage_endpoint = true")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged(with_raw_storage) as found:
        yield found


@pytest.fixture
def rig(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    hasty(monkeypatch, 0.7)
    monkeypatch.setattr(client, "CONNECT_S", 1)
    monkeypatch.setattr(client, "ANSWERS_S", 1)
    yield stage.rig(tmp_path)
    stage.mend()


def active(rig: Rig, file: Path, leases: int = 1) -> Held:
    held = rig.active(file)
    for _ in range(leases - 1):
        rig.vault(held.token).read(PREFIX)
    rig("operator", "status", file.stem)
    return held


def not_yet(rig: Rig, held: Held, task: str) -> Result:
    """`complete` while the target is away: what Vault can end is ended, the rest is named and waits."""
    first = rig("operator", "complete", task, code=None)
    assert first.code in (5, 6), first
    assert not rig.is_live(held.token)
    record = rig.record(task)
    assert record.task.state == "ending"
    assert reasons(record)
    assert "target_confirmed" not in verdicts(rig, task)
    return first


@pytest.mark.parametrize("leases", [3, *((1,) if ALL else ())])
def test_a_target_that_is_down_keeps_the_task_open_until_it_is_back(
    stage: Stage, rig: Rig, spec: Spec, leases: int
) -> None:
    file = spec()
    held = active(rig, file, leases)
    stage.postgres.kill()
    for _ in range(2):
        first = not_yet(rig, held, file.stem)
        check(rig, first)
        assert any("connect" in reason for reason in reasons(rig.record(file.stem))), reasons(rig.record(file.stem))
    stage.postgres.start()
    assert len(at_target(rig, rig.record(file.stem))) >= leases or leases > 1
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert verdicts(rig, file.stem) == ["audit_confirmed", *["target_confirmed"] * leases]
    check_over(rig, file.stem)


def test_a_target_that_goes_between_two_leases(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    held = active(rig, file, 2)
    struck = stage.between.when(REVOKE_LEASE, "before", stage.postgres.kill, skip=1)
    first = not_yet(rig, held, file.stem)
    assert struck.struck == 1
    check(rig, first)
    stage.postgres.start()
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    check_over(rig, file.stem)


def test_a_target_that_hangs_hangs_vault_and_not_jitvault(stage: Stage, rig: Rig, spec: Spec) -> None:
    """While a revocation hangs at the target Vault's own look-up of that lease hangs, too."""
    file = spec()
    held = active(rig, file, 2)
    stage.pause_target()
    begun = time.monotonic()
    first = not_yet(rig, held, file.stem)
    # of each lease a revocation and a look-up, a try more, and the probe; whatever hangs, nothing is waited for longer
    assert time.monotonic() - begun < 25
    thaw(stage.postgres)
    check(rig, first)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed", "target_confirmed"]
    check_over(rig, file.stem)


def tried(rig: Rig, task: str) -> list[str]:
    """The leases whose revocation was sent, in that order."""
    sent = [op for op in rig.record(task).operations if op.kind == "revoke_lease" and op.answered_at]
    return [op.subject for op in sorted(sent, key=lambda op: op.answered_at or op.sent_at)]


def test_a_command_begins_nothing_new_once_its_time_is_over(stage: Stage, rig: Rig, spec: Spec) -> None:
    """Each lease of a target that hangs takes a revocation and a look-up, 1.4 s here; four of them, tried again, 11 s.
    What had no turn is due, is the first of the next command, and nobody has to wait for it.
    """
    file = spec()
    held = active(rig, file, 4)
    stage.pause_target()
    begun = time.monotonic()
    first = rig("operator", "complete", file.stem, "--wait", "2", code=13, alone=True)
    assert time.monotonic() - begun < 6
    assert "--wait" in first.error["hint"]
    assert {lease["verdict"] for lease in first.json["leases"]} <= {"revoke_requested", "revoke_failed"}
    assert not rig.is_live(held.token)
    early = tried(rig, file.stem)
    assert len(set(early)) == len(early) < 4
    due = rig.record(file.stem).task.due_at
    assert due is not None and due < datetime.now(UTC) + timedelta(seconds=10)
    begun = time.monotonic()
    rig("operator", "complete", file.stem, "--wait", "2", code=13, alone=True)
    assert time.monotonic() - begun < 6
    assert len(set(tried(rig, file.stem))) > len(early)
    thaw(stage.postgres)
    check(rig, first)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    check_over(rig, file.stem)


def test_a_kill_switch_waits_for_what_hangs_no_longer_than_it_is_told(stage: Stage, rig: Rig, spec: Spec) -> None:
    """Five tasks by four threads: what hangs takes a time-out in each, and is not tried again in every phase."""
    held = {file.stem: active(rig, file) for file in (spec() for _ in range(5))}
    stage.pause_target()
    begun = time.monotonic()
    kill = ("revoke", "--agent", "research-agent", "--reason", "x", "--yes", "--wait")
    first = rig("operator", *kill, "1", code=None)
    took = time.monotonic() - begun
    assert first.code in (5, 6, 13) and first.json["confirmed"] == 0, first
    assert not any(rig.is_live(one.token) for one in held.values())
    assert took < 9, took
    thaw(stage.postgres)
    check(rig, first)
    until_done(rig, *kill, "20", watch=lambda result: check(rig, result))
    for task in held:
        check_over(rig, task)


def test_no_time_at_all_still_closes_the_door(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    held = active(rig, file)
    first = rig("operator", "revoke", file.stem, "--wait", "0", code=13)
    assert not rig.is_live(held.token)
    assert tried(rig, file.stem) == []
    check(rig, first)
    until_done(rig, "complete", file.stem)
    check_over(rig, file.stem)


def test_what_vault_says_nothing_about_is_told_as_not_revoked(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    active(rig, file)
    # as Vault's look-up of a lease does while its revocation hangs at the target
    stage.between.when("PUT sys/leases/lookup", "after", fate=Fate.LOSE, times=1_000)
    first = rig("operator", "complete", file.stem, code=6, alone=True)
    assert "NOT known to be revoked" in first.error["message"]
    assert [lease["verdict"] for lease in first.json["leases"]] == ["revoke_requested"]
    begun = time.monotonic()
    rig.turn(file.stem, code=5)
    assert time.monotonic() - begun < 5
    assert rig("operator", "status", file.stem, alone=True).json["state"] == "ending"
    stage.between.clear()
    until_done(rig, "complete", file.stem)
    check_over(rig, file.stem)


@pytest.mark.parametrize("word", [b"", b"pg_stat_activity"], ids=["from the start", "in the middle"])
def test_a_probe_that_gets_no_answer_comes_to_an_end_and_proves_nothing(
    stage: Stage, rig: Rig, spec: Spec, word: bytes
) -> None:
    file = spec()
    active(rig, file)
    probe = rig.document("probes/postgres")
    with closing(Mute(stage.postgres.port, word)) as mute:
        rig.put("probes/postgres", {"dsn": probe["dsn"].replace(str(stage.postgres.port), str(mute.port))})
        begun = time.monotonic()
        try:
            first = rig("operator", "complete", file.stem, code=6)
        finally:
            rig.put("probes/postgres", probe)
            # one that is put back is another one to the check of the template
            rig.vouch()
        assert time.monotonic() - begun < 14
    check(rig, first)
    (said,) = [reason for reason in reasons(rig.record(file.stem)) if reason.startswith("check 6")]
    assert "could not ask the target" in said
    until_done(rig, "complete", file.stem)
    check_over(rig, file.stem)


def make_irrevocable(stage: Stage, rig: Rig, lease_id: str, **more: str) -> None:
    """Leave a lease as six failures over nine minutes do, in Vault's raw storage: no option makes it give up sooner."""
    path = f"sys/raw/sys/expire/id/{lease_id}"
    found = rig.admin.read(path)
    assert found is not None
    entry = json.loads(found["data"]["value"])
    entry |= {"revokeErr": GIVEN_UP, **more}
    rig.admin.write(path, {"value": json.dumps(entry)})
    # it reads what is irrevocable at a start
    stage.bao.kill()
    stage.bao.start()


@pytest.mark.needs("reasons-in-look-ups")
def test_what_vault_gave_up_is_said_and_is_ended_when_the_target_is_back(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    held = active(rig, file)
    stage.postgres.kill()
    make_irrevocable(stage, rig, held.lease_id)
    listed = rig.admin._request("get", "sys/leases", query="?type=irrevocable")
    assert [lease["lease_id"] for lease in listed["data"]["leases"]] == [held.lease_id]
    first = not_yet(rig, held, file.stem)
    check(rig, first)
    assert verdicts(rig, file.stem)[1] == "irrevocable"
    stage.postgres.start()
    assert at_target(rig, rig.record(file.stem))
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed"]
    check_over(rig, file.stem)


def test_a_token_whose_revocation_never_ended_is_not_accepted(stage: Stage, rig: Rig, spec: Spec) -> None:
    """What a Vault leaves behind that dies during a revocation, put into its storage by hand."""
    file = spec()
    held = active(rig, file)
    (facts,) = rig.task_tokens(file.stem)
    for key in rig.admin.list("sys/raw/sys/token/id/"):
        entry = rig.admin.read(f"sys/raw/sys/token/id/{key}")
        assert entry is not None
        value = json.loads(entry["data"]["value"])
        if value["accessor"] == facts["accessor"]:
            value["num_uses"] = REVOCATION_BEGUN
            rig.admin.write(f"sys/raw/sys/token/id/{key}", {"value": json.dumps(value)})
    with pytest.raises(VaultRefused):
        rig.vault(held.token).read(PREFIX)
    with pytest.raises(VaultRejected, match="token not found"):
        rig.admin.write("auth/token/revoke-accessor", {"accessor": facts["accessor"]})
    assert Tokens(rig.admin).lookup_accessor(facts["accessor"]) is None
    # no line shows that anybody revoked it
    result = rig("operator", "complete", file.stem, code=6)
    assert "check 2 (revocation_answered)" in result.error["message"]
    assert verdicts(rig, file.stem) == ["gone", "target_confirmed"]
    # by its own lease Vault can end it
    for key in rig.admin.list(f"sys/leases/lookup/{ROLE}/"):
        rig.admin.write(f"sys/leases/revoke/{ROLE}/{key}", {"sync": True})
    assert facts["accessor"] not in rig.admin.list("auth/token/accessors/")


def as_hashicorp_vault(what: str, answer: bytes) -> bytes:
    """Its look-up of a lease says neither where the lease was made nor why it cannot be revoked."""
    if what != "PUT sys/leases/lookup":
        return answer
    said = json.loads(answer)
    for name in ("path", "revoke_error"):
        said.get("data", {}).pop(name, None)
    return json.dumps(said).encode()


@contextmanager
def may_list_irrevocable(rig: Rig) -> Iterator[None]:
    policy = str((rig.admin.read("sys/policies/acl/jitvault-worker") or {})["data"]["policy"])
    more = 'path "sys/leases" {\n  capabilities = ["read", "sudo"]\n}\n'
    rig.admin.write("sys/policies/acl/jitvault-worker", {"policy": policy + more})
    yield
    rig.admin.write("sys/policies/acl/jitvault-worker", {"policy": policy})


def test_what_vault_gave_up_without_a_word_is_told_all_the_same(stage: Stage, rig: Rig, spec: Spec) -> None:
    """The look-up of HashiCorp Vault has no `revoke_error`; the list of what is irrevocable needs sudo."""
    file = spec()
    held = active(rig, file)
    stage.postgres.kill()
    # what Vault is to end by itself expires at once
    long_ago = datetime.now(UTC) - timedelta(minutes=10)
    make_irrevocable(stage, rig, held.lease_id, expire_time=long_ago.isoformat())
    stage.between.change = as_hashicorp_vault
    (found,) = rig("operator", "sweep", code=6).json["irrevocable"]
    assert (found["lease_id"], found["revoke_error"]) == (held.lease_id, None)
    assert f"is trying to revoke it or has given up, since {long_ago:%Y-%m-%d %H:%M:%S}" in found["why"]
    with may_list_irrevocable(rig):
        (found,) = rig("operator", "sweep", code=6).json["irrevocable"]
        assert (found["lease_id"], found["revoke_error"]) == (held.lease_id, GIVEN_UP)
        not_yet(rig, held, file.stem)
        assert verdicts(rig, file.stem)[1] == "irrevocable"
    not_yet(rig, held, file.stem)
    assert verdicts(rig, file.stem)[1] == "revoke_failed"
    stage.postgres.start()
    stage.between.change = as_hashicorp_vault
    until_done(rig, "complete", file.stem)
    check_over(rig, file.stem)


def test_a_target_that_is_away_during_a_grant_keeps_nothing_from_being_taken_back(
    stage: Stage, rig: Rig, spec: Spec
) -> None:
    file = spec()
    stage.postgres.kill()
    granted = rig.granted(file)
    rig.use(granted, read=False)
    first = rig("operator", "complete", file.stem)
    check(rig, first)
    stage.postgres.start()
    check_over(rig, file.stem)
