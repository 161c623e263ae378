"""What it would take is asked of policy itself: each way that is told really does."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from jitvault import shipped_files as shipped
from jitvault.lifecycle.decision.explain import explain, grantable_not_renewable, uncovered_risks
from jitvault.model.decision_input import DecisionInput
from jitvault.model.revision_content import TemplateFacts
from jitvault.model.spec import parse_spec
from jitvault.model.template import load_templates
from jitvault.policy.cedar import CedarAuthorizer
from jitvault.policy.named_in_conditions import networks_named
from jitvault.policy.question import Action, HeldLeases, Principal

SHIPPED = Path(__file__).parents[4] / "policies" / "cedar"
POLICIES = CedarAuthorizer(
    {path.name: path.read_text() for path in SHIPPED.glob("*.cedar")}, (SHIPPED / "jitvault.cedarschema").read_text()
)
FRIDAY = datetime(2030, 2, 1, 9, 30, tzinfo=UTC)
OPERATOR = Principal("Operator", "o", "olga", ("jitvault-operators",))


def asked(
    *, tier: str = "low", criticality: str = "low", labels: dict[str, str] | None = None, **changes: Any
) -> DecisionInput:
    spec = {
        "apiVersion": "jitvault.dev/v1",
        "kind": "Task",
        "metadata": {"id": "t-1", "labels": labels or {}},
        "spec": {
            **{"agent": "research-agent", "owner": "data-owner", "intent": "Count.", "criticality": criticality},
            **{"access": [{"template": "pg"}], "window": {"for": "2h"}},
        },
    }
    entry = TemplateFacts(template="pg", template_owner="otto", tier=tier, data_domains=[], lease_budget=5)
    made = {
        "spec": parse_spec(json.dumps(spec).encode()),
        "access": [entry],
        "requester": OPERATOR,
        "agent": Principal("Agent", "a", "research-agent", ("jitvault-agents",)),
        "owner": Principal("Operator", "d", "data-owner"),
        "loads": {"pg": HeldLeases()},
        "depth": 0,
        "at": FRIDAY,
    }
    return DecisionInput(**{**made, **changes})


def test_what_is_permitted_needs_nothing_else() -> None:
    found = explain(POLICIES, asked())
    assert found.decision.permitted and found.instead == ()


def test_an_open_finding_is_named_with_what_closes_it() -> None:
    found = explain(POLICIES, asked(loads={"pg": HeldLeases(findings=2)}))
    assert found.decision.rules == ("no-access-with-an-open-finding",)
    assert found.instead == (
        "no open finding: `jitvault findings close --agent research-agent --reason WHY` with the worker's identity, "
        "once it was looked into",
    )


def test_an_agent_that_asks_for_another_is_named_where_it_could_ask_for_itself() -> None:
    churn_bot = Principal("Operator", "c", "churn-bot", ("jitvault-agents",))
    found = explain(POLICIES, asked(requester=churn_bot))
    why = "churn-bot asks, the spec is for research-agent, and an agent asks for itself alone"
    assert found.decision.why_denied == f"no policy permits it: {why}"
    assert "the agent churn-bot, who asks" in found.instead
    # policies that let it have nothing deny it for another reason
    nothing = CedarAuthorizer({}, (SHIPPED / "jitvault.cedarschema").read_text())
    assert explain(nothing, asked(requester=churn_bot)).decision.why_denied == "no policy permits it"
    # the requester of a chain is that of its first task
    assert explain(POLICIES, asked(requester=churn_bot, depth=1)).decision.reasons == ()


def test_a_network_that_a_rule_asks_for_is_tried() -> None:
    text = """
        @id("all") permit (principal, action, resource);
        @id("office") forbid (principal, action, resource) unless { context.network == "office" };
    """
    policies = CedarAuthorizer({"a.cedar": text}, (SHIPPED / "jitvault.cedarschema").read_text())
    networks = networks_named(policies.rules.values())
    assert networks == {"office"}
    found = explain(policies, asked(), networks)
    assert (found.decision.permitted, found.instead) == (False, ("the network office",))
    nowhere = CedarAuthorizer(
        {"a.cedar": text.replace('"office" }', '"" }')}, (SHIPPED / "jitvault.cedarschema").read_text()
    )
    office = asked()
    inside = office.spec.model_copy(update={"spec": office.spec.spec.model_copy(update={"network": "office"})})
    assert explain(nowhere, replace(office, spec=inside)).instead == ("no network",)


def test_what_is_held_is_named() -> None:
    assert explain(POLICIES, asked(loads={"pg": HeldLeases(template_leases=999)})).instead == (
        "other tasks to end first, which hold leases",
    )


@pytest.mark.parametrize("held", [None, {"pg": HeldLeases(agent_leases=3, owner_leases=2, template_leases=1)}])
def test_several_accesses_of_a_task_are_counted_together(held: dict[str, HeldLeases] | None) -> None:
    """Each by itself would fit: what is issued is all of it."""
    one = asked(loads=held or {})
    pg = structs.replace(one.access[0], lease_budget=100)
    access = [pg, pg, structs.replace(pg, template="other", lease_budget=7)]
    wide = replace(one, access=access)
    load = (held or {}).get("pg", HeldLeases())
    first, _, other = [question.load for question in wide.questions([Action.GRANT])]
    assert first == replace(
        load,
        agent_leases=load.agent_leases + 107,
        owner_leases=load.owner_leases + 107,
        template_leases=load.template_leases + 100,
    )
    assert other == HeldLeases(agent_leases=200, owner_leases=200)
    found = explain(POLICIES, wide)
    assert found.decision.rules == ("lease-budget-of-an-agent",)
    assert found.instead == ()
    assert explain(POLICIES, replace(wide, access=access[:1])).decision.permitted


def test_outside_the_change_window_every_way_in_is_named() -> None:
    found = explain(POLICIES, asked(tier="medium", criticality="high", labels={"change-window": "yes"}))
    assert found.decision.rules == ("change-window",)
    assert found.instead == (
        *("criticality medium", "criticality low", "no label change-window"),
        "to ask again at 2030-02-04T08:00:00Z",
    )


def test_who_is_no_operator_is_told_so() -> None:
    found = explain(POLICIES, asked(requester=Principal("Operator", "x", "nobody")))
    assert (found.decision.rules, found.instead) == ((), ("a requester in jitvault-operators",))


def test_a_shorter_window_is_named_where_that_does() -> None:
    text = (
        '@id("s") permit (principal, action == Action::"submit", resource);'
        '@id("p") permit (principal, action == Action::"grant", resource) when { context.window_s <= 3600 };'
    )
    own = CedarAuthorizer({"a": text}, (SHIPPED / "jitvault.cedarschema").read_text())
    assert explain(own, asked()).instead == ("a window of 1h",)


def test_where_no_single_change_does_none_is_told() -> None:
    held = {"pg": HeldLeases(agent_leases=200, findings=1)}
    assert explain(POLICIES, asked(loads=held)).instead == ()


TEMPLATES = load_templates(shipped.files(shipped.templates_dir(), ".yaml"))
GRANT = '@id("g") permit (principal, action == Action::"grant", resource);'
_GRANT_WHEN = 'permit (principal, action == Action::"grant", resource) when {{ {} }};'
RENEW = '@id("r") permit (principal, action == Action::"renew", resource) when {{ {} }};'


@pytest.mark.parametrize(
    ("renew", "warned"),
    [
        ("true", []),
        ("", ["pki-service", "postgres-readonly", "postgres-readwrite"]),
        ('resource.tier == "low"', ["pki-service", "postgres-readwrite"]),
        ("context.window_s < 3600", ["pki-service", "postgres-readonly", "postgres-readwrite"]),
        ('principal in Group::"jitvault-operators"', []),
    ],
)
def test_what_can_be_granted_and_would_end_at_once_is_told(renew: str, warned: list[str]) -> None:
    schema = (SHIPPED / "jitvault.cedarschema").read_text()
    own = CedarAuthorizer({"a.cedar": GRANT + (RENEW.format(renew) if renew else "")}, schema)
    assert [words.split()[0] for words in grantable_not_renewable(own, TEMPLATES.values())] == warned
    assert grantable_not_renewable(POLICIES, TEMPLATES.values()) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('permit (principal, action == Action::"grant", resource);', []),
        ('permit (principal, action == Action::"submit", resource);', ["low", "medium", "high", "critical"]),
        (_GRANT_WHEN.format('context.risk == "low" || context.risk == "medum"'), ["medium", "high", "critical"]),
        # a template of the tier critical makes the risk critical
        (_GRANT_WHEN.format('context.criticality == "high"'), ["low", "medium"]),
        (_GRANT_WHEN.format('resource.tier == "medium" && context.window_s < 3600'), ["low"]),
        (_GRANT_WHEN.format('principal in Group::"jitvault-security" && context.risk != "low"'), ["low"]),
        # who names one agent, network, owner, group or hour covers the risk for that one
        (
            _GRANT_WHEN.format('context.agent.name == "tally-bot" && context.risk == "low"'),
            ["medium", "high", "critical"],
        ),
        (
            _GRANT_WHEN.format('context.network == "office" && !(["high", "critical"].contains(context.risk))'),
            ["high", "critical"],
        ),
        (_GRANT_WHEN.format('context.hour < 6 && (context.owner.name == "otto" || context.risk == "low")'), []),
        (_GRANT_WHEN.format('context.labels.contains("night") && context.risk != context.criticality'), ["low"]),
        (_GRANT_WHEN.format("context.hour < 6").replace(";", ' unless { context.risk == "high" };'), ["high"]),
        (_GRANT_WHEN.format('if context.hour < 6 then true else context.risk == "low"'), []),
        # a template has one tier, which is the lowest risk of its access
        (
            'permit (principal, action, resource == AccessTemplate::"postgres-readwrite") when { context.hour < 6 };',
            ["low"],
        ),
        (
            'permit (principal, action, resource == AccessTemplate::"nowhere") when { context.hour < 6 };',
            ["low", "medium", "high", "critical"],
        ),
        # what is forbidden is covered: somebody has thought of it
        (
            _GRANT_WHEN.format('context.risk != "critical"')
            + '@id("f") forbid (principal, action, resource) when { context.risk == "critical" };',
            [],
        ),
    ],
)
def test_a_risk_of_which_no_rule_says_anything_is_told(text: str, told: list[str]) -> None:
    own = CedarAuthorizer({"a.cedar": f'@id("g") {text}'}, (SHIPPED / "jitvault.cedarschema").read_text())
    wanted = [f"no rule covers the risk {risk}: nothing of it is ever granted" for risk in told]
    assert uncovered_risks(own, list(own.rules.values()), TEMPLATES.values()) == wanted


def test_the_shipped_policies_cover_every_risk_also_without_a_template() -> None:
    rules = list(POLICIES.rules.values())
    assert uncovered_risks(POLICIES, rules, TEMPLATES.values()) == uncovered_risks(POLICIES, rules, []) == []
