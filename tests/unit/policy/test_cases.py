from __future__ import annotations

import pytest

from jitvault.errors import InvalidInput
from jitvault.policy.cases import Request, parse_cases
from jitvault.policy.decision import APPROVERS, Decision, Obligations, ProofLevel, Requirement
from jitvault.policy.question import Action, HeldLeases, Moment

HEAD = "apiVersion: jitvault.dev/v1\nkind: PolicyCases\ncases:\n"
OBLIGATIONS = Obligations((Requirement(APPROVERS, 1),), 900, 3600, ProofLevel.TARGET, ("security",))
PERMIT = Decision(True, OBLIGATIONS, ("a", "b"), "sha256:x")


def differences(expect: str, decision: Decision = PERMIT) -> list[str]:
    (case,) = parse_cases(f"{HEAD}  - name: one\n    expect: {expect}\n".encode(), "cases.yaml")
    return case.expect.differences(decision)


@pytest.mark.parametrize(
    ("expect", "told"),
    [
        ("{decision: permit}", []),
        ("{decision: deny}", ["decision: expected deny, got permit"]),
        ("{decision: permit, rules: [b, a]}", []),
        ("{decision: permit, rules: [a]}", ["rules: expected a, got a, b"]),
        ("{decision: permit, rules: []}", ["rules: expected none, got a, b"]),
        (f"{{decision: permit, approvals: [{{group: {APPROVERS}, count: 1}}]}}", []),
        (
            f"{{decision: permit, approvals: [{{group: {APPROVERS}, count: 2}}]}}",
            [f"approvals: expected 2 of {APPROVERS}, got 1 of {APPROVERS}"],
        ),
        ("{decision: permit, approvals: []}", [f"approvals: expected none, got 1 of {APPROVERS}"]),
        ("{decision: permit, max_ttl: 15m, max_window: 1h, confirm: target, notify: [security]}", []),
        ("{decision: permit, max_ttl: 16m}", ["max_ttl: expected 16m, got 15m"]),
        ("{decision: permit, max_window: 2h}", ["max_window: expected 2h, got 1h"]),
        ("{decision: permit, confirm: audit}", ["confirm: expected audit, got target"]),
        ("{decision: permit, notify: []}", ["notify: expected none, got security"]),
    ],
)
def test_what_differs_is_told_and_what_is_not_named_is_not_looked_at(expect: str, told: list[str]) -> None:
    assert differences(expect) == told


def test_a_denial_that_was_expected_by_another_rule_is_told() -> None:
    denied = Decision(False, Obligations(), ("closed",), "sha256:x")
    assert differences("{decision: deny, rules: [closed]}", denied) == []
    assert differences("{decision: deny, rules: [other], max_ttl: 1m}", denied) == [
        "rules: expected other, got closed",
        "max_ttl: expected 1m, got nothing",
    ]


def test_what_a_case_leaves_out_is_harmless() -> None:
    asked = Request().question()
    assert (asked.action, asked.risk, asked.depth, asked.load) == (Action.GRANT, "low", 0, HeldLeases())
    assert asked.moment == Moment(12, 3)


def test_every_field_of_a_request_is_asked() -> None:
    text = """\
  - name: all
    request:
      action: delegate
      principal: {name: bot, groups: [jitvault-agents]}
      principal_kind: Agent
      agent: {name: helper, groups: [jitvault-bots]}
      owner: {name: olga, groups: [jitvault-owners]}
      template: {name: pg, tier: high, data_domains: [orders], owner: otto, lease_budget: 7}
      criticality: medium
      intent: Count.
      tools: [psql]
      window: 2h
      network: office
      labels: [team, team=data]
      depth: 2
      hour: 23
      weekday: 7
      agent_leases: 1
      owner_leases: 2
      template_leases: 3
      findings: 4
    expect: {decision: deny}
"""
    asked = parse_cases((HEAD + text).encode(), "x")[0].request.question()
    assert (asked.principal.kind, asked.principal.entity, asked.principal.groups) == (
        "Agent",
        "bot",
        ("jitvault-agents",),
    )
    assert (asked.agent.name, asked.agent.groups, asked.owner.name, asked.owner.groups) == (
        *("helper", ("jitvault-bots",)),
        *("olga", ("jitvault-owners",)),
    )
    assert (asked.template, asked.tier, asked.data_domains, asked.template_owner, asked.lease_budget) == (
        *("pg", "high", ("orders",)),
        *("otto", 7),
    )
    assert (asked.criticality, asked.risk, asked.window_s, asked.network) == ("medium", "high", 7200, "office")
    assert (asked.intent, asked.tools, asked.labels, asked.depth) == ("Count.", ("psql",), ("team", "team=data"), 2)
    assert (asked.action, asked.moment, asked.load) == (Action.DELEGATE, Moment(23, 7), HeldLeases(1, 2, 3, 4))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("  - name: a\n    expect: {decision: maybe}\n", "decision"),
        ("  - name: a\n", "expect"),
        ("  - name: a\n    request: {hour: 24}\n    expect: {decision: deny}\n", "hour"),
        ("  - name: a\n    request: {colour: red}\n    expect: {decision: deny}\n", "colour"),
        ("  - name: a\n    request: {window: 1}\n    expect: {decision: deny}\n", "window"),
        ("  - {name: a, expect: {decision: deny}}\n  - {name: a, expect: {decision: deny}}\n", "two cases"),
        ("  []\n", "cases"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_field(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        parse_cases((HEAD + text).encode(), "cases.yaml")
