"""Reads that are in flight while their task ends: each lease that comes late is found, ended and proven.

Vault gives a lease to a read that began before its token was revoked (docs/vault-facts.md, "Revocation"). Some rounds
are always made, and `make races` makes thirty and tells how many leases were late.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from rig import PREFIX, Rig

from jitvault import shipped_files as shipped
from jitvault.audit.observation import Kind
from jitvault.model.states import DEAD

pytestmark = pytest.mark.usefixtures("lab", "hurried")
Spec = Callable[..., Path]
ROUNDS = int(os.environ.get("JITVAULT_TEST_REVOCATIONS", "3"))
READERS = 6


@pytest.fixture
def generous(rig: Rig, tmp_path: Path) -> Rig:
    """The same rig with the shipped templates and a budget that no test uses up; it is no part of a policy."""
    templates = tmp_path / "templates"
    templates.mkdir()
    for shipped_one in shipped.templates_dir().glob("*.yaml"):
        text, n = re.subn(r"lease_budget: \d+", "lease_budget: 1000", shipped_one.read_text())
        assert n == 1
        (templates / shipped_one.name).write_text(text)
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_TEMPLATES": str(templates)}
    return rig


@dataclass
class Race:
    """What the readers of one task got, lease id → login, and how the task stood each time it was looked at."""

    task: str
    got: dict[str, str] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    turns: int = 0


@pytest.mark.timeout(60 + 40 * ROUNDS)
def test_every_lease_of_a_read_in_flight_is_found_revoked_and_proven_before_confirmed(
    generous: Rig, spec: Spec, capsys: pytest.CaptureFixture[str]
) -> None:
    rig, races = generous, list[Race]()
    for _ in range(ROUNDS):
        file = spec()
        held = rig.use(rig.granted(file), read=False)
        race = Race(file.stem)
        race.got = _read_while(rig, held.token, lambda task=file.stem: rig("operator", "revoke", task, code=None))
        _until_confirmed(rig, race)
        _check_confirmed(rig, race)
        races.append(race)
    rig.settle()
    for race in races:
        _until_sealed(rig, race.task)
        # no lease was found later than that
        assert {lease.lease_id for lease in rig.record(race.task).leases} == set(race.got)
    late, got = sum(len(race.late) for race in races), sum(len(race.got) for race in races)
    with capsys.disabled():
        late_tasks, again = sum(bool(race.late) for race in races), sum(race.turns > 1 for race in races)
        print(  # noqa: T201 - the figures are what `make races` is for
            f"\n{READERS} readers, {ROUNDS} revocations: {got} leases, {late} of them later than the end of their "
            f"token, in {late_tasks} tasks; {again} tasks were not confirmed by the first command; all proven before"
        )


def _until_confirmed(rig: Rig, race: Race) -> None:
    """The reads that hang are cut off by the server after 2 s, so a few commands are enough."""
    for _ in range(6):
        race.turns += 1
        if rig.record(race.task).task.state in ("confirmed", "sealed"):
            return
        rig("operator", "revoke", race.task, code=None)
    raise AssertionError(rig.record(race.task).task)


def _check_confirmed(rig: Rig, race: Race) -> None:
    """All that the readers got is known and proven dead in what was committed as `confirmed`, and gone in truth."""
    record = rig.record(race.task)
    assert race.got
    assert {lease.lease_id for lease in record.leases} == set(race.got)
    assert {lease.verdict for lease in record.leases} == {"target_confirmed"}
    assert {lease.verdict for lease in record.leases} <= DEAD
    assert not any(rig.lease_is_live(lease.lease_id) for lease in record.leases)
    assert rig.database_roles().isdisjoint(race.got.values())
    # there was one end, and it was not taken back for a lease that came after it
    kinds = [event.kind for event in record.events]
    assert kinds.count("confirmed") == 1
    assert "late_lease" not in kinds
    race.late = _late(rig, race)


def _late(rig: Rig, race: Race) -> set[str]:
    """The leases whose issue stands behind the revocation of their token in Vault's own order."""
    record = rig.record(race.task)
    lines = rig.wiring().worker.ledger.trail(record).observations
    (token,) = {grant.accessor_hmac for grant in record.grants}
    ended = next(o for o in lines if o.kind is Kind.TOKEN_REVOKED and o.subject == token and o.closing)
    return {
        o.subject for o in lines if o.kind is Kind.LEASE_ISSUED and o.closing and o.place.offset > ended.place.offset
    }


def _until_sealed(rig: Rig, task: str) -> None:
    """The agent did not know that its task was revoked: that it tried once more is told."""
    for _ in range(4):
        status: dict[str, Any] = rig("operator", "status", task, code=None).json
        assert {found["rule"] for found in status["findings"]} <= {"after_end"}
        if status["state"] == "sealed":
            return
        rig.settle()
    raise AssertionError(status)


def _read_while(rig: Rig, token: str, act: Callable[[], object]) -> dict[str, str]:
    """Six threads read credentials until they are refused; lease id → role name of all that they got."""
    got: dict[str, str] = {}

    def read() -> None:
        with requests.Session() as session:
            session.headers["X-Vault-Token"] = token
            while True:
                answer = session.get(f"{rig.world.address}/v1/{PREFIX}", timeout=30)
                if not answer.ok:
                    return
                body = answer.json()
                got[body["lease_id"]] = body["data"]["username"]

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    time.sleep(0.15)
    act()
    for thread in threads:
        thread.join()
    return got


def test_a_read_that_hangs_at_the_target_is_waited_for(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    with psycopg.connect(rig.world.target_dsn) as target:
        target.execute("LOCK TABLE pg_authid IN SHARE MODE")
        answers: list[int] = []

        def read() -> None:
            headers = {"X-Vault-Token": held.token}
            answers.append(requests.get(f"{rig.world.address}/v1/{PREFIX}", headers=headers, timeout=30).status_code)

        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.2)
        assert rig("operator", "complete", file.stem).json["confirmed"]
        # confirmed only once the request has its answer: the server cut it off
        assert not reader.is_alive() or answers
        reader.join()
    assert answers == [500]


def test_a_task_with_many_leases_is_still_proven(generous: Rig, spec: Spec) -> None:
    """OpenBao refuses a document of 1,000 strings or more: the proof of so many leases has to fit."""
    rig, file = generous, spec()
    held = rig.use(rig.granted(file), read=False)
    vault = rig.vault(held.token)
    for _ in range(40):
        vault.read(PREFIX)
    ended = rig("operator", "complete", file.stem).json
    assert [lease["verdict"] for lease in ended["leases"]] == ["target_confirmed"] * 40
    assert rig("operator", "complete", file.stem).json == ended
