"""A grant that was refused is settled: nothing is issued by it later. One that is queued waits, and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attended import Attended, wait_for
from commands import EXAMPLE, Quick, at_terminal, without_limits
from rig import Rig, own_rig

from jitvault.documents.signed import payload_of
from jitvault.lifecycle.requests.sign import sign_grant_request
from jitvault.model.spec import TaskSpec
from jitvault.sandbox.world import World, env

Spec = Callable[..., Path]
AGENT = ("--agent", "research-agent")
FOR_AGENT = "  deliver: agent\n"


@pytest.fixture
def rig(lab: World, tmp_path: Path) -> Rig:
    return own_rig(lab, env(lab, "", EXAMPLE), tmp_path)


@contextmanager
def frozen(rig: Rig) -> Iterator[None]:
    rig("operator", "freeze", *AGENT, "--reason", "look first")
    try:
        yield
    finally:
        rig("operator", "unfreeze", *AGENT, "--reason", "looked")


def until_looked_at(rig: Rig, task: str) -> str:
    """What becomes of the task when a worker does what is due for it."""
    return str(rig("operator", "status", task).json["state"])


@pytest.mark.parametrize("more", ["", FOR_AGENT], ids=["requester", "agent"])
def test_what_was_refused_in_a_freeze_is_not_granted_when_it_is_lifted(rig: Rig, spec: Spec, more: str) -> None:
    file = spec(more=more)
    with frozen(rig):
        refused = rig("operator", "grant", file, code=3).error
        assert "operator froze agent research-agent at " in refused["message"] and " UTC: " in refused["message"]
        assert "That settles the request" in refused["hint"] and f"jitvault grant {file.stem}" in refused["hint"]
    assert until_looked_at(rig, file.stem) == "approved"
    with Attended(rig):
        other = spec()
        assert Quick(rig.cli.variables, rig.cli.home)("operator", "grant", other, worker=False)
        assert rig.state(file.stem) == "approved" and rig.record(file.stem).grants == ()
    shown = rig("operator", "status", file.stem).json
    assert shown["refused_grant"]["error"] == {"exit_code": 3, **refused} | {
        "hint": shown["refused_grant"]["error"]["hint"]
    }
    assert shown["timeline"][-1]["event"] == "grant_refused"
    # requested again, it is granted
    assert rig("operator", "grant", file.stem).json["state"] == "issued"
    for granted in (file, other):
        rig("operator", "complete", granted.stem)


def test_whoever_has_no_workers_identity_is_refused_for_good_as_well(rig: Rig, spec: Spec) -> None:
    file = spec()
    person = Quick(rig.cli.variables, rig.cli.home)
    with Attended(rig):
        with frozen(rig):
            refused = person("operator", "grant", file, "--json", code=3, worker=False).error
            assert "That settles the request" in refused["hint"]
        said = person("operator", "status", file.stem, worker=False).stdout
        assert "grant refused" in said and "operator froze agent research-agent" in " ".join(said.split())
        other = spec()
        assert person("operator", "grant", other, worker=False)
        assert rig.state(file.stem) == "approved"
    rig("operator", "complete", other.stem)


@pytest.mark.parametrize("worker", [True, False], ids=["worker", "no worker"])
def test_the_refusal_of_an_earlier_revision_is_not_shown_of_the_present_one(
    rig: Rig, spec: Spec, *, worker: bool
) -> None:
    file = spec()
    with frozen(rig):
        rig("operator", "grant", file, code=3)
    assert "\n  grant refused" in rig.cli("operator", "status", file.stem, worker=worker).stdout
    file.write_text(file.read_text().replace("15m", "10m"))
    rig("operator", "submit", file, "--revise")
    shown = rig.cli("operator", "status", file.stem, worker=worker).stdout
    # the timeline still has it
    assert f"Task {file.stem} is approved" in shown and "\n  grant refused" not in shown
    rig("operator", "cancel", file.stem)


def test_what_policy_denied_is_not_granted_when_policy_permits_it(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file, closed = spec(), without_limits(tmp_path / "closed")
    (closed / "closed.cedar").write_text('@id("closed") forbid (principal, action == Action::"grant", resource);')
    rig("operator", "grant", file, code=3, extra={"JITVAULT_POLICIES": str(closed)})
    assert until_looked_at(rig, file.stem) == "approved"
    assert rig.record(file.stem).grants == ()
    assert rig("operator", "grant", file.stem).json["state"] == "issued"
    rig("operator", "complete", file.stem)


# -- the queue ------------------------------------------------------------------------------------------------------


def test_a_queued_grant_says_for_what_and_until_when_it_waits_and_is_issued_then(rig: Rig, spec: Spec) -> None:
    file = spec()
    person = Quick(rig.cli.variables, rig.cli.home)
    with Attended(rig):
        with frozen(rig):
            waits = person("operator", "grant", file, "--queue", "--json", worker=False).json
            assert (waits["state"], waits["next"]) == ("approved", f"jitvault cancel {file.stem}")
            assert "operator froze agent research-agent" in waits["queued"]["why"]
            until = datetime.fromisoformat(waits["queued"]["until"])
            assert timedelta(hours=23) < until - datetime.now(UTC) <= timedelta(hours=24)
            # asking for the token does not end the waiting
            again = person("operator", "grant", file.stem, "--json", worker=False).json
            assert again["queued"]["until"] == waits["queued"]["until"]
        wait_for(lambda: rig.state(file.stem) == "issued")
        assert person("operator", "grant", file.stem, "--json", worker=False).json["wrapping"]
    rig("operator", "complete", file.stem)


def test_what_waits_is_said_in_words(rig: Rig, spec: Spec) -> None:
    width = 80
    file = spec()
    with frozen(rig):
        said = at_terminal(rig.cli, "operator", "grant", str(file), "--queue", width=width)
    lines = said.stdout.splitlines()
    assert said.code == 0 and max(map(len, lines)) <= width, lines
    whole = " ".join(said.stdout.split())
    assert f"Task {file.stem} waits" in whole and " UTC, then the request lapses" in whole
    assert f"cancel jitvault cancel {file.stem}" in whole
    rig("operator", "cancel", file.stem)


def test_what_waits_can_be_cancelled(rig: Rig, spec: Spec) -> None:
    file = spec()
    with frozen(rig):
        rig("operator", "grant", file, "--queue")
        rig("operator", "cancel", file.stem)
    assert until_looked_at(rig, file.stem) == "cancelled"
    assert rig.record(file.stem).grants == ()


def test_a_file_that_is_missing_is_no_success(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file, out = spec(), tmp_path / "wrapped.json"
    with frozen(rig):
        late = rig("operator", "grant", file, "--queue", "--out", out, code=13).error
        assert " UTC: operator froze" in late["message"] and f"jitvault cancel {file.stem}" in late["hint"]
        assert not out.exists()
    rig("operator", "cancel", file.stem)


def test_a_queue_is_over_when_its_time_is_and_never_lasts_longer_than_a_day(rig: Rig, spec: Spec) -> None:
    file, person = spec(), rig.wiring().person
    rig("operator", "submit", file)
    read = TaskSpec.from_data(payload_of(rig.document(f"requests/{person.entity}/{file.stem}/submit"))["spec"], "it")
    sign_grant_request(person, read, queued_until=datetime.now(UTC) - timedelta(seconds=1))
    assert until_looked_at(rig, file.stem) == "approved"
    sign_grant_request(person, read, queued_until=datetime.now(UTC) + timedelta(days=300))
    assert until_looked_at(rig, file.stem) == "issued"
    rig("operator", "complete", file.stem)


def test_a_denial_by_policy_is_not_waited_for(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file, closed = spec(), without_limits(tmp_path / "closed")
    (closed / "closed.cedar").write_text('@id("closed") forbid (principal, action == Action::"grant", resource);')
    rig("operator", "grant", file, "--queue", code=3, extra={"JITVAULT_POLICIES": str(closed)})
    assert until_looked_at(rig, file.stem) == "approved"


def test_a_queued_request_waits_for_an_approval_and_for_its_window(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    waits = rig("operator", "grant", file, "--queue").json
    assert (waits["state"], waits["queued"]["why"]) == ("pending_approval", "1 approval by jitvault-approvers")
    rig("approver-1", "approve", file.stem, "--yes")
    assert until_looked_at(rig, file.stem) == "issued"
    rig("operator", "complete", file.stem)

    early, begins = spec(), datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    early.write_text(
        early.read_text().replace("{for: 15m}", f"{{for: 15m, not_before: '{begins:%Y-%m-%dT%H:%M:%SZ}'}}")
    )
    refused = rig("operator", "grant", early, code=9).error
    assert f"it begins at {begins:%Y-%m-%d %H:%M:%S} UTC" in refused["message"] and "--queue" in refused["hint"]
    assert f"{begins:%Y-%m-%d %H:%M:%S} UTC" in rig("operator", "grant", early, "--queue").json["queued"]["why"]
