"""A rule about a template that nobody has is told, wherever the rule names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jitvault.policy.cedar import CedarAuthorizer
from jitvault.policy.named_in_conditions import unknown_templates

SCHEMA = (Path(__file__).parents[3] / "policies" / "cedar" / "jitvault.cedarschema").read_text()
TEMPLATES = ("postgres-readonly", "pki-service")


def told(resource: str, condition: str) -> list[str]:
    text = f'@id("mine") permit (principal, action, {resource}) when {{ {condition} }};'
    return unknown_templates(list(CedarAuthorizer({"a.cedar": text}, SCHEMA).rules.values()), TEMPLATES, "here")


@pytest.mark.parametrize(
    ("resource", "condition"),
    [
        ('resource == AccessTemplate::"postgres-readnly"', "context.depth == 0"),
        ("resource", 'resource == AccessTemplate::"postgres-readnly"'),
        (
            "resource",
            '[AccessTemplate::"pki-service", AccessTemplate::"postgres-readnly"].contains(resource)',
        ),
    ],
    ids=["scope", "condition", "set"],
)
def test_a_template_that_there_is_not_is_told_with_what_was_meant(resource: str, condition: str) -> None:
    assert told(resource, condition) == [
        'rule mine names the template "postgres-readnly", and there is none of that name in here '
        "(did you mean postgres-readonly?)"
    ]


def test_a_template_that_there_is_and_an_entity_of_another_kind_are_nothing_to_tell() -> None:
    condition = 'principal in Group::"jitvault-operators" && resource != AccessTemplate::"pki-service"'
    assert told('resource == AccessTemplate::"postgres-readonly"', condition) == []
