"""A process may die anywhere: what it began is found and finished by the same command, and nothing is left over.

Every point is tried with JITVAULT_TEST_ALL_POINTS=1, otherwise those around the acts and an even sample.
"""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mortal import Mortal, live_wrappings, new_rig, points_of, time_passes, until_done
from rig import Rig

from jitvault.model.event_chain import chain_problems
from jitvault.sandbox.world import World

SAMPLE = 8
STEP_S = 6
# twenty lives of a task one after the other: how long they take together says something of the machine
LONG = pytest.mark.timeout(600)
# after these there is something in Vault that the ledger does not know yet
ACTS = (
    "/v1/auth/token/create/",
    "/v1/jitvault-inbox/data/",
    "/v1/auth/token/revoke-accessor",
    "/v1/sys/leases/revoke/",
)


def check_ledger(rig: Rig, task: str) -> None:
    record = rig.record(task)
    assert chain_problems(record.events, head=record.task.head) == []
    assert record.findings == ()


@LONG
def test_a_grant_that_dies_anywhere_ends_in_one_token(
    world: World, variables: dict[str, str], tmp_path: Path, mortal: Mortal
) -> None:
    rig, file = new_rig(world, variables, tmp_path, "dry")
    dry = mortal(rig, "grant", str(file), point=0)
    assert (dry["code"], len(rig.task_tokens(file.stem))) == (0, 1), dry
    assert len(dry["points"]) > 40
    begun = 0
    for point in points_of(dry["points"], ACTS, SAMPLE, before=True):
        rig, file = new_rig(world, variables, tmp_path, str(point))
        died = mortal(rig, "grant", str(file), point=point)
        # a dry run that had to wait longer passed more moments
        assert died["signal"] == signal.SIGKILL or len(died["points"]) < point, (point, died)
        time_passes(rig)
        if rig.has_table("tasks") and rig.state(file.stem) == "issuing":
            begun += 1
            due_at = rig.record(file.stem).task.due_at
            assert due_at and due_at <= datetime.now(UTC), (point, "what was begun is left to itself")
        granted = until_done(rig, "grant", file)
        (token,) = rig.task_tokens(file.stem)
        assert (granted["state"], token["meta"]["jitvault_grant"]) == ("issued", granted["grant_id"]), point
        again = rig("operator", "grant", file).stdout
        assert len(live_wrappings(rig, died["out"], json.dumps(granted), again)) <= 1, point
        check_ledger(rig, file.stem)

        ended = until_done(rig, "complete", file.stem)
        assert ended["confirmed"], point
        assert rig.task_tokens(file.stem) == [], point
        check_ledger(rig, file.stem)
    assert begun


def test_a_token_of_a_process_that_died_may_be_over_before_anybody_comes(
    world: World, variables: dict[str, str], tmp_path: Path, mortal: Mortal
) -> None:
    """Nothing is left to be revoked then, and its line alone says how long it would live."""
    variables = {**variables, "JITVAULT_ROLLING_STEP": f"{STEP_S}s"}
    rig, file = new_rig(world, variables, tmp_path, "dry")
    names = mortal(rig, "grant", str(file), point=0)["points"]
    point = max(n for n, name in enumerate(names, 1) if "/v1/auth/token/lookup-accessor" in name)
    rig, file = new_rig(world, variables, tmp_path, "dies")
    assert mortal(rig, "grant", str(file), point=point)["signal"] == signal.SIGKILL
    time.sleep(STEP_S + 1)
    time_passes(rig)
    until_done(rig, "grant", file)
    first, second = rig.record(file.stem).grants
    assert first.wrapped_accessor is None and second.delivered
    ended = until_done(rig, "complete", file.stem)
    assert ended["confirmed"], ended
    assert [earlier["verdict"] for earlier in ended["earlier_tokens"]] == ["expired"]
    check_ledger(rig, file.stem)


@LONG
def test_a_complete_that_dies_anywhere_ends_in_proof(
    world: World, variables: dict[str, str], tmp_path: Path, mortal: Mortal
) -> None:
    rig, file = new_rig(world, variables, tmp_path, "dry")
    rig.active(file)
    dry = mortal(rig, "complete", file.stem, point=0)
    assert (dry["code"], json.loads(dry["out"])["confirmed"]) == (0, True), dry
    for point in points_of(dry["points"], ACTS, SAMPLE, before=True):
        rig, file = new_rig(world, variables, tmp_path, str(point))
        held = rig.active(file)
        died = mortal(rig, "complete", file.stem, point=point)
        # the number of looks at the stream varies a little, so the last points may not be reached
        assert died["signal"] == signal.SIGKILL or point > len(dry["points"]) - 12, (point, died)
        time_passes(rig)
        ended = until_done(rig, "complete", file.stem)
        assert ended["confirmed"], point
        assert [lease["verdict"] for lease in ended["leases"]] == ["target_confirmed"], point
        assert not rig.is_live(held.token), point
        assert not rig.lease_is_live(held.lease_id), point
        assert held.login["user"] not in rig.database_roles(), point
        assert rig.task_tokens(file.stem) == [], point
        check_ledger(rig, file.stem)


def test_a_dead_process_keeps_its_claim_for_a_while_and_the_next_command_says_so(
    world: World, variables: dict[str, str], tmp_path: Path, mortal: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 s is longer than any request to Vault, so a paused process cannot act after it; waiting is cut short here."""
    monkeypatch.setattr("jitvault.ledger.claims.PATIENCE_S", 0.3)
    rig, file = new_rig(world, variables, tmp_path, "claim")
    rig.active(file)
    mortal(rig, "complete", file.stem, point=40)
    refused = rig("operator", "complete", file.stem, code=9).error
    assert "another process is working" in refused["message"]
    assert "again" in refused["hint"]
    claims = "SELECT claim_until FROM tasks UNION SELECT claim_until FROM audit_sources"
    left = max(until for (until,) in rig.rows(claims)) - time.time()
    assert 25 < left < 30
    time_passes(rig)
    assert until_done(rig, "complete", file.stem)["confirmed"]
