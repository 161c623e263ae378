"""Who decides what, and how a task ends: approvals, denials, revisions, windows, every common end."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import SPEC, Cli, Quick, at_terminal

from jitvault import shipped_files as shipped
from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault

SHORT_S = 12  # a window in which an agent has 7 s to unwrap


@dataclass(frozen=True)
class Timed:
    """Two tasks that were granted when this file began and that nobody ends."""

    deadline: str
    unclaimed: str
    granted: float
    extra: dict[str, str]


@pytest.fixture
def cli(quick: Cli) -> Cli:
    return quick


@pytest.fixture(scope="module", autouse=True)
def timed(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timed]:
    """The waits for their ends pass while the other tests run."""
    home = tmp_path_factory.mktemp("timed")
    templates = home / "templates"
    templates.mkdir()
    text = (shipped.templates_dir() / "postgres-readonly.yaml").read_text()
    (templates / "postgres-readonly.yaml").write_text(text.replace("wrap_ttl: 2m", "wrap_ttl: 5s"))
    cli, it = (
        Quick(variables, home),
        Timed("at-deadline", "unclaimed", time.monotonic(), {"JITVAULT_TEMPLATES": str(templates)}),
    )
    for task, window in ((it.unclaimed, "15m"), (it.deadline, f"{SHORT_S}s")):
        file = home / f"{task}.yaml"
        file.write_text(
            SPEC.format(
                id=task, criticality="low", template="postgres-readonly", window=window, intent="Count.", more=""
            )
        )
        granted = cli("operator", "grant", file, "--json", extra=it.extra)
    cli("agent", "unwrap", "-", "--read", "--json", given=granted.stdout)
    yield it


def pending(cli: Cli, file: Path, count: int) -> str:
    """Ask for the task in `file`, which needs `count` approvals; gives its digest."""
    asked = cli("operator", "grant", file, "--json", code=4).json
    assert (asked["state"], asked["missing"]) == ("pending_approval", [{"group": "jitvault-approvers", "count": count}])
    return str(asked["digest"])


def in_s(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- approvals ---------------------------------------------------------------------------------------


def test_high_risk_needs_two_different_approvers(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec(criticality="high")
    asked = cli("operator", "grant", file, "--json", code=4)
    both = [{"group": "jitvault-approvers", "count": 1}, {"group": "jitvault-security", "count": 1}]
    assert asked.json["missing"] == both
    assert "1 of jitvault-approvers, 1 of jitvault-security" in asked.error["message"]
    for _ in ("once", "twice"):
        approved = cli("approver-1", "approve", file.stem, "--yes", "--json").json
        assert (approved["state"], approved["missing"]) == ("pending_approval", both[1:]), "the same one counts once"
    assert cli("operator", "grant", file, "--json", code=4).json["missing"] == both[1:]
    assert cli("approver-2", "approve", file.stem, "--yes", "--json").json["state"] == "approved"
    assert cli("operator", "grant", file.stem, "--json").json["wrapping"]


def test_the_tier_of_a_template_raises_the_risk(cli: Cli, spec: Callable[..., Path]) -> None:
    pending(cli, spec(criticality="low", template="postgres-readwrite"), 1)


def test_nobody_approves_what_they_ask_for_use_or_own(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec(criticality="medium")
    file.write_text(file.read_text().replace("owner: data-owner", "owner: approver-1"))
    pending(cli, file, 1)
    for who, part in (("operator", "requester"), ("agent", "agent"), ("approver-1", "owner")):
        refused = cli(who, "approve", file.stem, "--yes", "--json", code=3)
        assert f"you are the {part} of task {file.stem}" in refused.error["message"]
    assert cli("approver-2", "approve", file.stem, "--yes", "--json").json["state"] == "approved"


def test_only_approvers_approve(cli: Cli, spec: Callable[..., Path], world: World) -> None:
    file = spec(criticality="medium")
    pending(cli, file, 1)
    other_operator = {"VAULT_TOKEN": world.operator_2_token.reveal()}
    for who, extra in (("auditor", {}), (None, other_operator)):
        refused = cli(who, "approve", file.stem, "--yes", "--json", code=10, extra=extra).error
        assert f"Vault does not let you decide about task {file.stem}" in refused["message"]
        assert "Only members of jitvault-approvers or jitvault-security can" in refused["hint"]
    pending(cli, file, 1)


def test_a_decision_is_only_signed_for_the_digest_that_is_published(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec(criticality="medium")
    digest = pending(cli, file, 1)
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    refused = cli("approver-1", "approve", file.stem, "--yes", "--digest", other, code=9)
    assert digest in refused.stderr and other in refused.stderr
    pending(cli, file, 1)


@pytest.mark.parametrize("answer", ["", "n\n"])
def test_without_a_yes_nothing_is_signed(cli: Cli, spec: Callable[..., Path], answer: str) -> None:
    file = spec(criticality="medium")
    digest = pending(cli, file, 1)
    asked = cli("approver-1", "approve", file.stem, code=2, given=answer)
    assert asked.stdout == "" and f"Digest: {digest}" in asked.stderr, "it shows what it asks about"
    assert "nothing was signed" in asked.stderr and "--yes" in asked.stderr
    pending(cli, file, 1)


# -- denials -----------------------------------------------------------------------------------------


def test_a_denial_wins_over_approvals(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec(criticality="medium")
    pending(cli, file, 1)
    assert cli("approver-1", "approve", file.stem, "--yes", "--json").json["state"] == "approved"
    denied = cli("approver-2", "deny", file.stem, "--yes", "--reason", "Not today.", "--json").json
    assert denied["state"] == "denied"
    refused = cli("operator", "grant", file.stem, "--json", code=3)
    assert refused.json["state"] == "denied"
    assert refused.error["message"] == f'task {file.stem} is denied: approver-2 denied it: "Not today."'


# -- one id, one request -----------------------------------------------------------------------------


def test_why_it_is_denied_is_said_once_at_a_terminal(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec(criticality="medium")
    cli("operator", "submit", file)
    cli("approver-1", "deny", file.stem, "--yes", "--reason", "Not today.")
    shown = at_terminal(cli, "operator", "grant", file.stem, width=120)
    assert shown.code == 3 and shown.stdout.count("Not today.") == 1 and shown.stdout.count("--revise") == 1
    # a pipe has one of the two streams alone
    refused = cli("operator", "grant", file.stem, code=3)
    assert "Not today." in refused.stdout and "Not today." in refused.stderr


def test_the_same_spec_under_the_same_id_resumes(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec(criticality="medium")
    digest = pending(cli, file, 1)
    same = file.with_suffix(".json")
    same.write_text(json.dumps(cli(None, "spec", "check", file, "--json").json["spec"]))
    assert pending(cli, same, 1) == digest, "another format of the same request"
    cli("approver-1", "approve", file.stem, "--yes")
    assert cli("operator", "grant", same, "--json").json["digest"] == digest


def test_another_spec_under_the_same_id_is_refused_with_the_difference(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec(criticality="medium")
    digest = pending(cli, file, 1)
    spec(task=file.stem, criticality="medium", window="30m")
    refused = cli("operator", "grant", file, code=9)
    assert "spec.window.for: '15m' → '30m'" in refused.stderr and "--revise" in refused.stderr
    assert cli("operator", "status", file.stem, "--json").json["digest"] == digest


def test_revise_makes_a_second_revision_for_which_old_approvals_do_not_count(
    cli: Cli, spec: Callable[..., Path]
) -> None:
    file = spec(criticality="medium")
    first = pending(cli, file, 1)
    cli("approver-1", "approve", file.stem, "--yes")
    spec(task=file.stem, criticality="medium", intent="Count them twice.")
    revised = cli("operator", "grant", file, "--revise", "--json", code=4).json
    assert revised["digest"] != first and revised["missing"][0]["count"] == 1
    shown = cli("operator", "status", file.stem, "--json").json
    assert shown["revision"]["number"] == 2
    assert shown["digest"] not in {decision["digest"] for decision in shown["decisions"]}
    cli("approver-1", "approve", file.stem, "--yes", "--digest", first, code=9)
    cli("approver-1", "approve", file.stem, "--yes", "--digest", revised["digest"])
    assert cli("operator", "grant", file.stem, "--json").json["digest"] == revised["digest"]


def test_the_report_names_only_who_approved_the_revision_it_reports(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec(criticality="medium")
    pending(cli, file, 1)
    cli("approver-1", "approve", file.stem, "--yes")
    spec(task=file.stem, criticality="medium", intent="Count them twice.")
    cli("operator", "grant", file, "--revise", code=4)
    (row,) = cli("auditor", "report", file.stem, "--json").json["leases"]
    assert (row["revision"], row["approved_by"]) == (2, [])


def test_what_was_granted_cannot_be_revised(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec()
    cli("operator", "grant", file)
    spec(task=file.stem, intent="Count something else.")
    refused = cli("operator", "grant", file, "--revise", code=9)
    assert f"task {file.stem} is issued with another spec: spec.intent" in refused.stderr


def test_another_operator_cannot_take_the_id(cli: Cli, spec: Callable[..., Path], world: World) -> None:
    file = spec()
    cli("operator", "submit", file)
    other = {"VAULT_TOKEN": world.operator_2_token.reveal()}
    for what in (file, file.stem):
        assert cli(None, "grant", what, "--json", code=9, extra=other).stdout == ""
    assert "was submitted by operator" in cli(None, "grant", file, code=9, extra=other).stderr


def test_operators_ask_for_any_agent_and_an_agent_for_itself_alone(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec()
    file.write_text(file.read_text().replace("agent: research-agent", "agent: operator"))
    refused = cli("agent", "grant", file, "--json", code=3)
    assert refused.json["state"] == "denied"
    unsigned = cli("auditor", "grant", spec(), "--json", code=10)
    assert "Only members of jitvault-operators can" in unsigned.error["hint"] and unsigned.stdout == ""


# -- ends --------------------------------------------------------------------------------------------


def test_a_misspelt_group_of_an_approver_is_answered_with_those_that_there_are(
    cli: Cli, spec: Callable[..., Path]
) -> None:
    file = spec(criticality="medium")
    pending(cli, file, 1)
    wrong = cli("approver-1", "approve", file.stem, "--yes", "--group", "jitvault-aprovers", "--json", code=2).error
    assert "nobody decides in that name (did you mean jitvault-approvers?)" in wrong["message"]
    assert f"Task {file.stem} is decided by jitvault-approvers; you are registered for" in wrong["hint"]


def test_a_revision_that_changes_nothing_says_so(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec(criticality="medium")
    pending(cli, file, 1)
    again = cli("operator", "submit", file, "--revise").stderr
    assert "the spec is that of revision 1 already: nothing changes, and approvals stay" in again
    assert "nothing changes" not in cli("operator", "submit", file).stderr


@pytest.mark.parametrize("worker", [True, False], ids=["worker", "no worker"])
def test_a_misspelt_task_is_answered_with_one_that_the_caller_may_list(
    quick: Cli, spec: Callable[..., Path], *, worker: bool
) -> None:
    file = spec(more="  deliver: agent\n")
    quick("operator", "grant", file)
    wrong = file.stem[:-2] + "x" + file.stem[-2:]
    commands = [("operator", "status"), ("auditor", "status"), ("operator", "revoke"), ("approver-1", "approve")]
    for who, command in [*commands, ("agent", "complete")]:
        missing = quick(who, command, wrong, code=9, worker=worker).stderr
        assert f"{wrong}" in missing and f"(did you mean {file.stem}?)" in missing, (who, command)
    missing = quick("operator", "extend", wrong, "--for", "5m", "--reason", "x", code=9, worker=worker).stderr
    assert f"(did you mean {file.stem}?)" in missing
    assert "did you mean" not in quick("operator", "status", "quite-another", code=9, worker=worker).stderr
    agent = ["freeze", "--agent", "reserch-agent", "--reason", "x"]
    assert "(did you mean research-agent?)" in quick("operator", *agent, code=9, worker=worker).stderr
    written = (misspelt := spec()).read_text().replace("research-agent", "reserch-agent")
    misspelt.write_text(written)
    for command in ("submit", "grant"):
        told = quick("operator", command, misspelt, code=8).stderr
        assert "No other task has the agent reserch-agent (did you mean research-agent?)." in told
    quick("operator", "complete", file.stem)
    # an agent may list its own inbox alone
    quick("operator", "submit", other := spec())
    near = other.stem[:-2] + "x" + other.stem[-2:]
    assert f"(did you mean {other.stem}?)" in quick("operator", "status", near, code=9, worker=worker).stderr
    assert f"(did you mean {other.stem}?)" not in quick("agent", "status", near, code=9, worker=False).stderr


def test_cancel_withdraws_a_task_for_good(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec()
    cli("operator", "submit", file)
    assert cli("operator", "cancel", file.stem, "--json").json["state"] == "cancelled"
    assert "is cancelled" in cli("operator", "grant", file.stem, code=9).stderr
    assert "never granted" in cli("operator", "complete", file.stem, code=9).stderr


def test_a_denied_task_cannot_be_cancelled_and_stays_readable(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec(criticality="medium")
    pending(cli, file, 1)
    denied = cli("approver-1", "deny", file.stem, "--yes").stderr
    assert "No reason is given: operator will not know why. --reason WHY gives one." in denied
    assert "nothing to cancel" in cli("operator", "cancel", file.stem, code=9).stderr
    assert cli("operator", "status", file.stem, "--json").json["state"] == "denied"


def test_what_was_not_granted_cannot_be_completed_and_a_revocation_cancels_it(
    cli: Cli, spec: Callable[..., Path]
) -> None:
    file, other = spec(), spec()
    for each in (file, other):
        cli("operator", "submit", each)
    refused = cli("operator", "complete", file.stem, code=9)
    assert "never granted" in refused.stderr and f"jitvault cancel {file.stem}" in refused.stderr
    assert cli("operator", "grant", file.stem, "--json").json["wrapping"], "it left no wish to end it"
    assert "now it never is" in cli("operator", "revoke", other.stem).stderr
    assert cli("operator", "status", other.stem, "--json").json["state"] == "cancelled"
    cli("operator", "grant", other, code=9)


def test_what_was_granted_cannot_be_cancelled(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec()
    cli("operator", "grant", file)
    assert f"jitvault revoke {file.stem}" in cli("operator", "cancel", file.stem, code=9).stderr
    assert cli("operator", "status", file.stem, "--json").json["state"] == "issued"


def test_any_operator_revokes_with_a_reason_and_a_second_revoke_says_the_same(
    cli: Cli, spec: Callable[..., Path], world: World
) -> None:
    file = spec()
    cli("operator", "grant", file)
    other = {"VAULT_TOKEN": world.operator_2_token.reveal()}
    first = cli(None, "revoke", file.stem, "--reason", "Wrong agent.", "--json", extra=other).json
    assert (first["end_reason"], first["confirmed"]) == ("operator", True)
    assert cli("operator", "revoke", file.stem, "--json").json == first
    timeline = cli("auditor", "status", file.stem, "--json").json["timeline"]
    (ending,) = [event["body"] for event in timeline if event["event"] == "ending"]
    assert (ending["note"], ending["by"]) == ("Wrong agent.", world.entity_ids["operator-2"])


def test_not_before_its_window_nothing_is_granted_and_then_it_is(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec()
    begins = time.time() + 4
    file.write_text(file.read_text().replace("{for: 15m}", f"{{for: 15m, not_before: '{in_s(4)}'}}"))
    early = cli("operator", "grant", file, "--json", code=9)
    assert early.json["state"] == "approved" and "window has not begun" in early.error["message"]
    time.sleep(max(0.0, begins - time.time()))
    assert cli("operator", "grant", file.stem, "--json").json["wrapping"]


def test_the_agent_ends_its_task_by_revoking_its_own_token(cli: Cli, spec: Callable[..., Path], world: World) -> None:
    file = spec()
    granted = cli("operator", "grant", file, "--json")
    held = cli("agent", "unwrap", "-", "--json", given=granted.stdout).json
    http(world, "auth/token/revoke-self", held["token"], "PUT")
    shown = cli("operator", "status", file.stem, "--json").json
    assert (shown["state"], shown["end_reason"]) == ("confirmed", "completed")
    assert shown["proof"]["token"]["verdict"] == "audit_confirmed"


def test_the_agent_may_complete_its_task(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec()
    cli("operator", "grant", file)
    ended = cli("agent", "complete", file.stem, "--json").json
    assert (ended["end_reason"], ended["confirmed"]) == ("completed", True)
    assert "Vault does not let you end task" in cli("auditor", "revoke", _granted(cli, spec()), code=10).stderr


def test_a_task_for_its_agent_is_delivered_to_the_agent_only(cli: Cli, spec: Callable[..., Path]) -> None:
    file = spec(more="  deliver: agent\n")
    granted = cli("operator", "grant", file, "--json")
    assert granted.json["state"] == "issued" and granted.json["wrapping"] == []
    cli("operator", "unwrap", file.stem, code=9)
    assert cli("agent", "unwrap", file.stem, "--json").json["task_id"] == file.stem
    cli("agent", "unwrap", file.stem, code=9)


# -- what time ends (granted when this file began) ---------------------------------------------------


def test_nobody_unwrapped_in_time_ends_a_task_as_unclaimed(cli: Cli, timed: Timed) -> None:
    time.sleep(max(0.0, timed.granted + 9 - time.monotonic()))
    shown = cli("operator", "status", timed.unclaimed, "--json", extra=timed.extra).json
    assert (shown["state"], shown["end_reason"]) == ("confirmed", "unclaimed")
    assert shown["proof"]["confirmed"] and shown["proof"]["token"]["verdict"] == "audit_confirmed"


def test_the_deadline_ends_a_task_and_status_proves_it(cli: Cli, timed: Timed) -> None:
    time.sleep(max(0.0, timed.granted + SHORT_S + 4 - time.monotonic()))
    shown = cli("operator", "status", timed.deadline, "--json", extra=timed.extra).json
    assert (shown["state"], shown["end_reason"]) == ("confirmed", "deadline")
    (lease,) = shown["proof"]["leases"]
    assert lease["verdict"] == "target_confirmed" and all(check["ok"] for check in lease["checks"])
    assert all(check["ok"] for check in shown["proof"]["token"]["checks"])


def _granted(cli: Cli, file: Path) -> str:
    cli("operator", "grant", file)
    return file.stem


def http(world: World, path: str, token: str, method: str = "GET") -> Any:
    request = urllib.request.Request(f"{world.address}/v1/{path}", method=method, headers={"X-Vault-Token": token})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def test_a_refused_grant_is_not_issued_when_its_reason_is_gone(
    cli: Cli, spec: Callable[..., Path], world: World
) -> None:
    file = spec()
    newcomer = f"{file.stem}-agent"
    file.write_text(file.read_text().replace("research-agent", newcomer))
    refused = cli("operator", "grant", file, "--json", code=8)
    assert newcomer in refused.error["message"]
    admin = Vault(Connection(world.address), world.admin_token)
    agents = "identity/group/name/jitvault-agents"
    members = (admin.read(agents) or {})["data"]["member_entity_ids"]
    made = admin.write("identity/entity", {"name": newcomer})["data"]["id"]
    admin.write(agents, {"member_entity_ids": [*members, made]})
    try:
        assert newcomer in cli("operator", "status", file.stem, "--json", code=9).error["message"]
        assert cli("operator", "grant", file.stem, "--json", code=8)
        # asked for again, it is looked at again
        assert cli("operator", "grant", file, "--json").json["state"] == "issued"
    finally:
        # who has no signing key yet would be a step of `init --plan` in the tests that share this Vault
        admin.write(agents, {"member_entity_ids": list(members)})
