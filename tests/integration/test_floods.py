"""What one agent writes into Vault, however much it is, delays no revocation, no renewal and no grant of others."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attended import Attended, wait_for
from commands import Quick
from floods import write_all
from rig import Rig
from worker_process import WorkerProcess

from jitvault.context import Person
from jitvault.ledger.documents import lines as document_lines
from jitvault.lifecycle import read_for_turn
from jitvault.lifecycle.requests.sign import sign_end, sign_grant_request, sign_submission
from jitvault.model.spec import parse_spec
from jitvault.model.states import EndReason
from jitvault.worker import author_listings, work_loops
from jitvault.worker import author_rate as gate

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
MANY, MANY_ENDS = 1500, 40
STEP_S = 8


@pytest.fixture
def person(rig: Rig) -> Quick:
    """The commands of people with a Vault token alone."""
    return Quick(rig.cli.variables, rig.cli.home)


def made_up(rig: Rig, kind: str, n: int = MANY, author: str = "research-agent") -> list[str]:
    """Paths below an author's own, of tasks that nobody has asked for."""
    entity, run = rig.entity(author), secrets.token_hex(3)
    return [f"requests/{entity}/x{run}-{number}/{kind}" for number in range(n)]


def test_ends_of_tasks_that_do_not_exist_delay_no_revocation_and_starve_no_renewal(
    rig: Rig, person: Quick, spec: Spec
) -> None:
    kept, revoked = spec(), spec()
    with WorkerProcess(rig, JITVAULT_ROLLING_STEP=f"{STEP_S}s"):
        tokens = [rig.use(person("operator", "grant", file, "--json", worker=False).json) for file in (kept, revoked)]
        write_all(rig, "agent", made_up(rig, "end"))
        begun = time.monotonic()
        person("operator", "revoke", revoked.stem, "--wait", "0", code=13, worker=False)
        wait_for(lambda: not rig.is_live(tokens[1].token), 60)
        took_s = time.monotonic() - begun
        assert took_s < 5, took_s
        wait_for(lambda: not rig.lease_is_live(tokens[1].lease_id), 10)
        time.sleep(STEP_S)
        assert rig.is_live(tokens[0].token) and rig.state(kept.stem) == "active", "its renewals were starved"
        person("operator", "revoke", kept.stem, worker=False)


