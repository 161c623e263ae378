"""`policy check` tells what validates and is most likely not meant: as typed, at two widths, in a pipe and as JSON."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Quick, at_terminal

from jitvault import shipped_files as shipped
from jitvault.policy.named_in_conditions import NO_AGENTS_GUARD, NO_FINDINGS_GUARD
from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault

MISSPELT = """
@id("medium-risk")
@approvals("1")
@approver_group("jitvault-aprovers")
permit (
  principal in Group::"jitvault-operators",
  action in [Action::"submit", Action::"grant", Action::"renew", Action::"extend"],
  resource
) when { context.risk == "medum" };

@id("the-rest")
permit (principal, action, resource) when { ["low", "high", "critical"].contains(context.risk) };
"""
GUARDS = """
@id("no-findings")
forbid (principal, action == Action::"grant", resource) when { context.findings > 0 };

@id("agents-alone")
forbid (principal, action == Action::"grant", resource) unless { context.agent in Group::"jitvault-agents" };
"""
ONE_AGENT = """
@id("ask")
permit (principal, action == Action::"submit", resource);

@id("low")
permit (principal, action in [Action::"grant", Action::"renew"], resource)
when { context.agent.name == "tally-bot" && context.risk == "low" };

@id("medium")
@approvals("1")
permit (principal, action in [Action::"grant", Action::"renew"], resource)
when { context.agent.name == "tally-bot" && context.risk == "medium" };
"""
LEVEL = (
    'rule medium-risk compares risk with "medum", which is none of low, medium, high, critical (did you mean medium?)'
)
RISK = "no rule covers the risk medium: nothing of it is ever granted"
GROUP = "rule medium-risk names the group jitvault-aprovers: "
MEANT = " (did you mean jitvault-approvers?)"
MISSING = f"{GROUP}nobody has provisioned it in Vault{MEANT}"
UNKNOWN = f"{GROUP}`jitvault init` does not create it, and Vault was not asked{MEANT}"


@pytest.fixture
def own_group(world: World) -> Iterator[str]:
    """A group that the administrator made without `init`."""
    name = f"jitvault-own-{secrets.token_hex(4)}"
    admin = Vault(Connection(world.address), world.admin_token)
    admin.write(f"identity/group/name/{name}", {"policies": ["jitvault-approver"]})
    yield name
    admin.delete(f"identity/group/name/{name}")
    admin.close()


@pytest.fixture
def misspelt(tmp_path: Path) -> Path:
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "own.cedar").write_text(MISSPELT)
    (directory / "guards.cedar").write_text(GUARDS)
    schema = "jitvault.cedarschema"
    (directory / schema).write_text((shipped.policies_dir() / "cedar" / schema).read_text())
    return directory


@pytest.mark.parametrize("who", ["admin", None], ids=["an administrator", "the worker's identity"])
def test_a_misspelt_risk_and_group_are_told(quick: Quick, misspelt: Path, who: str | None) -> None:
    shown = quick(who, "policy", "check", misspelt).stdout.splitlines()
    assert [line for line in shown if line.startswith("warning")] == [
        f"warning: {one}" for one in (LEVEL, RISK, MISSING)
    ]
    assert quick(who, "policy", "check", misspelt, "--json").json["warnings"] == [LEVEL, RISK, MISSING]


@pytest.mark.parametrize(
    ("who", "vault"),
    [(None, {}), ("agent", {}), ("admin", {"VAULT_ADDR": "http://127.0.0.1:9"})],
    ids=["nobody", "may not look", "no answer"],
)
def test_where_vault_cannot_be_asked_a_group_that_init_does_not_create_is_told(
    quick: Quick, misspelt: Path, who: str | None, vault: dict[str, str]
) -> None:
    shown = quick(who, "policy", "check", misspelt, "--json", worker=False, extra={**vault, "JITVAULT_ADMIN_TOKEN": ""})
    assert shown.json["warnings"] == [LEVEL, RISK, UNKNOWN]


def test_a_group_of_ones_own_that_is_provisioned_is_nothing_to_tell(
    quick: Quick, misspelt: Path, own_group: str
) -> None:
    text = MISSPELT.replace("medum", "medium").replace("jitvault-aprovers", own_group)
    (misspelt / "own.cedar").write_text(text)
    assert quick("admin", "policy", "check", misspelt, "--json").json["warnings"] == []


def test_rules_for_one_agent_cover_their_risks_and_missing_guards_are_told(quick: Quick, misspelt: Path) -> None:
    (misspelt / "own.cedar").write_text(ONE_AGENT)
    uncovered = [RISK.replace("medium", risk) for risk in ("high", "critical")]
    assert quick("admin", "policy", "check", misspelt, "--json").json["warnings"] == uncovered
    (misspelt / "guards.cedar").unlink()
    warned = quick("admin", "policy", "check", misspelt, "--json").json["warnings"]
    assert warned == [*uncovered, NO_FINDINGS_GUARD, NO_AGENTS_GUARD]


AGENTS_HOST = {
    "JITVAULT_AGENT_LOGIN": "approle",
    "JITVAULT_AGENT_ROLE_ID": "no-role",
    "JITVAULT_AGENT_SECRET_ID": "no-secret",
    "JITVAULT_TEMPLATES": str(shipped.templates_dir()),
    "JITVAULT_POLICIES": "",
}


def test_an_agents_host_does_not_explain_by_policies_that_the_worker_has_not(
    quick: Quick, spec: Callable[..., Path], misspelt: Path
) -> None:
    """With a copy of the worker's policies it does, and the principal is the agent."""
    file = spec()
    refused = quick(None, "policy", "explain", file, "--json", worker=False, extra=AGENTS_HOST, code=9).error
    assert refused["message"] == "the policies that decide are the worker's, and are not on this agent's host"
    assert "`jitvault submit SPEC`" in refused["hint"] and "JITVAULT_POLICIES" in refused["hint"]
    (misspelt / "own.cedar").write_text(
        '@id("own") permit (principal, action in [Action::"submit", Action::"grant"], resource)'
        ' when { context.agent_asks && principal.name == context.agent.name && principal in Group::"jitvault-agents" };'
    )
    there = AGENTS_HOST | {"JITVAULT_POLICIES": str(misspelt)}
    found = quick(None, "policy", "explain", file, "--json", worker=False, extra=there).json
    assert found["decision"]["rules"] == ["own"] and found["assumed"][0] == "you are research-agent"
    # an operator asks for another one, so the same rule does not hold
    policies = {"JITVAULT_POLICIES": str(misspelt)}
    found = quick("operator", "policy", "explain", file, "--json", worker=False, extra=policies).json
    assert found["decision"]["rules"] == []


