"""`policy check` tells what validates and is most likely not meant: as typed, at two widths, in a pipe and as JSON."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Quick, at_terminal

from jitvault import shipped_files as shipped
from jitvault.policy.missing_guards import NO_AGENTS_GUARD, NO_FINDINGS_GUARD
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


def test_the_shipped_policies_have_no_warning(quick: Quick) -> None:
    directory = shipped.policies_dir() / "cedar"
    assert quick("admin", "policy", "check", directory, "--json").json["warnings"] == []
    assert quick(None, "policy", "check", directory, "--json", worker=False).json["warnings"] == []


@pytest.mark.parametrize("width", [80, 120])
def test_a_warning_fits_on_the_terminal(quick: Quick, misspelt: Path, width: int) -> None:
    shown = at_terminal(quick, "admin", "policy", "check", str(misspelt), width=width).stdout
    assert "compares risk with" in shown
    assert all(len(line) <= width for line in shown.splitlines() if not line.strip().startswith("sha256:")), shown
