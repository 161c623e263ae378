"""Vault against the ledger and the audit stream, in both directions, on the real servers: what is found, what is ended.

The servers are this module's own: what other tests leave in theirs belongs to nobody here.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attended import Attended, wait_for
from commands import Result
from hands import AGENT, ask
from mortal import Mortal, time_passes, until_done
from rig import PREFIX, ROLE, Rig
from test_freeze import create
from test_two_at_once import at_once

from jitvault.formats.clocks import TOLERANCE
from jitvault.model.vault_access import access_policy
from jitvault.sandbox.binary import find_binary
from jitvault.sweep import inventory

pytestmark = pytest.mark.usefixtures("lab", "soon")
Spec = Callable[..., Path]
POLICY = access_policy(PREFIX).name


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    # the ledger begins here: what is made from now on is in the stream that it reads
    rig("operator", "audit", "status")
    yield rig
    for role in rig.admin.list("auth/token/roles"):
        rig.admin.write(f"sys/leases/revoke-prefix/auth/token/create/{role}", {"sync": True})
    rig.admin.write("sys/leases/revoke-prefix/database/creds", {"sync": True})


@pytest.fixture
def soon(rig: Rig) -> None:
    """The settle window is short: nearly every test here waits for it, and has nothing to do before."""
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_SETTLE_WINDOW": "1s"}


@pytest.fixture
def later(rig: Rig, soon: None) -> None:
    """It is not: there is the time to look while something is young."""
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_SETTLE_WINDOW": "2s"}


def swept(rig: Rig, *options: str, code: int = 0) -> dict[str, Any]:
    return dict(rig("operator", "sweep", *options, code=code).json)


def tokens_in_vault(rig: Rig) -> list[str]:
    return [f"{ROLE}/{key}" for key in rig.admin.list(f"sys/leases/lookup/{ROLE}/")]


def outside_token(rig: Rig, *, wrapped: bool = True, **more: Any) -> str:
    """A token that an administrator makes through our role; gives the token."""
    token = rig.world.admin_token.reveal()
    body = {"policies": [POLICY], "meta": {"jitvault_task": "nobodys"}, "ttl": "300s", **more}
    headers = {"X-Vault-Wrap-TTL": "60s"} if wrapped else {}
    status, made = ask(rig, "PUT", ROLE, token, body, headers=headers)
    assert status == 200, made
    if not wrapped:
        return str(made["auth"]["client_token"])
    return str(ask(rig, "PUT", "sys/wrapping/unwrap", made["wrap_info"]["token"])[1]["auth"]["client_token"])


def findings(rig: Rig, like: str = "%") -> list[tuple[str, str | None]]:
    return [(r, t) for r, t in rig.rows("SELECT rule, task_id FROM findings WHERE rule LIKE ? ORDER BY id", like)]


def classes(found: dict[str, Any]) -> dict[str, int]:
    return {part: len(found[part]) for part in ("orphans", "unlinked", "ghosts", "irrevocable") if found[part]}


# -- nothing to find -------------------------------------------------------------------------------------------


def test_a_clean_world_has_nothing_to_find(rig: Rig, spec: Spec) -> None:
    waiting, held, done = spec(), spec(), spec()
    rig("operator", "grant", waiting)
    rig.active(held)
    rig.active(done)
    assert rig("operator", "complete", done.stem).json["confirmed"]
    for _ in range(2):
        found = swept(rig)
        assert classes(found) == {}, found
        assert found["waiting"] == []
        # two task tokens, and the wrapping of one
        assert (found["looked_at"]["tokens"], found["looked_at"]["leases"]) == (3, 1)
        assert {ROLE, PREFIX, f"{ROLE}-loopback"} <= set(found["looked_at"]["paths"])
        rig.settle()
    fixed = swept(rig, "--fix")
    assert (classes(fixed), fixed["advanced"], findings(rig)) == ({}, {}, [])
    # nobody asked about it, so nobody took note that it was unwrapped
    assert rig.record(held.stem).task.state == "issued"


def test_what_the_check_of_a_template_made_and_took_back_is_no_finding(rig: Rig) -> None:
    """The worker reads it in the stream like anybody's; that it was a check only the administrators' record says."""
    for name in ("postgres-readonly", "pki-service", "postgres-readonly"):
        rig("admin", "templates", "check", name)
    rig.settle()
    fixed = swept(rig, "--fix")
    assert (classes(fixed), fixed["waiting"], findings(rig)) == ({}, [], [])
    # the same without a record is told
    path = "jitvault/data/checks/pki-service"
    record = rig.document("checks/pki-service")
    rig.admin.write(path, {"data": {**record, "ended": []}})
    assert classes(swept(rig, code=12)) == {"unlinked": 1}
    rig.admin.write(path, {"data": record})


# -- tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_token_made_outside_is_found_ended_and_proven(rig: Rig, spec: Spec, wrapped: bool) -> None:
    mine = spec()
    rig.active(mine)
    token = outside_token(rig, wrapped=wrapped)
    young = swept(rig)
    assert classes(young) == {}
    assert [(one["kind"], one["why"]) for one in young["waiting"]] == [("token", "too young to judge")]
    rig.settle()

    found = swept(rig, code=12)
    (orphan,) = found["orphans"]
    assert (orphan["kind"], orphan["verdict"], orphan["path"]) == ("token", "live", ROLE)
    assert (orphan["remote"], orphan["task_id"]) == (AGENT, None)
    assert orphan["lease_id"] in orphan["command"]
    assert found["frozen"]
    assert findings(rig) == [("unknown_token", None), ("orphan_token", None)]
    assert rig.is_live(token)

    fixed = swept(rig, "--fix")
    (ended,) = fixed["orphans"]
    assert ended["verdict"] == "audit_confirmed"
    assert [(c["n"], c["ok"]) for c in ended["checks"]] == [(n, True) for n in range(1, 6)]
    assert ended["command"] is None
    assert not rig.is_live(token)
    # while everything is frozen nothing else is done: the task is ended by its own command
    assert rig.record(mine.stem).task.state == "issued"
    assert classes(swept(rig)) == {}
    assert findings(rig, "%_token") == [("unknown_token", None), ("orphan_token", None)]
    ops = rig.rows("SELECT kind, state, answer FROM operations WHERE task_id IS NULL ORDER BY sent_at")
    assert ops == [
        ("lookup_orphan", "settled", "live"),
        ("revoke_orphan", "settled", "ok"),
        ("lookup_orphan", "settled", "gone"),
    ]


def test_a_token_that_looks_like_a_wrapping_is_found_as_well(rig: Rig, spec: Spec) -> None:
    """A wrapping token is listed without its name, and cannot be renewed: nor can what an administrator makes so."""
    rig("operator", "grant", spec())
    token = outside_token(rig, wrapped=False, renewable=False)
    rig.settle()
    assert classes(swept(rig, code=12)) == {"orphans": 1}
    assert [one["verdict"] for one in swept(rig, "--fix")["orphans"]] == ["audit_confirmed"]
    assert not rig.is_live(token)


def test_an_unopened_wrapping_of_a_token_made_outside_is_ended_with_it(rig: Rig) -> None:
    assert create(rig, rig.world.admin_token.reveal(), POLICY)[0] == 200
    rig.settle()
    assert len(tokens_in_vault(rig)) == 2
    fixed = swept(rig, "--fix")
    assert [one["verdict"] for one in fixed["orphans"]] == ["audit_confirmed"] * 2
    assert len({one["line"] for one in fixed["orphans"]}) == 1
    assert tokens_in_vault(rig) == []


@pytest.mark.usefixtures("later")
def test_a_token_that_is_gone_again_is_told_once(rig: Rig) -> None:
    token = outside_token(rig)
    assert ask(rig, "PUT", "auth/token/revoke-self", token)[0] in (204, 403)
    rig.admin.write("auth/token/revoke", {"token": token})
    assert classes(swept(rig)) == {}
    rig.settle()
    found = swept(rig, code=12)
    (unlinked,) = found["unlinked"]
    assert (unlinked["kind"], unlinked["path"], unlinked["remote"]) == ("token", ROLE, AGENT)
    assert found["orphans"] == []
    assert findings(rig, "unlinked%") == [("unlinked_token", None)]
    assert classes(swept(rig)) == {}
    assert findings(rig, "unlinked%") == [("unlinked_token", None)]


# -- leases ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("later")
def test_a_lease_read_by_an_administrator_is_listed_with_the_command_that_ends_it(rig: Rig, spec: Spec) -> None:
    rig.active(spec())
    lease_id = str((rig.admin.read(PREFIX) or {})["lease_id"])
    assert [one["lease_id"] for one in swept(rig)["waiting"]] == [lease_id]
    rig.settle()
    for options in ((), ("--fix",)):
        (orphan,) = swept(rig, *options, code=12)["orphans"]
        assert (orphan["lease_id"], orphan["kind"], orphan["verdict"]) == (lease_id, "lease", "live")
        assert rig.lease_is_live(lease_id)
    assert findings(rig) == [("orphan_lease", None)]
    run_as_administrator(rig, orphan["command"])
    assert not rig.lease_is_live(lease_id)
    assert classes(swept(rig, "--fix")) == {}


def run_as_administrator(rig: Rig, command: str) -> None:
    server = find_binary()
    program, *rest = shlex.split(command)
    assert program == server.product.command
    environment = {
        "VAULT_ADDR": rig.world.address,
        "VAULT_TOKEN": rig.world.admin_token.reveal(),
        "HOME": "/nonexistent",
    }
    subprocess.run([server.path, *rest], env=environment, check=True, capture_output=True, timeout=20)


def test_what_a_token_made_outside_read_is_ended_and_proven_with_it(rig: Rig) -> None:
    token = outside_token(rig)
    lease_id = str(ask(rig, "GET", PREFIX, token)[1]["lease_id"])
    rig.settle()
    found = swept(rig, code=12)
    assert {(one["kind"], one["remote"]) for one in found["orphans"]} == {("token", AGENT), ("lease", AGENT)}
    assert all(one["line"] for one in found["orphans"])
    fixed = swept(rig, "--fix")
    assert {one["kind"]: one["verdict"] for one in fixed["orphans"]} == dict.fromkeys(
        ("token", "lease"), "audit_confirmed"
    )
    assert not rig.lease_is_live(lease_id)


def test_an_unlinked_lease_is_told_once(rig: Rig) -> None:
    token = outside_token(rig)
    lease_id = str(ask(rig, "GET", PREFIX, token)[1]["lease_id"])
    rig.admin.write("auth/token/revoke", {"token": token})
    rig.settle()
    found = swept(rig, code=12)
    assert {(one["kind"], one["subject"]) for one in found["unlinked"]} >= {("lease", lease_id)}
    assert len(found["unlinked"]) == 2
    assert {rule for rule, _ in findings(rig, "unlinked%")} == {"unlinked_lease", "unlinked_token"}
    assert classes(swept(rig)) == {}


def test_what_a_task_read_in_a_wrapping_is_the_tasks(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    assert ask(rig, "GET", PREFIX, held.token, headers={"X-Vault-Wrap-TTL": "60s"})[0] == 200
    rig.settle()
    found = swept(rig, "--fix")
    assert classes(found) == {}
    assert [(one["kind"], one["task_id"]) for one in found["waiting"]] == [("lease", file.stem)]


# -- ghosts ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("later")
def test_a_lease_that_an_administrator_revoked_is_a_ghost_and_its_task_goes_on(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    rig.settle()
    rig.admin.write(f"sys/leases/revoke/{held.lease_id}", {"sync": True})
    assert [one["why"][:18] for one in swept(rig)["waiting"]] == ["too young to judge"]
    rig.settle()
    found = swept(rig, code=6)
    (ghost,) = found["ghosts"]
    assert (ghost["kind"], ghost["task_id"], ghost["how"]) == ("lease", file.stem, "ended")
    assert "somebody else revoked it" in ghost["why"]
    assert ghost["line"]
    fixed = swept(rig, "--fix", code=6)
    assert fixed["advanced"] == {file.stem: "active"}
    assert findings(rig, "ghost") == []


def test_a_token_that_an_administrator_revoked_is_a_ghost(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    accessor = rig.record(file.stem).grants[0].wrapped_accessor
    rig.admin.write("auth/token/revoke-accessor", {"accessor": accessor})
    rig.settle()
    found = swept(rig, code=6)
    assert {(g["kind"], g["how"]) for g in found["ghosts"]} == {("token", "ended"), ("lease", "with_its_token")}
    assert not rig.is_live(held.token)


def test_what_a_token_gave_back_itself_is_a_ghost_until_its_task_is_advanced(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    assert ask(rig, "PUT", "auth/token/revoke-self", held.token)[0] == 204
    rig.settle()
    found = swept(rig, code=6)
    assert "revoked itself" in next(g["why"] for g in found["ghosts"] if g["kind"] == "token")
    fixed = swept(rig, "--fix", code=None)  # type: ignore[arg-type]
    assert fixed["advanced"][file.stem] in ("confirmed", "ending", "sealed")
    assert rig.record(file.stem).task.end_reason == "completed"


def test_a_lease_whose_record_was_dropped_is_a_finding(rig: Rig, spec: Spec) -> None:
    """revoke-force makes Vault forget the lease, whatever the backend says."""
    file = spec()
    rig.active(file)
    rig.admin.write(f"sys/leases/revoke-force/{PREFIX}")
    rig.settle()
    found = swept(rig, code=12)
    (ghost,) = found["ghosts"]
    assert (ghost["kind"], ghost["how"]) == ("lease", "unexplained")
    assert "revoke-force" in ghost["why"]
    assert findings(rig) == [("ghost", file.stem)]
    swept(rig, code=12)
    assert findings(rig) == [("ghost", file.stem)]


def test_a_token_whose_time_is_over_is_a_ghost_that_expired(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig("operator", "grant", file)
    # as if the grant had been for 1 s
    rig.admin.write("auth/token/revoke-accessor", {"accessor": rig.record(file.stem).grants[0].wrapped_accessor})
    rig.settle()
    rig("operator", "audit", "status")
    past = rig.rows("SELECT issued_at FROM grants")[0][0]
    rig.sql("UPDATE grants SET expires_at = ?", past)
    rig.drop_triggers()
    rig.sql("DELETE FROM observations WHERE kind = 'token_revoked'")
    (ghost,) = swept(rig, code=6)["ghosts"]
    assert (ghost["kind"], ghost["how"]) == ("token", "expired")


def test_a_token_that_nobody_renewed_in_time_is_a_ghost_that_expired(rig: Rig, spec: Spec) -> None:
    """What the chain has is the latest end of several renewals, and the worker died after the first one."""
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_ROLLING_STEP": "6s"}
    file = spec()
    token = rig.active(file).token
    with Attended(rig):
        wait_for(lambda: rig.rows("SELECT 1 FROM operations WHERE kind = 'renew_token' AND state = 'answered'"))
    wait_for(lambda: not rig.is_live(token), 15)
    rig("operator", "audit", "status")
    committed = rig.record(file.stem).grants[-1].expires_at
    assert committed is not None and committed > datetime.now(UTC) + timedelta(seconds=6)
    # as if its steps were longer, so that this time is not over while the test lasts
    ahead = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%d %H:%M:%S.%f}"
    rig.sql("UPDATE grants SET expires_at = ?", ahead)
    time.sleep(TOLERANCE.total_seconds())
    ghosts = {ghost["kind"]: ghost["how"] for ghost in swept(rig, code=6)["ghosts"]}
    assert ghosts["token"] == "expired", ghosts
    # with a later renewal it would have lived on
    rig.sql("UPDATE grants SET renew_at = ?", ahead)
    ghosts = {ghost["kind"]: ghost["how"] for ghost in swept(rig, code=12)["ghosts"]}
    assert ghosts["token"] == "unexplained", ghosts


def test_what_was_closed_without_proof_is_shown_and_fails_no_later_sweep(rig: Rig, spec: Spec) -> None:
    """Until something of it is there again, as after a Vault that was restored; here the ledger is made to say so."""
    closed, held = spec(), spec()
    rig.active(closed)
    grant = rig.record(closed.stem).grants[0]
    (own,) = tokens_in_vault(rig)
    # nobody can prove the end of what Vault was made to forget
    rig.admin.write(f"sys/leases/revoke-force/{own}")
    rig("operator", "revoke", closed.stem, code=6)
    rig("operator", "revoke", closed.stem, "--force", "--yes", "--reason", "forgotten by hand", code=6)
    rig.settle()
    for fix in ((), ("--fix",), ()):
        found = swept(rig, *fix)
        assert (classes(found), found["advanced"]) == ({}, {}), found
        (one,) = found["closed"]
        assert (one["task_id"], one["by"], one["reason"]) == (closed.stem, "operator", "forgotten by hand")
        assert grant.accessor_hmac in one["unproven"]
    assert "Closed without proof" in rig.cli("operator", "sweep").stdout
    still = rig.active(held)
    rig("operator", "audit", "status")
    rig.sql("UPDATE leases SET verdict = 'unverifiable' WHERE task_id = ?", held.stem)
    rig.sql("UPDATE grants SET verdict = 'unverifiable', settled = TRUE WHERE task_id = ?", held.stem)
    rig.sql("UPDATE tasks SET state = 'unverified' WHERE task_id = ?", held.stem)
    rig.settle()
    found = swept(rig, code=12)
    assert {(one["kind"], one["task_id"]) for one in found["orphans"]} == {("token", held.stem), ("lease", held.stem)}
    swept(rig, "--fix", code=None)  # type: ignore[arg-type]
    assert not rig.is_live(still.token) and not rig.lease_is_live(still.lease_id)


# -- what is open, and what the ledger forgot ------------------------------------------------------------------


def test_a_token_whose_answer_was_lost_is_left_to_its_task(
    rig: Rig,
    spec: Spec,
    mortal: Mortal,
) -> None:
    file = spec()
    # the first one on a ledger does more
    _, points = (mortal(rig, "grant", str(spec()), point=0)["points"] for _ in range(2))
    acts = [n for n, name in enumerate(points, 1) if name.startswith("/v1/auth/token/create/")]
    # after Vault did it, before anybody knows
    died = mortal(rig, "grant", str(file), point=acts[-1])
    assert died["signal"] == 9
    time_passes(rig)
    rig.settle()
    before = set(tokens_in_vault(rig))
    for options in ((), ("--fix",)):
        found = swept(rig, *options)
        assert classes(found) == {}, found
        assert {one["task_id"] for one in found["waiting"]} == {file.stem}
        assert len(found["waiting"]) == 2
    assert set(tokens_in_vault(rig)) == before
    until_done(rig, "grant", file)
    rig.settle()
    assert classes(swept(rig)) == {}


def test_after_a_restored_ledger_everything_that_it_forgot_is_found_and_the_tokens_are_ended(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    old, forgotten = spec(), spec()
    kept = rig.active(old)
    backup = rig.snapshot(tmp_path / "backup.db")
    lost = rig.active(forgotten)
    rig("operator", "complete", old.stem)
    rig.settle()
    rig.put_back(backup)

    found = swept(rig, code=12)
    assert {(one["kind"], one["verdict"]) for one in found["orphans"]} == {("token", "live"), ("lease", "live")}
    assert {one["lease_id"] for one in found["orphans"] if one["kind"] == "lease"} == {lost.lease_id}
    assert {g["task_id"] for g in found["ghosts"]} == {old.stem}
    assert any("was it restored" in g["why"] for g in found["ghosts"])
    assert found["frozen"]

    fixed = swept(rig, "--fix", code=6)
    assert {one["kind"]: one["verdict"] for one in fixed["orphans"]}["token"] == "audit_confirmed"
    assert not rig.is_live(lost.token)
    assert not rig.lease_is_live(lost.lease_id)
    # its own command refuses: Vault says that it is over
    assert "Vault says that task" in fixed["advanced"][old.stem]
    assert not rig.is_live(kept.token)
    assert tokens_in_vault(rig) == []


def test_a_token_that_its_sealed_task_calls_dead_is_an_orphan(rig: Rig, spec: Spec) -> None:
    """A Vault that was restored has it back; here the ledger is made to say so."""
    file = spec()
    held = rig.active(file)
    rig("operator", "audit", "status")
    rig.sql("UPDATE grants SET verdict = 'audit_confirmed', settled = TRUE")
    rig.sql("UPDATE leases SET verdict = 'target_confirmed'")
    rig.sql("UPDATE tasks SET state = 'sealed'")
    rig.settle()
    found = swept(rig, code=12)
    assert {(one["kind"], one["task_id"]) for one in found["orphans"]} == {("token", file.stem), ("lease", file.stem)}
    fixed = swept(rig, "--fix", code=None)  # type: ignore[arg-type]
    assert next(one for one in fixed["orphans"] if one["kind"] == "token")["verdict"] == "audit_confirmed"
    assert not rig.is_live(held.token)


# -- trust, several at once, death -----------------------------------------------------------------------------


def test_without_a_trusted_stream_nothing_is_fixed(rig: Rig, tmp_path: Path) -> None:
    token = outside_token(rig)
    rig.settle()
    elsewhere = tmp_path / "other.log"
    elsewhere.touch()
    rig("operator", "sweep", "--fix", code=7, extra={"JITVAULT_AUDIT_FILE": str(elsewhere)})
    assert rig.is_live(token)
    assert rig.rows("SELECT count(*) FROM orphans") == [(0,)]
    rig("operator", "sweep", code=2, extra={"JITVAULT_WORKER_TOKEN": ""})


def test_two_sweeps_at_once_end_each_orphan_once(rig: Rig) -> None:
    tokens = [outside_token(rig) for _ in range(3)]
    rig.settle()
    results = at_once(rig.cli, *[("sweep", "--fix")] * 2, processes=2)
    assert [r.code for r in results] == [0, 0], results
    assert sorted(len(r.json["orphans"]) for r in results) == [0, 3]
    assert not any(rig.is_live(token) for token in tokens)
    assert rig.rows("SELECT count(*) FROM operations WHERE kind = 'revoke_orphan'") == [(3,)]
    assert len(findings(rig, "orphan_token")) == 3


def test_a_sweep_that_dies_anywhere_is_finished_by_the_next(
    rig: Rig,
    mortal: Mortal,
) -> None:
    outside_token(rig)
    rig.settle()
    points = mortal(rig, "sweep", "--fix", point=0)["points"]
    acts = {n for n, name in enumerate(points, 1) if name.startswith("/v1/sys/leases/revoke/")}
    assert len(acts) == 2
    around = {n + d for n in acts for d in range(-4, 8)}
    for point in sorted(around | {len(points) // 2, len(points)}):
        token = outside_token(rig)
        rig.settle()
        died = mortal(rig, "sweep", "--fix", point=point)
        time_passes(rig)
        rig.sql("UPDATE installation SET claim_until = 0")
        fixed = swept(rig, "--fix")
        assert died["signal"] == 9 or point > len(points) - 6, (point, died)
        assert not rig.is_live(token), point
        assert rig.rows("SELECT count(*) FROM orphans WHERE verdict != 'audit_confirmed'") == [(0,)], (point, fixed)
        assert rig.rows("SELECT count(*) FROM operations WHERE task_id IS NULL AND state = 'answered'") == [(0,)]


def test_a_sweep_looks_at_so_many_and_counts_the_rest(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        rig.admin.read(PREFIX)
    rig.settle()
    monkeypatch.setattr(inventory, "MOST_LOOKUPS", 3)
    found = swept(rig, code=12)
    assert (len(found["orphans"]), found["looked_at"]["not_judged"]) == (3, 1)
    rig("operator", "sweep", code=12)


def test_what_a_sweep_prints_fits_into_80_columns(rig: Rig, spec: Spec) -> None:
    rig.active(spec())
    outside_token(rig)
    lease_id = str((rig.admin.read(PREFIX) or {})["lease_id"])
    rig.settle()
    said: Result = rig.cli("operator", "sweep", code=12, extra={"COLUMNS": "80"})
    wide = [line for line in said.stdout.splitlines() if len(line) > 80]
    # only what is copied is not folded
    command = f"{find_binary().product.command} lease revoke -sync"
    assert all(re.search(r"\S{60}", line) or command in line for line in wide), wide
    assert f"    {command} {lease_id}" in said.stdout.splitlines()
    assert "error: the sweep found something that is left: 2 orphans" in said.stderr
    clean: Result = rig.cli("operator", "sweep", "--fix", code=12)
    assert "audit_confirmed 1✓ 2✓ 3✓ 4✓ 5✓" in clean.stdout


def test_a_sweep_of_many_leases_takes_seconds(rig: Rig) -> None:
    for _ in range(60):
        rig.admin.read(PREFIX)
    rig.settle()
    begun = time.monotonic()
    found = swept(rig, code=12)
    assert len(found["orphans"]) == 60
    assert time.monotonic() - begun < 10