@pytest.mark.parametrize("own", [False, True], ids=["shipped", "own"])
def test_an_unknown_template_is_told_with_the_directory_that_was_read(
    quick: Quick, misspelt: Path, tmp_path: Path, own: bool
) -> None:
    (misspelt / "own.cedar").write_text(ONE_AGENT.replace("resource);", 'resource == AccessTemplate::"orders-only");'))
    place, set_here = f"{shipped.templates_dir()} (those that ship: JITVAULT_TEMPLATES is not set)", ""
    if own:
        set_here = str(shipped.templates_dir())
        place = f"{set_here} (JITVAULT_TEMPLATES)"
    shown = quick("admin", "policy", "check", misspelt, "--json", extra={"JITVAULT_TEMPLATES": set_here}).json
    wanted = f'rule ask names the template "orders-only", and there is none of that name in {place}'
    assert any(warning.startswith(wanted) for warning in shown["warnings"])


def test_a_window_that_policy_cut_is_told_by_grant_and_status(
    quick: Quick, spec: Callable[..., Path], misspelt: Path
) -> None:
    (misspelt / "own.cedar").write_text(
        '@id("own") @max_window("20m") @max_ttl("5m") permit (principal, action, resource);'
    )
    own = {"JITVAULT_POLICIES": str(misspelt)}
    cut, whole = "window 20m of 25m asked for (policy)", spec(window="20m")
    file = spec(window="25m")
    assert cut in " ".join(quick("operator", "grant", file, extra=own).stdout.split())
    here = " ".join(quick("operator", "status", file.stem, extra=own).stdout.split())
    assert cut in here and "ttl 5m of 15m by default (criticality low), " in here
    assert cut in " ".join(quick("operator", "status", file.stem, worker=False).stdout.split())
    quick("operator", "grant", whole, extra=own)
    assert "asked for (policy)" not in quick("operator", "status", whole.stem, extra=own).stdout


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, True), (0o600, False), (0o400, False)])
def test_a_secret_id_that_others_may_read_is_warned_of(quick: Quick, tmp_path: Path, mode: int, warned: bool) -> None:
    file = tmp_path / "secret-id"
    file.write_text("no-secret")
    file.chmod(mode)
    there = {name: value for name, value in AGENTS_HOST.items() if name != "JITVAULT_AGENT_SECRET_ID"}
    there["JITVAULT_AGENT_SECRET_ID_FILE"] = str(file)
    shown = quick(None, "list", "--json", worker=False, extra=there, code=10).stderr
    told = f"warning: JITVAULT_AGENT_SECRET_ID_FILE: {file} has mode {mode:04o} and should have 0600: "
    assert (told in shown) is warned and ("warning" in shown) is warned


def test_an_address_that_nobody_set_is_told(quick: Quick) -> None:
    unset = {"VAULT_ADDR": "", "JITVAULT_AGENT_LOGIN": ""}
    refused = quick("operator", "list", "--json", worker=False, extra=unset, code=5).error
    assert refused["hint"].startswith("VAULT_ADDR is not set: this address is the default. ")
    set_here = quick("operator", "list", "--json", worker=False, extra={"VAULT_ADDR": "http://127.0.0.1:9"}, code=5)
    assert "VAULT_ADDR" not in set_here.error["hint"]


def test_a_set_without_a_schema_is_told_which_one_to_copy(quick: Quick, misspelt: Path) -> None:
    (misspelt / "jitvault.cedarschema").unlink()
    refused = quick("admin", "policy", "check", misspelt, "--json", code=8).error
    assert refused["message"].endswith("needs .cedar files and one .cedarschema; it has 2 and 0")
    assert str(shipped.policies_dir() / "cedar" / "jitvault.cedarschema") in refused["hint"]


def test_the_shipped_policies_have_no_warning(quick: Quick) -> None:
    directory = shipped.policies_dir() / "cedar"
    assert quick("admin", "policy", "check", directory, "--json").json["warnings"] == []
    assert quick(None, "policy", "check", directory, "--json", worker=False).json["warnings"] == []


def test_a_warning_fits_on_the_terminal(quick: Quick, misspelt: Path) -> None:
    width = 80
    shown = at_terminal(quick, "admin", "policy", "check", str(misspelt), width=width).stdout
    assert "compares risk with" in shown
    assert all(len(line) <= width for line in shown.splitlines() if not line.strip().startswith("sha256:")), shown
