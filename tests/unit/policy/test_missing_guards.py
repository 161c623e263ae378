"""A set of one's own without the two guards of the shipped one is told, and the text to copy has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jitvault.policy.cedar import CedarAuthorizer
from jitvault.policy.named_in_conditions import NO_AGENTS_GUARD, NO_FINDINGS_GUARD, missing_guards

ROOT = Path(__file__).parents[3]
SCHEMA = (ROOT / "policies" / "cedar" / "jitvault.cedarschema").read_text()
OWN = '@id("own") permit (principal, action, resource) when { context.agent.name == "tally-bot" };'


def told(text: str) -> list[str]:
    return missing_guards(list(CedarAuthorizer({"a.cedar": text}, SCHEMA).rules.values()))


def test_a_set_with_neither_guard_is_told_both() -> None:
    assert told(OWN) == [NO_FINDINGS_GUARD, NO_AGENTS_GUARD]


def test_the_text_to_copy_is_what_it_takes_and_is_the_shipped_text() -> None:
    page = (ROOT / "docs" / "policy.md").read_text()
    copied = re.search(r"```cedar\n(.*?)```", page.split("### Your own set")[1], re.DOTALL)
    assert copied is not None and told(OWN + copied[1]) == []
    shipped = (ROOT / "policies" / "cedar" / "limits.cedar").read_text()
    for rule in copied[1].strip().split("\n\n"):
        assert rule in shipped


@pytest.mark.parametrize(
    ("condition", "missing"),
    [
        ("context.findings == 0", [NO_AGENTS_GUARD]),
        ('context.agent in Group::"jitvault-agents"', [NO_FINDINGS_GUARD]),
        ('context.agent in [Group::"jitvault-agents"]', [NO_FINDINGS_GUARD]),
        # the requester is not the agent
        ('principal in Group::"jitvault-agents"', [NO_FINDINGS_GUARD, NO_AGENTS_GUARD]),
        ('context.agent in Group::"jitvault-bots"', [NO_FINDINGS_GUARD, NO_AGENTS_GUARD]),
    ],
)
def test_a_permit_may_have_the_guard_as_its_condition(condition: str, missing: list[str]) -> None:
    assert told(OWN.replace("context.agent.name", f"{condition} && context.agent.name")) == missing


def test_a_set_that_permits_nothing_needs_no_guard() -> None:
    assert told('@id("never") forbid (principal, action, resource);') == []
