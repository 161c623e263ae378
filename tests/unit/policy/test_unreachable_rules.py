"""Rules that decide nothing are found where their text says so, and what is found really decides nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitvault.policy.cedar import CedarAuthorizer
from jitvault.policy.question import Action, HeldLeases, Moment, Principal, Question

SCHEMA = (Path(__file__).parents[3] / "policies" / "cedar" / "jitvault.cedarschema").read_text()
ANY = "permit (principal, action, resource)"
GRANT_OR_RENEW = 'permit (principal, action in [Action::"grant", Action::"renew"], resource)'
OLGA = 'principal == Operator::"olga"'
IN_OPERATORS = 'principal in Group::"jitvault-operators"'
LOW, FIRST = 'context.risk == "low"', "context.depth == 0"
OPS = Principal("Operator", "olga", "olga", ("jitvault-operators",))
ASKED = Question(
    action=Action.GRANT,
    principal=OPS,
    agent=Principal("Agent", "agent", "agent"),
    owner=OPS,
    template="pg",
    tier="low",
    data_domains=(),
    template_owner="olga",
    lease_budget=1,
    criticality="low",
    risk="low",
    intent="",
    tools=(),
    window_s=60,
    network="",
    labels=(),
    depth=0,
    moment=Moment(12, 3),
    load=HeldLeases(),
)


def rule(
    name: str, head: str = "permit (principal, action, resource)", when: tuple[str, ...] = (), more: str = ""
) -> str:
    conditions = "".join(f" when {{ {condition} }}" for condition in when)
    return f'@id("{name}") {more} {head}{conditions};\n'


def idle(*rules: str) -> dict[str, str]:
    return dict(CedarAuthorizer({"a.cedar": "".join(rules)}, SCHEMA).idle)


FORBID = "forbid (principal, action, resource)"
GRANT = 'permit (principal, action == Action::"grant", resource)'
OPERATORS_GRANT = 'permit (principal in Group::"jitvault-operators", action == Action::"grant", resource)'


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ([rule("a", when=("false",))], {"a"}),
        ([rule("a", FORBID + " unless { true }")], {"a"}),
        ([rule("a"), rule("b", GRANT)], {"b"}),
        ([rule("b", GRANT), rule("a")], {"b"}),
        ([rule("a", when=(LOW,)), rule("b", GRANT, (LOW, FIRST))], {"b"}),
        ([rule("a", GRANT), rule("b", OPERATORS_GRANT)], {"b"}),
        ([rule("a", FORBID), rule("b", GRANT, (LOW,)), rule("c", FORBID, (LOW,))], {"b", "c"}),
        ([rule("a"), rule("b")], {"b"}),
        (
            [
                rule("a", "permit (principal is Operator, action, resource)"),
                rule("b", f"permit ({OLGA}, action, resource)"),
            ],
            {"b"},
        ),
        (
            [
                rule("a", "permit (principal, action, resource is AccessTemplate)"),
                rule("b", 'permit (principal, action, resource == AccessTemplate::"pg")'),
            ],
            {"b"},
        ),
        (
            [rule("a", GRANT_OR_RENEW), rule("b", GRANT)],
            {"b"},
        ),
        # what obliges to more is not covered by what obliges to less
        ([rule("a"), rule("b", GRANT, more='@approvals("1")')], set()),
        ([rule("a", more='@approvals("1")'), rule("b", GRANT)], {"b"}),
        # wider, or under another condition
        ([rule("a", GRANT), rule("b")], {"a"}),
        ([rule("a", when=(LOW,)), rule("b", GRANT)], set()),
        ([rule("a", when=(LOW,)), rule("b", GRANT, (FIRST,))], set()),
        ([rule("a", OPERATORS_GRANT, more='@approvals("1")'), rule("b", GRANT)], set()),
        ([rule("a", FORBID, (LOW,)), rule("b", GRANT)], set()),
        ([rule("a"), rule("b", FORBID, (LOW,))], set()),
        ([rule("a", GRANT), rule("b", 'permit (principal, action == Action::"renew", resource)')], set()),
    ],
)
def test_only_what_the_text_shows_to_decide_nothing_is_found(rules: list[str], found: set[str]) -> None:
    assert set(idle(*rules)) == found


HEADS = st.builds(
    "{} ({}, {}, {})".format,
    st.sampled_from(["permit", "forbid"]),
    st.sampled_from(
        [
            "principal",
            "principal is Operator",
            'principal == Operator::"olga"',
            'principal in Group::"jitvault-operators"',
        ]
    ),
    st.sampled_from(["action", 'action == Action::"grant"', 'action in [Action::"grant", Action::"renew"]']),
    st.sampled_from(["resource", "resource is AccessTemplate", 'resource == AccessTemplate::"pg"']),
)
CONDITIONS = st.lists(st.sampled_from([LOW, FIRST, "true", "false"]), max_size=2).map(tuple)
QUESTIONS = [
    replace(ASKED, action=action, risk=risk, depth=depth, principal=who, template=template)
    for action in (Action.GRANT, Action.RENEW, Action.EXTEND)
    for risk in ("low", "high")
    for depth in (0, 1)
    for who in (OPS, Principal("Operator", "nina", "nina"))
    for template in ("pg", "pki")
]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(HEADS, CONDITIONS), min_size=1, max_size=4))
def test_without_its_idle_rules_a_set_decides_the_same(rules: list[tuple[str, tuple[str, ...]]]) -> None:
    texts = {f"r{n}": rule(f"r{n}", head, when) for n, (head, when) in enumerate(rules)}
    whole = CedarAuthorizer({"a": "".join(texts.values())}, SCHEMA)
    rest = CedarAuthorizer({"a": "".join(text for name, text in texts.items() if name not in whole.idle)}, SCHEMA)
    for question in QUESTIONS:
        one, other = whole.decide([question]), rest.decide([question])
        assert (one.permitted, one.obligations) == (other.permitted, other.obligations)
