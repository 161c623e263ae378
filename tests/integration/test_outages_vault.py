"""Vault dies, or is sealed, at chosen requests: what held before holds when it is back, and commands come to their end.

JITVAULT_TEST_ALL_OUTAGES=1 tries every moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from go_between import Moment
from invariants import check, check_over, files, live_tokens, verdicts
from rig import Rig
from stage import ALL, Stage, hasty, sealed, until_done

from jitvault.formats.server_product import Product

Spec = Callable[..., Path]
Case = tuple[str, str, Moment]

CREATE = "PUT auth/token/create/"
LOOK_AT_TOKEN = "PUT auth/token/lookup-accessor"
DELIVER = "PUT jitvault-inbox/data/"
PUBLISH = "PUT jitvault/data/tasks/"
REVOKE_TOKEN = "PUT auth/token/revoke-accessor"
REVOKE_LEASE = "PUT sys/leases/revoke/"
LOOK_AT_LEASE = "PUT sys/leases/lookup$"
LIST_LEASES = "sys/leases/lookup/database/"
SETTLED_S = 2.2
SIGN_RECEIPT = "PUT jitvault-transit/sign/jitvault-receipts"

GRANT: list[Case] = [
    ("killed", CREATE, "before"),
    ("killed", CREATE, "after"),
    ("killed", DELIVER, "after"),
    ("sealed", LOOK_AT_TOKEN, "before"),
]
MORE_OF_GRANT: list[Case] = [
    ("killed", LOOK_AT_TOKEN, "before"),
    ("killed", LOOK_AT_TOKEN, "after"),
    ("killed", DELIVER, "before"),
    ("killed", PUBLISH, "before"),
    ("killed", PUBLISH, "after"),
    ("sealed", CREATE, "before"),
    ("sealed", CREATE, "after"),
    ("sealed", DELIVER, "before"),
    ("sealed", DELIVER, "after"),
]
COMPLETE: list[Case] = [
    ("killed", REVOKE_TOKEN, "after"),
    ("killed", REVOKE_LEASE, "before"),
    ("killed", REVOKE_LEASE, "after"),
]
MORE_OF_COMPLETE: list[Case] = [
    ("sealed", REVOKE_TOKEN, "before"),
    ("killed", REVOKE_TOKEN, "before"),
    ("killed", LOOK_AT_TOKEN, "before"),
    ("killed", LOOK_AT_LEASE, "before"),
    ("killed", LOOK_AT_LEASE, "after"),
    ("killed", PUBLISH, "before"),
    ("killed", PUBLISH, "after"),
    ("sealed", REVOKE_TOKEN, "after"),
    ("sealed", REVOKE_LEASE, "before"),
    ("sealed", REVOKE_LEASE, "after"),
    ("sealed", LOOK_AT_LEASE, "before"),
]
SEAL: list[Case] = [("killed", SIGN_RECEIPT, "after")]
MORE_OF_SEAL: list[Case] = [
    ("killed", SIGN_RECEIPT, "before"),
    ("killed", LIST_LEASES, "before"),
    ("killed", LIST_LEASES, "after"),
    ("killed", PUBLISH, "before"),
    ("killed", PUBLISH, "after"),
    ("sealed", SIGN_RECEIPT, "before"),
]


@pytest.fixture
def rig(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    hasty(monkeypatch)
    yield stage.rig(tmp_path)
    stage.mend()


def after_outage(stage: Stage, rig: Rig, case: Case, *arguments: str | Path) -> None:
    """The command, in which Vault goes; the invariants once it is back; and the command again until it is done."""
    how, where, moment = case
    struck = stage.between.when(where, moment, {"killed": stage.kill, "sealed": stage.seal}[how])
    first = rig("operator", *arguments, code=None)
    assert struck.struck == 1
    # where it was the very last request, all is done and told
    assert first.code in ((0, 5) if moment == "after" or where == PUBLISH else (5,)), first
    if first.code:
        assert stage.between.address in first.error["message"] or "Vault" in first.error["message"]
        assert "again" in first.error["hint"]
    stage.mend()
    check(rig, first)
    until_done(rig, *arguments, watch=lambda result: check(rig, result))


@pytest.mark.parametrize("case", [*GRANT, *(MORE_OF_GRANT if ALL else ())], ids=" ".join)
def test_vault_goes_during_a_grant(stage: Stage, rig: Rig, spec: Spec, case: Case) -> None:
    file = spec()
    after_outage(stage, rig, case, "grant", file)
    assert len(live_tokens(rig)) == 1
    assert rig.record(file.stem).task.state == "issued"


@pytest.mark.parametrize("case", [*COMPLETE, *(MORE_OF_COMPLETE if ALL else ())], ids=" ".join)
def test_vault_goes_during_a_complete(stage: Stage, rig: Rig, spec: Spec, case: Case) -> None:
    file = spec()
    rig.active(file)
    after_outage(stage, rig, case, "complete", file.stem)
    assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed"]
    check_over(rig, file.stem)


@pytest.mark.parametrize("case", [*SEAL, *(MORE_OF_SEAL if ALL else ())], ids=" ".join)
def test_vault_goes_while_a_task_is_sealed(stage: Stage, rig: Rig, spec: Spec, case: Case) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "complete", file.stem)
    # from now on a turn seals: one before would publish as well
    time.sleep(SETTLED_S)
    how, where, moment = case
    act = {"killed": stage.kill, "sealed": stage.seal}[how]
    stage.between.when(where, moment, act)
    rig.turn(file.stem, code=5)
    stage.mend()
    check(rig)
    assert sealed(rig, file.stem).json["state"] == "sealed"
    check_over(rig, file.stem)


@pytest.mark.parametrize("how", ["killed", "sealed"])
def test_a_hint_names_the_program_of_the_server_or_the_one_that_the_ledger_was_used_with(
    stage: Stage, rig: Rig, spec: Spec, how: str
) -> None:
    rig("operator", "submit", spec())
    server = stage.world.servers.vault.binary.product
    (other,) = set(Product) - {server}
    assert rig.sql("UPDATE installation SET product = ?", other.value) == 1
    (stage.kill if how == "killed" else stage.seal)()
    # a sealed server says what it is; of one that is away the ledger alone knows something
    program = {"killed": other, "sealed": server}[how].command
    hint = rig("operator", "grant", spec(), code=5, extra={"PATH": "/nowhere"}).error["hint"]
    assert f"(`{program} status`)" in hint
    nobody = {"PATH": "/nowhere", "JITVAULT_LEDGER": str(rig.cli.home / "none.db")}
    hint = rig("agent", "unwrap", "s.0", code=5, extra=nobody).error["hint"]
    both = "`bao status` or `vault status`" if how == "killed" else f"`{server.command} status`"
    assert f"({both})" in hint
    stage.mend()


@pytest.mark.parametrize("how", ["killed", "sealed"])
def test_nothing_is_done_while_vault_is_away_and_everything_when_it_is_back(
    stage: Stage, rig: Rig, spec: Spec, how: str
) -> None:
    held, new = spec(), spec()
    rig.active(held)
    (stage.kill if how == "killed" else stage.seal)()
    away = [
        rig("operator", *command, code=None)
        for command in (("grant", new), ("complete", held.stem), ("revoke", held.stem), ("status", held.stem))
    ]
    # a status needs no Vault: it tells what the ledger has
    assert [result.code for result in away[:3]] == [5, 5, 5], away
    wanted = "does not answer" if how == "killed" else "sealed"
    assert all(wanted in result.error["message"] for result in away[:3]), away
    stage.mend()
    check(rig, *away)
    until_done(rig, "grant", new)
    until_done(rig, "complete", held.stem)
    check_over(rig, held.stem)
    assert {file.task.state.value for file in files(rig)} == {"issued", "confirmed"}