def test_a_revocation_does_not_wait_until_a_long_stream_is_read(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked = spec()
    token = rig.use(rig("operator", "grant", revoked, "--json").json).token
    # nobody reads the stream meanwhile, and these lines stand behind what was read of it
    rig.vault(token).read("auth/token/lookup-self")
    monkeypatch.setattr(read_for_turn, "_READ_FIRST_S", 0.0)
    before = len(rig.record(revoked.stem).events)
    proof = rig("operator", "revoke", revoked.stem, "--json").json
    kinds = [event.kind for event in rig.record(revoked.stem).events[before:]]
    assert kinds[0] == "ending" and "observed" in kinds, kinds
    assert proof["confirmed"] and proof["end_reason"] == "operator"


def test_unsigned_requests_delay_no_grant(rig: Rig, person: Quick, spec: Spec) -> None:
    with WorkerProcess(rig):
        write_all(rig, "agent", made_up(rig, "submit"))
        begun = time.monotonic()
        granted = spec()
        person("operator", "grant", granted, worker=False)
        took_s = time.monotonic() - begun
        assert took_s < 5, took_s
        person("operator", "revoke", granted.stem, worker=False)


@pytest.mark.parametrize("kept", ["the newest", "none"])
def test_an_author_of_whom_no_more_lines_are_stored_waits_for_no_listing(
    rig: Rig, person: Quick, spec: Spec, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """Another operator ends what is not theirs; where no line of theirs is kept, their documents alone are listed."""
    if kept == "none":
        monkeypatch.setattr(document_lines, "MOST_NOTED", 0)
    rig.cli.variables["JITVAULT_APPROVER_1_TOKEN"] = rig.world.operator_2_token.reveal()
    person.variables = rig.cli.variables
    first, second = spec(), spec()
    with Attended(rig):
        token = rig.use(person("operator", "grant", first, "--json", worker=False).json).token
        write_all(rig, "approver-1", made_up(rig, "submit", 1, author="operator-2"))
        folder = f"requests/{rig.entity('operator-2')}/"
        wait_for(lambda: rig.rows("SELECT lines FROM writers WHERE author = ?", folder))
        rig.sql("UPDATE writers SET lines = ?", document_lines.MOST_OF_AUTHOR)
        stored = rig.rows("SELECT count(*) FROM observations WHERE kind = 'written'")
        begun = time.monotonic()
        person("approver-1", "revoke", first.stem, "--wait", "0", code=13, worker=False)
        wait_for(lambda: not rig.is_live(token), 60)
        person("operator", "grant", second, worker=False)
        took_s = time.monotonic() - begun
        assert took_s < 10, took_s
        assert rig.rows("SELECT count(*) FROM observations WHERE kind = 'written'") == stored
        # of an end of what it holds, by a party to it, the line is stored
        person("operator", "revoke", second.stem, worker=False)
        assert rig.rows("SELECT count(*) FROM observations WHERE kind = 'written'") > stored


def test_one_operators_many_ends_keep_no_grant_of_another_waiting(rig: Rig, spec: Spec) -> None:
    rig.cli.variables["JITVAULT_APPROVER_1_TOKEN"] = rig.world.operator_2_token.reveal()
    one, other = rig.wiring("operator").person, rig.wiring("approver-1").person
    many, mine = [asked(one, spec()) for _ in range(MANY_ENDS)], spec()
    held = "SELECT count(*) FROM tasks WHERE requester = ? AND state IN ('issued', 'active')"
    with Attended(rig):
        wait_for(lambda: rig.rows(held, one.entity) == [(MANY_ENDS,)], 60)
    # while no worker looks: ends that were done before the grant was asked for would say nothing
    for task in many:
        sign_end(one, task, reason=EndReason.OPERATOR, note="enough")
    task = asked(other, mine)
    with Attended(rig):
        wait_for(lambda: other.documents.get(f"inbox/{other.entity}/{task}"), 60)
        ((left,),) = rig.rows(held, one.entity)
        assert left > MANY_ENDS / 3, "it came after them"


def asked(person: Person, file: Path) -> str:
    """A task that was submitted, and whose grant was asked for."""
    found = parse_spec(file.read_bytes(), str(file))
    sign_submission(person, found, revise=False)
    sign_grant_request(person, found)
    return found.id


def test_whoever_writes_more_than_is_taken_in_is_told_and_nothing_of_it_is_lost(
    rig: Rig, person: Quick, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # whoever wrote much in the tests before has that looked at as well
    entity, many = rig.entity("operator"), made_up(rig, "submit", 80, author="operator")
    # more than are kept, so that the last ones are read again from Vault
    monkeypatch.setattr(gate, "KEPT", 20)
    monkeypatch.setattr(author_listings, "SHORTEST_REST_S", 0.2)
    monkeypatch.setattr(work_loops, "_OVER_QUOTA_S", 0.2)
    rig.cli.variables = person.variables = {**rig.cli.variables, "JITVAULT_REQUESTS_PER_MINUTE": "300"}
    with Attended(rig, tell_s=0.1) as worker:
        write_all(rig, "operator", many)
        told = wait_for(lambda: worker.log.all_of("an author writes more documents than the quota"))[0]
        assert told["author"] == entity
        waits = person("operator", "submit", spec(), "--wait", "0", "--json", code=13, worker=False).error["message"]
        assert "of your documents wait: the worker looks at 300 of one author in a minute" in waits
        checks = {check["name"]: check for check in rig("operator", "doctor", code=None).json["checks"]}
        assert checks["over quota"]["status"] == "warn" and entity in checks["over quota"]["seen"]
        with rig.ledger() as ledger:
            wait_for(lambda: all(ledger.judged(path) for path in many), 40)
            wait_for(lambda: not ledger.over_quota())
    assert "unknown_publication" not in [rule for (rule,) in rig.rows("SELECT rule FROM findings")], "no thief wrote it"
