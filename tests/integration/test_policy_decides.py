"""What policy obliges to, on real servers: caps, proof, groups, what is counted, and policies that change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Quick, Result, without_limits
from ledgers import place_of
from rig import Rig

from jitvault import shipped_files as shipped
from jitvault.settings import load
from jitvault.wiring import Wiring

Spec = Callable[..., Path]
CEDAR = shipped.policies_dir() / "cedar"
SUBMIT = '@id("ask") permit (principal, action == Action::"submit", resource);\n'
APPROVE = '@id("may-approve") permit (principal, action == Action::"approve", resource);\n'
GRANT = 'permit (principal, action == Action::"grant", resource);\n'


@pytest.fixture
def rig(variables: dict[str, str], world: Any, tmp_path: Path) -> Rig:
    return Rig(world, Quick(variables, tmp_path), place_of(variables["JITVAULT_LEDGER"]))


@pytest.fixture
def policies(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """`policies(text)`: the environment in which these are the policies."""

    def write(text: str) -> dict[str, str]:
        directory = tmp_path / "own-policies"
        directory.mkdir(exist_ok=True)
        (directory / "own.cedar").write_text(text)
        (directory / "jitvault.cedarschema").write_text((CEDAR / "jitvault.cedarschema").read_text())
        return {"JITVAULT_POLICIES": str(directory)}

    return write


@pytest.fixture
def limited(tmp_path: Path) -> dict[str, str]:
    return {"JITVAULT_POLICIES": str(CEDAR)}


def decisions(rig: Rig, task: str) -> list[dict[str, Any]]:
    return [e.body["decision"] for e in rig.record(task).events if e.kind in ("submitted", "revised", "decided")]


@pytest.mark.parametrize(("annotation", "seconds"), [('@max_ttl("60s")', 60), ('@max_window("90s")', 90)])
def test_policy_caps_the_life_of_the_token(
    rig: Rig, spec: Spec, policies: Callable[[str], dict[str, str]], annotation: str, seconds: int
) -> None:
    file = spec()
    extra = policies(SUBMIT + f'@id("short") {annotation} {GRANT}')
    rig("operator", "grant", file, extra=extra)
    grant = rig.record(file.stem).grants[0]
    assert grant.ttl_s == seconds
    (token,) = rig.task_tokens(file.stem)
    assert 0 < token["ttl"] <= seconds
    rig("operator", "complete", file.stem, extra=extra)


def test_a_cap_that_leaves_no_time_issues_nothing(
    rig: Rig, spec: Spec, policies: Callable[[str], dict[str, str]]
) -> None:
    file = spec()
    refused = rig("operator", "grant", file, code=8, extra=policies(SUBMIT + f'@id("short") @max_ttl("9s") {GRANT}'))
    assert "9s are left" in refused.error["message"]
    assert rig.task_tokens(file.stem) == [] and rig.record(file.stem).grants == ()


def audit_template(home: Path, *, probe: bool) -> dict[str, str]:
    """A template whose end the audit stream proves alone, with a probe that could be asked or without."""
    directory = home / "templates"
    directory.mkdir()
    text = (shipped.templates_dir() / "postgres-readonly.yaml").read_text()
    text = text.replace("confirm: target", "confirm: audit\n  confirm_why: nobody looks")
    (directory / "postgres-readonly.yaml").write_text(text if probe else text.replace("\n  probe: postgres", ""))
    return {"JITVAULT_TEMPLATES": str(directory)}


@pytest.mark.parametrize("probe", [True, False])
def test_policy_raises_what_has_to_prove_the_end(
    rig: Rig, spec: Spec, policies: Callable[[str], dict[str, str]], tmp_path: Path, probe: bool
) -> None:
    extra = audit_template(tmp_path, probe=probe) | policies(SUBMIT + f'@id("proof") @confirm("target") {GRANT}')
    lax = extra | {"JITVAULT_POLICIES": str(without_limits(tmp_path / "lax"))}
    file, other = spec(), spec()
    if not probe:
        refused = rig("operator", "grant", file, code=8, extra=extra)
        assert "it names no probe" in refused.error["message"] and rig.task_tokens(file.stem) == []
        return
    rig("operator", "grant", file, code=8, extra=extra)
    check = ("admin", "templates", "check", "postgres-readonly")
    rig(*check, extra=extra)
    try:
        for task, environment, verdict in ((file, extra, "target_confirmed"), (other, lax, "audit_confirmed")):
            rig.use(rig("operator", "grant", task, extra=environment).json)
            ended = rig("operator", "complete", task.stem, extra=environment).json
            assert (ended["confirmed"], ended["leases"][0]["verdict"]) == (True, verdict)
    finally:
        rig(*check)


def test_a_group_that_is_not_there_is_refused(rig: Rig, spec: Spec, policies: Callable[[str], dict[str, str]]) -> None:
    file = spec()
    text = SUBMIT + APPROVE + f'@id("p") @approvals("1") @approver_group("jitvault-nobody") {GRANT}'
    rig("operator", "grant", file, "--wait", "0", alone=True, code=13)
    refused = str(rig.turn(file.stem, code=8, extra=policies(text)))
    assert "its approver group jitvault-nobody does not exist in Vault" in refused
    assert rig.task_tokens(file.stem) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("permit (", "own.cedar"),
        (f'@id("p") {GRANT[:-2]} when {{ context.nothing == 1 }};', "does not validate"),
        ('@id("p") permit (principal, action == Action::"take", resource);', "does not validate"),
        (f'@id("p") @approvals("many") {GRANT}', "@approvals"),
        (f'@id("p") @approvals("1") @approver_group("admins") {GRANT}', "expected a Vault group named jitvault-"),
        (f'@id("p") @max_ttl("for ever") {GRANT}', "@max_ttl"),
        (f'@id("p") @aprovals("2") {GRANT}', "unknown annotation @aprovals"),
    ],
    ids=["no Cedar", "not in the schema", "unknown action", "number", "group", "duration", "misspelt"],
)
def test_by_a_set_that_is_wrong_nothing_is_decided(
    rig: Rig, spec: Spec, policies: Callable[[str], dict[str, str]], text: str, said: str
) -> None:
    file = spec()
    for command in ("submit", "grant"):
        rig("operator", command, file, "--wait", "0", alone=True, code=13)
        assert said in str(rig.turn(file.stem, code=8, extra=policies(SUBMIT + text)))
    assert rig.task_tokens(file.stem) == []
    assert rig.state(file.stem) is None


def test_policy_can_forbid_an_approval(rig: Rig, spec: Spec, policies: Callable[[str], dict[str, str]]) -> None:
    file = spec()
    not_him = (
        '@id("not-him") @reason("he is on leave") forbid (principal, action == Action::"approve", resource) '
        'when { principal.name == "approver-1" };\n'
    )
    extra = policies(SUBMIT + APPROVE + not_him + f'@id("p") @approvals("1") {GRANT}')
    rig("operator", "grant", file, code=4, extra=extra)
    refused = rig("approver-1", "approve", file.stem, "--yes", code=3, extra=extra).error
    assert "may not approve this by policy: forbidden by not-him: he is on leave" in refused["message"]
    assert rig("approver-2", "approve", file.stem, "--yes", extra=extra).json["state"] == "approved"


def test_the_decision_and_its_policies_are_in_chain_publication_and_receipt(
    rig: Rig, spec: Spec, policies: Callable[[str], dict[str, str]]
) -> None:
    file = spec()
    first = policies(SUBMIT + APPROVE + f'@id("p") @approvals("1") @notify("security") {GRANT}')
    rig("operator", "grant", file, code=4, extra=first)
    rig("approver-1", "approve", file.stem, "--yes", extra=first)
    (before, *_) = decisions(rig, file.stem)
    # another set that comes to the same: what was decided by is told again
    second = policies(SUBMIT + APPROVE + f'// more\n@id("p") @approvals("1") @notify("security") {GRANT}')
    rig("operator", "grant", file.stem, extra=second)
    last = decisions(rig, file.stem)[-1]["policy"]
    assert last["policy_digest"] != before["policy"]["policy_digest"]
    assert last["rules"] == before["policy"]["rules"] == ["ask", "p"]
    assert last["obligations"]["approvals"] == [{"group": "jitvault-approvers", "count": 1}]
    assert last["obligations"]["notify"] == ["security"]
    told = rig.document(f"tasks/{file.stem}")["decision"]
    assert told == last
    rig("operator", "complete", file.stem, extra=second)
    shown = rig("operator", "status", file.stem, extra=second).json
    assert shown["decision"] == last


# -- what is counted ----------------------------------------------------------------------------------------


def test_an_agent_is_granted_no_more_leases_than_its_budget(
    rig: Rig, spec: Spec, policies: Callable[[str], dict[str, str]]
) -> None:
    full = (
        '@id("full") forbid (principal, action == Action::"grant", resource) when '
        "{ context.agent_leases + resource.lease_budget > 9 };\n"
    )
    # 5 leases each: the first fits beside nothing, the second would make 10
    extra = policies(SUBMIT + full + f'@id("p") {GRANT}')
    for held in rig.rows("SELECT task_id FROM tasks WHERE state IN ('issued', 'active')"):
        rig("operator", "revoke", held[0])
    file, other = spec(), spec()
    rig("operator", "grant", file, extra=extra)
    denied = rig("operator", "grant", other, code=3, extra=extra)
    assert "forbidden by full" in denied.error["message"]
    told = rig("operator", "policy", "explain", other, extra=extra).json
    assert "other tasks to end first, which hold leases" in told["instead"]
    # its own leases do not count against a task that is looked at again, and what is proven dead is free
    rig("operator", "status", file.stem, extra=extra)
    assert rig("operator", "complete", file.stem, extra=extra).json["confirmed"]
    assert rig("operator", "grant", other.stem, extra=extra).json["state"] == "issued"
    rig("operator", "complete", other.stem, extra=extra)


def test_explain_says_what_an_operator_without_a_ledger_can_know(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="high")
    there = rig("operator", "policy", "explain", file).json
    away = rig.cli("operator", "policy", "explain", file, "--json", worker=False).json
    assert there["assumed"] == [] and "no other task holds a lease" in away["assumed"]
    assert there["decision"] == away["decision"]
    # who is no operator is told so
    told = rig("auditor", "policy", "explain", file).json
    assert not told["decision"]["permitted"] and told["instead"] == ["a requester in jitvault-operators"]
    assert rig.rows("SELECT count(*) FROM tasks WHERE task_id = ?", file.stem) == [(0,)], "nothing was asked for"


def test_who_has_a_login_is_explained_its_own_request(rig: Rig, spec: Spec) -> None:
    """Its groups are those that its token shows, and its name is that of its entity."""
    file = spec()
    own = rig.cli("agent", "policy", "explain", file, "--json", worker=False).json
    assert own["decision"]["permitted"] and own["assumed"][0] == "you are in no other group than jitvault-agents"
    operators = rig.cli("operator", "policy", "explain", file, "--json", worker=False).json
    assert operators["assumed"][0] == "you are in no other group than jitvault-operators"
    rig("operator", "submit", file)
    file.write_text(file.read_text().replace("research-agent", "churn-bot"))
    shown = rig.cli("agent", "policy", "explain", file, worker=False).stdout
    assert f"taken: operator requested task {file.stem}" in " ".join(shown.split())
    assert "would be denied" in shown and "research-agent asks, the spec is for churn-bot" in " ".join(shown.split())
    assert rig.cli("operator", "policy", "explain", file, "--json", worker=False).json["decision"]["permitted"]


def test_explain_says_what_is_frozen(rig: Rig, spec: Spec) -> None:
    file = spec()
    # tasks of other tests' ledgers may be held, and nobody ends those
    rig("operator", "freeze", "--template", "postgres-readonly", "--reason", "the vendor has an incident", code=None)
    try:
        (one,) = rig("operator", "policy", "explain", file).json["frozen"]
        assert one["scope"] == {"template": "postgres-readonly"} and one["reason"] == "the vendor has an incident"
        shown = rig.cli("operator", "policy", "explain", file).stdout
        said = "is frozen: nothing is granted; otherwise it would be approved at once"
        assert said in shown and "the vendor has an incident" in shown
        # operators may read freezes in Vault; agents may not
        assert said in rig.cli("operator", "policy", "explain", file, worker=False).stdout
        away = rig.cli("operator", "policy", "explain", file, "--json", worker=False).json
        assert [one["scope"] for one in away["frozen"]] == [{"template": "postgres-readonly"}]
        assert "no tripwire froze everything" in away["assumed"] and "nothing is frozen" not in away["assumed"]
        blind = rig.cli("agent", "policy", "explain", file, "--json", worker=False).json
        assert blind["frozen"] == [] and "nothing is frozen" in blind["assumed"]
    finally:
        rig("operator", "unfreeze", "--all", "--reason", "it is over")
    assert rig("operator", "policy", "explain", file).json["frozen"] == []
    told = rig.cli("operator", "policy", "explain", file, worker=False).stdout
    said = "would be approved at once; not if research-agent has an open finding, which is not known here"
    # in a pipe it is one line
    assert any(line.endswith(said) for line in told.splitlines()), told
    assert "not known here" not in rig.cli("operator", "policy", "explain", file).stdout


# -- policies that change -----------------------------------------------------------------------------------


def test_a_set_that_does_not_validate_is_never_used_and_the_last_good_one_stays(
    rig: Rig, spec: Spec, policies: Callable[[str], dict[str, str]]
) -> None:
    good = SUBMIT + f'@id("p") {GRANT}'
    extra = policies(good)
    with rig.environment("operator", extra):
        current = Wiring(load()).authorizer
    before = current.digest
    policies("permit (")
    assert not current.reload() and current.digest == before and "does not parse" in current.refused
    assert "own.cedar" in current.refused
    policies(good + '@id("new") ' + GRANT)
    assert current.reload() and current.digest != before and current.refused == ""
    # a process that begins with a bad one does nothing
    policies("permit (")
    file = spec()
    rig("operator", "grant", file, "--wait", "0", alone=True, code=13)
    assert "does not parse" in str(rig.turn(file.stem, code=8, extra=extra))


def test_the_shipped_cases_hold_and_another_policy_fails_them(
    rig: Rig, limited: dict[str, str], policies: Callable[[str], dict[str, str]]
) -> None:
    cases = shipped.policies_dir() / "cases" / "shipped.yaml"
    passed = rig(None, "policy", "test", cases, extra=limited).json
    assert passed["ok"] and len(passed["cases"]) > 30
    decided = {rule for case in passed["cases"] for rule in case["decision"]["rules"]}
    checked = rig(None, "policy", "check", CEDAR).json
    assert decided == set(checked["rules"]), "every shipped rule is in a case"
    failed: Result = rig(None, "policy", "test", cases, code=8, extra=policies(SUBMIT))
    assert not failed.json["ok"] and "cases are not decided as expected" in failed.error["message"]
    first = failed.json["cases"][0]
    assert first["differences"][0] == "decision: expected permit, got deny"
