"""The host's clock is an hour wrong: nothing is granted or confirmed by it, and what is said names the clock.

The commands run in processes of their own whose clock libfaketime moves; Vault and PostgreSQL have the right time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Result
from invariants import check, check_over, live_tokens, verdicts
from moved_clock import at
from rig import Rig
from stage import ALL, claims_run_out, sealed, until_done

Spec = Callable[..., Path]
AHEAD = pytest.mark.parametrize("wrong", ["+1h", *(("-1h",) if ALL else ())])
BEHIND = pytest.mark.parametrize("wrong", ["-1h", *(("+1h",) if ALL else ())])


def names_the_clock(result: Result, wrong: str) -> bool:
    ahead = "behind" if wrong.startswith("+") else "ahead of"
    error = result.error
    return f"Vault's clock is 3600 s {ahead} this host's" in error["message"] and "NTP" in error["hint"]


@AHEAD
def test_nothing_is_granted_by_a_wrong_clock(rig: Rig, spec: Spec, wrong: str) -> None:
    file = spec()
    refused = at(rig, wrong, "grant", file)
    assert refused.code == 7, refused
    assert names_the_clock(refused, wrong), refused
    assert live_tokens(rig) == []
    claims_run_out(rig)
    check(rig, refused)
    # the same with the right clock
    assert until_done(rig, "grant", file).json["state"] == "issued"


@BEHIND
def test_access_is_taken_away_by_a_wrong_clock_and_not_confirmed(rig: Rig, spec: Spec, wrong: str) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    ended = at(rig, wrong, "complete", file.stem)
    assert ended.code == 7, ended
    assert names_the_clock(ended, wrong), ended
    assert '"confirmed": true' not in ended.stdout
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    assert rig.record(file.stem).task.state == "ending"
    claims_run_out(rig)
    check(rig, ended)
    until_done(rig, "complete", file.stem, watch=lambda result: check(rig, result))
    assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed"]
    check_over(rig, file.stem)


@AHEAD
def test_nothing_is_sealed_before_its_time_by_a_wrong_clock(rig: Rig, spec: Spec, wrong: str) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "complete", file.stem)
    told = at(rig, wrong, "status", file.stem)
    assert rig.record(file.stem).task.state == "confirmed"
    assert told.code in (0, 7), told
    if told.code:
        assert names_the_clock(told, wrong), told
    else:
        assert json.loads(told.stdout)["state"] == "confirmed"
    claims_run_out(rig)
    check(rig)
    sealed(rig, file.stem)
    check_over(rig, file.stem)


def test_what_died_by_a_clock_that_was_ahead_blocks_nobody_for_an_hour(rig: Rig, spec: Spec) -> None:
    """Its claim lasts until 30 s after the hour, by the right clock."""
    file = spec()
    rig.active(file)
    for table in ("tasks", "audit_sources"):
        rig.sql(f"UPDATE {table} SET claim_until = ?", time.time() + 3630)
    begun = time.monotonic()
    ended = rig("operator", "complete", file.stem)
    assert time.monotonic() - begun < 10
    check(rig, ended)
    check_over(rig, file.stem)
