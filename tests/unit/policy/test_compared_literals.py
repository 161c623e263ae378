"""A misspelt risk, tier or criticality is told, wherever in a condition it is; what is spelt right is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from jitvault.policy.cedar import CedarAuthorizer
from jitvault.policy.named_in_conditions import unknown_levels

SHIPPED = Path(__file__).parents[3] / "policies" / "cedar"
SCHEMA = (SHIPPED / "jitvault.cedarschema").read_text()


def told(condition: str, kind: str = "when") -> list[str]:
    text = f'@id("mine") permit (principal, action, resource) {kind} {{ {condition} }};'
    return unknown_levels(list(CedarAuthorizer({"a.cedar": text}, SCHEMA).rules.values()))


@pytest.mark.parametrize("kind", ["when", "unless"])
@pytest.mark.parametrize(
    ("condition", "name"),
    [
        ('context.risk == "medum"', "risk"),
        ('"medum" == context.risk', "risk"),
        ('context.risk != "medum"', "risk"),
        ('context.criticality == "medum"', "criticality"),
        ('resource.tier == "medum"', "tier"),
        ('["low", "medum"].contains(context.risk)', "risk"),
        ('context.depth == 0 && (context.findings > 3 || !(context.risk == "medum"))', "risk"),
        ('if context.depth == 0 then resource.tier == "medum" else false', "tier"),
    ],
)
def test_a_literal_that_is_no_level_is_told_with_what_was_meant(condition: str, name: str, kind: str) -> None:
    (said,) = told(condition, kind)
    assert said == (
        f'rule mine compares {name} with "medum", which is none of low, medium, high, critical (did you mean medium?)'
    )


def test_a_level_is_in_small_letters() -> None:
    (said,) = told('context.risk == "High"')
    assert '"High", which is none of' in said and said.endswith("(did you mean high?)")


def test_what_resembles_no_level_is_told_without_a_guess_and_is_no_line_of_its_own() -> None:
    (said,) = told(r'context.risk == "x\n\u{1b}[31m"')
    assert "did you mean" not in said and said.isprintable()


@pytest.mark.parametrize(
    "condition",
    [
        'context.risk == "low" || context.risk == "critical"',
        '["low", "medium", "high", "critical"].contains(resource.tier)',
        "context.risk == context.criticality",
        'context.network == "medum"',
        'context.labels.contains("medum")',
        'resource.data_domains.contains("medum") && context.criticality != "high"',
    ],
)
def test_a_level_and_a_literal_of_something_else_are_nothing_to_tell(condition: str) -> None:
    assert told(condition) == []


def test_the_shipped_policies_compare_with_levels_alone() -> None:
    policies = {path.name: path.read_text() for path in SHIPPED.glob("*.cedar")}
    assert unknown_levels(list(CedarAuthorizer(policies, SCHEMA).rules.values())) == []
