"""What is left out of a policy set before Cedar is asked changes no decision."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.policy.test_cedar import ASKED, SCHEMA

from jitvault.policy.cedar import CedarAuthorizer
from jitvault.policy.cedar_request import Slices
from jitvault.policy.question import Action, Principal, Question

TEMPLATES = ("pg-read", "pg-write", "pki")
RULES = st.builds(
    lambda effect, action, resource, when: f"{effect} (principal, {action}, {resource}) {when};",
    st.sampled_from(["permit", "permit", "forbid"]),
    st.sampled_from(
        [
            "action",
            'action == Action::"grant"',
            'action == Action::"renew"',
            'action in [Action::"grant", Action::"renew"]',
        ]
    ),
    st.sampled_from(
        [
            "resource",
            "resource is AccessTemplate",
            'resource in AccessTemplate::"pg-write"',
            *(f'resource == AccessTemplate::"{name}"' for name in TEMPLATES),
        ]
    ),
    # the last one errs where it is looked at: an overflow
    st.sampled_from(["", "when { context.depth > 0 }", "when { context.window_s * 9223372036854775807 > 0 }"]),
)
QUESTIONS = st.builds(
    lambda action, template, depth: replace(ASKED, action=action, template=template, depth=depth),
    st.sampled_from([Action.GRANT, Action.RENEW]),
    st.sampled_from([*TEMPLATES, "of-no-rule"]),
    st.integers(0, 1),
)


@settings(max_examples=150)
@given(rules=st.lists(RULES, min_size=1, max_size=8), questions=st.lists(QUESTIONS, min_size=1, max_size=3))
def test_a_slice_decides_as_the_whole_set(rules: list[str], questions: list[Question]) -> None:
    authorizer = CedarAuthorizer({"a": "\n".join(f'@id("r{n}") {rule}' for n, rule in enumerate(rules))}, SCHEMA)
    found = authorizer.decide(questions)
    with mock.patch.object(Slices, "of", lambda slices, _: slices._whole):
        assert authorizer.decide(questions) == found


def test_what_was_asked_before_changes_no_decision() -> None:
    policies = {"a": '@id("p") permit (principal, action, resource) when { context.window_s > 0 };'}
    everybody = [Principal(kind, f"e-{kind}", kind, ()) for kind in ("Operator", "Agent")]
    asked = [
        replace(ASKED, action=action, principal=principal, agent=agent, owner=owner)
        for action, principal, agent, owner in product(Action, everybody, everybody, everybody)
    ]
    fresh = {question: CedarAuthorizer(policies, SCHEMA).decide([question]) for question in asked}
    for question, decision in fresh.items():
        may_ask = question.principal.kind == "Operator" or question.action in (Action.EXTEND, Action.DELEGATE)
        assert decision.permitted == (may_ask and (question.agent.kind, question.owner.kind) == ("Agent", "Operator"))
    # those that the schema takes first: nothing that it refuses may pass because of them
    asked_before = CedarAuthorizer(policies, SCHEMA)
    for question in sorted(asked, key=lambda one: not fresh[one].permitted) + asked:
        assert asked_before.decide([question]) == fresh[question]


def test_a_rule_for_another_template_is_not_looked_at() -> None:
    rules = [f'@id("{name}") permit (principal, action, resource == AccessTemplate::"{name}");' for name in TEMPLATES]
    authorizer = CedarAuthorizer({"a": "\n".join(rules)}, SCHEMA)
    assert authorizer.decide([ASKED]).rules == ("pg-read",)
    assert [rule.id for rule in authorizer._slices.of([ASKED]).rules.values()] == ["pg-read"]
    both = [ASKED, replace(ASKED, template="pki")]
    assert [rule.id for rule in authorizer._slices.of(both).rules.values()] == ["pg-read", "pki"]
