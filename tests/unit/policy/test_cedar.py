from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from jitvault.errors import InvalidInput
from jitvault.policy.cedar import CedarAuthorizer
from jitvault.policy.decision import APPROVERS, SECURITY, Decision, Obligations, ProofLevel, Requirement
from jitvault.policy.question import Action, HeldLeases, Moment, Principal, Question

SHIPPED = Path(__file__).parents[3] / "policies" / "cedar"
SCHEMA = (SHIPPED / "jitvault.cedarschema").read_text()
OPERATORS = "jitvault-operators"
OPERATOR = Principal("Operator", "e-req", "operator", (OPERATORS,))
ASKED = Question(
    action=Action.GRANT,
    principal=OPERATOR,
    agent=Principal("Agent", "e-agent", "research-agent", ("jitvault-agents",)),
    owner=Principal("Operator", "e-owner", "data-owner"),
    template="pg-read",
    tier="low",
    data_domains=("orders",),
    template_owner="data-owner",
    lease_budget=5,
    criticality="low",
    risk="low",
    intent="Count the orders.",
    tools=("psql",),
    window_s=900,
    network="",
    labels=("team", "team=data"),
    depth=0,
    moment=Moment(hour=12, weekday=3),
    load=HeldLeases(),
)


def shipped() -> CedarAuthorizer:
    return CedarAuthorizer({path.name: path.read_text() for path in SHIPPED.glob("*.cedar")}, SCHEMA)


def decide(policies: str, question: Question = ASKED) -> Decision:
    return CedarAuthorizer({"a.cedar": policies}, SCHEMA).decide([question])


def permit(annotations: str = '@id("p")', when: str = "") -> str:
    condition = f" when {{ {when} }}" if when else ""
    return f"{annotations} permit (principal, action, resource){condition};"


def refused(policies: str, schema: str = SCHEMA) -> str:
    with pytest.raises(InvalidInput) as caught:
        CedarAuthorizer({"a.cedar": policies}, schema)
    assert caught.value.exit_code == 8
    return str(caught.value)


# -- the shipped policies (what else they decide: policies/cases/shipped.yaml) -------------------------------


@pytest.mark.parametrize("risk", ["low", "medium", "high", "critical"])
@pytest.mark.parametrize("groups", [(), ("jitvault-approvers",), ("jitvault-agents", "jitvault-operators-2")])
def test_who_is_no_operator_is_denied(risk: str, groups: tuple[str, ...]) -> None:
    decision = shipped().decide([replace(ASKED, risk=risk, principal=replace(OPERATOR, groups=groups))])
    assert not decision.permitted
    assert decision.rules == ()


def test_an_operator_may_be_in_other_groups_too() -> None:
    assert shipped().decide([replace(ASKED, principal=replace(OPERATOR, groups=("staff", OPERATORS, "dba")))]).permitted


@pytest.mark.parametrize("risk", ["", "LOW", "none", "extreme"])
def test_a_risk_that_no_policy_knows_is_denied(risk: str) -> None:
    assert not shipped().decide([replace(ASKED, risk=risk)]).permitted


def test_of_several_accesses_the_strictest_holds_and_all_must_be_permitted() -> None:
    both = shipped().decide([ASKED, replace(ASKED, risk="high")])
    assert both.permitted
    assert both.obligations.approvals == (Requirement(APPROVERS, 1), Requirement(SECURITY, 1))
    assert len(both.rules) == 3
    assert not shipped().decide([ASKED, replace(ASKED, risk="x")]).permitted


def test_no_question_is_a_denial() -> None:
    assert not shipped().decide([]).permitted


def test_every_shipped_rule_can_decide_something() -> None:
    assert shipped().idle == {}


# -- how decisions are made -------------------------------------------------------------------------------


def test_no_policy_denies() -> None:
    assert not decide("").permitted


def test_forbid_wins() -> None:
    forbid = '@id("f") forbid (principal, action, resource) when { resource.tier == "low" };'
    for text in (permit() + forbid, forbid + permit()):
        decision = decide(text)
        assert not decision.permitted
        assert decision.rules == ("f",)
        assert decision.obligations == Obligations()
    assert decide(permit() + forbid, replace(ASKED, tier="high")).permitted


def test_of_several_permits_the_strictest_obligations_hold() -> None:
    one = permit('@id("one") @approvals("1") @approver_group("jitvault-dba") @max_window("10m") @notify("b, a")')
    two = permit('@id("two") @approvals("3") @approver_group("jitvault-dba") @max_ttl("5m") @confirm("audit")')
    three = permit('@id("three") @approvals("1") @max_window("20m") @max_ttl("1h") @confirm("target") @notify("c")')
    decision = decide(one + two + three)
    assert decision.permitted
    assert decision.obligations == Obligations(
        approvals=(Requirement(APPROVERS, 1), Requirement("jitvault-dba", 3)),
        max_ttl_s=300,
        max_window_s=600,
        confirm=ProofLevel.TARGET,
        notify=("a", "b", "c"),
    )
    assert decision.rules == ("one", "three", "two")


def test_the_reasons_of_what_decided_are_told() -> None:
    one = permit('@id("one") @reason("a good one")') + permit('@id("two") @reason("never")', "context.depth == 9")
    assert decide(one).reasons == ("a good one",)
    denied = decide(one + '@id("no") @reason("not on Wednesdays") forbid (principal, action, resource);')
    assert denied.why_denied == "forbidden by no: not on Wednesdays"
    assert decide("").why_denied == "no policy permits it"


def test_the_groups_are_those_that_the_policies_speak_of() -> None:
    text = (
        '@id("a") @approvals("1") @approver_group("jitvault-dba") permit (principal in Group::"jitvault-ops", '
        'action, resource) when { context.agent in Group::"jitvault-bots" };'
    )
    assert CedarAuthorizer({"a": text}, SCHEMA).groups == {"jitvault-dba", "jitvault-ops", "jitvault-bots"}


# valid by the schema, and an overflow when it is evaluated
ERRING = "context.window_s * 9223372036854775807 > 0"


@pytest.mark.parametrize(
    "text",
    [
        permit('@id("e")', ERRING),
        permit('@id("e")', ERRING) + permit('@id("fine")'),
        permit('@id("fine")') + f'@id("f") forbid (principal, action, resource) when {{ {ERRING} }};',
    ],
    ids=["alone", "beside a permit", "a forbid"],
)
def test_where_a_policy_errs_nothing_is_permitted(text: str) -> None:
    # Cedar skips a policy that errs; a forbid that is skipped would let everything through
    denied = decide(text)
    assert not denied.permitted and "could not be evaluated" in denied.why_denied and "policy0" not in denied.why_denied
    assert decide(permit('@id("e")', "context.window_s * 2 > 0")).permitted


def test_reasons_are_ids_and_not_positions() -> None:
    text = permit('@id("never")', "context.window_s > 999999") + permit('@id("yes")')
    assert decide(text).rules == ("yes",)


WHO = replace(OPERATOR, groups=())
TOLD = {
    'principal in Group::"jitvault-operators"': {"principal": WHO},
    'principal == Operator::"e-req"': {"principal": replace(OPERATOR, entity="x")},
    'principal.name == "operator"': {"principal": replace(OPERATOR, name="x")},
    'resource == AccessTemplate::"pg-read"': {"template": "x"},
    'resource.tier == "low"': {"tier": "high"},
    'resource.data_domains.contains("orders")': {"data_domains": ()},
    'resource.owner == "data-owner"': {"template_owner": "x"},
    "resource.lease_budget == 5": {"lease_budget": 6},
    'context.agent == Agent::"e-agent"': {"agent": replace(ASKED.agent, entity="x")},
    'context.agent.name == "research-agent"': {"agent": replace(ASKED.agent, name="x")},
    'context.agent in Group::"jitvault-agents"': {"agent": replace(ASKED.agent, groups=())},
    'context.owner == Operator::"e-owner"': {"owner": OPERATOR},
    'context.criticality == "low"': {"criticality": "high"},
    'context.risk == "low"': {"risk": "high"},
    'context.intent == "Count the orders."': {"intent": "x"},
    'context.tools.contains("psql")': {"tools": ()},
    "context.window_s == 900": {"window_s": 901},
    'context.network == ""': {"network": "office"},
    'context.labels.contains("team") && context.labels.contains("team=data")': {"labels": ("team",)},
    "context.depth == 0": {"depth": 1},
    "context.hour == 12": {"moment": Moment(13, 3)},
    "context.weekday == 3": {"moment": Moment(12, 4)},
    "context.agent_leases == 0": {"load": HeldLeases(agent_leases=1)},
    "context.owner_leases == 0": {"load": HeldLeases(owner_leases=1)},
    "context.template_leases == 0": {"load": HeldLeases(template_leases=1)},
    "context.findings == 0": {"load": HeldLeases(findings=1)},
}


@pytest.mark.parametrize("told", TOLD)
def test_what_is_asked_reaches_the_policies(told: str) -> None:
    policy = f'@id("p") permit (principal is Operator, action == Action::"grant", resource) when {{ {told} }};'
    assert decide(policy).permitted
    assert not decide(policy, replace(ASKED, **TOLD[told])).permitted  # type: ignore[arg-type]


@pytest.mark.parametrize("action", Action)
def test_every_action_can_be_asked_for_and_is_another_one(action: Action) -> None:
    policy = f'@id("p") permit (principal, action == Action::"{action}", resource);'
    for asked in Action:
        assert decide(policy, replace(ASKED, action=asked)).permitted == (asked is action)


def test_an_agent_may_only_be_asked_about_delegation() -> None:
    agent = replace(ASKED, principal=ASKED.agent)
    assert decide(permit(), replace(agent, action=Action.DELEGATE)).permitted
    assert not decide(permit(), agent).permitted


def test_the_same_person_in_several_parts_is_one_entity() -> None:
    same = replace(ASKED, owner=replace(OPERATOR, groups=("jitvault-owners",)))
    both = 'principal == context.owner && principal in Group::"jitvault-owners"'
    policy = f'@id("p") permit (principal is Operator, action == Action::"grant", resource) when {{ {both} }};'
    assert decide(policy, same).permitted
    assert not decide(policy).permitted


def test_names_with_quotes_are_only_names() -> None:
    odd = 'x" || true || "\\\n\0'
    question = replace(
        ASKED, principal=Principal("Operator", odd, odd, (odd,)), template=odd, intent=odd, labels=(odd,)
    )
    policy = '@id("p") permit (principal in Group::"jitvault-operators", action, resource);'
    assert not decide(policy, question).permitted
    assert decide(permit(), question).permitted


def test_the_digest_covers_policies_and_schema() -> None:
    digests = {
        CedarAuthorizer({"a": permit()}, SCHEMA).digest,
        CedarAuthorizer({"a": permit('@id("q")')}, SCHEMA).digest,
        CedarAuthorizer({"a": permit()}, SCHEMA + "\n").digest,
        CedarAuthorizer({}, SCHEMA).digest,
    }
    assert len(digests) == 4
    assert decide(permit()).policy_digest == CedarAuthorizer({"a.cedar": permit()}, SCHEMA).digest


def test_the_order_of_the_files_does_not_matter() -> None:
    files = {"a.cedar": permit('@id("a")'), "b.cedar": permit('@id("b")')}
    turned = dict(reversed(files.items()))
    assert CedarAuthorizer(files, SCHEMA).digest == CedarAuthorizer(turned, SCHEMA).digest


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "annotation",
    [
        *('@approvals("two")', '@approvals("-1")', '@approvals("1.0")', '@approvals("")', '@approvals("11")'),
        *('@approvals(" 1")', '@approvals("\u0661")', '@approvals("\u00b2")', f'@approvals("{"9" * 5000}")'),
        *('@max_window("1 h")', '@max_window("31d")', '@max_window("-1")', '@max_window("")', '@max_window("0s")'),
        *('@max_ttl("90")', '@max_ttl("1.5h")', '@max_ttl("")'),
        *('@confirm("")', '@confirm("Target")', '@confirm("nobody")'),
        *('@notify("")', '@notify("a,,b")', '@notify("a b")', '@notify("mailto:x")'),
        *('@reason("")', '@reason("  ")', '@reason("a\\nb")', f'@reason("{"x" * 201}")'),
        # no value at all must not read as "nobody has to approve"
        *("@approvals", "@max_window", "@max_ttl", "@confirm", "@notify", "@reason"),
        *('@approvals("1") @approver_group', '@approvals("1") @approver_group("")', '@approver_group("jitvault-dba")'),
        *('@approvals("1") @approver_group("dba")', '@approvals("1") @approver_group("jitvault-../x")'),
    ],
)
def test_a_bad_annotation_is_refused(annotation: str) -> None:
    assert "policy p: @" in refused(permit(f'@id("p") {annotation}'))


def test_a_group_that_the_worker_may_not_look_at_is_refused() -> None:
    # nobody would ever be in it
    assert "named jitvault-" in refused(permit(when='context.agent in Group::"admins"'))
    assert "named jitvault-" in refused('@id("p") permit (principal in Group::"admins", action, resource);')


@pytest.mark.parametrize("annotation", ['@approvals("2")', '@max_ttl("1h")', '@confirm("target")', '@notify("a")'])
def test_a_forbid_obliges_to_nothing(annotation: str) -> None:
    assert "has no effect on a forbid" in refused(f'@id("f") {annotation} forbid (principal, action, resource);')


def test_the_bounds_of_annotations_are_allowed() -> None:
    decision = decide(permit('@id("p") @approvals("10") @max_window("30d") @max_ttl("1s")'))
    assert decision.obligations == Obligations((Requirement(APPROVERS, 10),), 1, 2_592_000)
    assert decide(permit('@id("p") @reason("because") @approvals("0")')).obligations == Obligations()


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 81, "-a", "a\\nb"])
def test_an_id_is_one_word(name: str) -> None:
    assert "@id" in refused(permit(f'@id("{name}")'))


@pytest.mark.parametrize("annotations", ["", '@approvals("2")', "@id", '@id("")'])
def test_a_policy_without_an_id_is_refused(annotations: str) -> None:
    assert "has no @id annotation" in refused(permit(annotations))


def test_ids_are_unique_also_across_files_and_effects() -> None:
    forbid = '@id("p") forbid (principal, action, resource);'
    with pytest.raises(InvalidInput, match="same @id"):
        CedarAuthorizer({"a": permit(), "b": forbid}, SCHEMA)


@pytest.mark.parametrize("name", ["approval", "Approvals", "approvers", "ID"])
def test_an_unknown_annotation_is_refused(name: str) -> None:
    # a misspelt obligation would otherwise be none
    assert f"policy p: unknown annotation @{name}" in refused(permit(f'@id("p") @{name}("2")'))


@pytest.mark.parametrize(
    "when", ["context.unknown == 1", "resource.owner == 1", 'context.window_s == "900"', "context.window_s", "1 + true"]
)
def test_a_policy_that_does_not_validate_is_refused(when: str) -> None:
    assert "does not validate" in refused(permit(when=when))


def test_whatever_is_wrong_has_the_file_and_the_line_of_its_rule_and_is_whole() -> None:
    good = permit('@id("good")')
    bad = "\n// why\n" + permit(
        '@id("bad")', when="context.a == 1 && context.b == 1 && " + "context.c == 1 && " * 9 + "true"
    )
    with pytest.raises(InvalidInput) as caught:
        CedarAuthorizer({"a.cedar": good, "b.cedar": bad}, SCHEMA)
    said = str(caught.value)
    assert "b.cedar:3: for policy `bad`, attribute `a` in context" in said and "attribute `b` in context" in said
    assert re.search(r" not found; and \d+ more$", said), "whole, whatever is left out"
    with pytest.raises(InvalidInput) as caught:
        CedarAuthorizer(
            {"a.cedar": good, "b.cedar": f'{good}\n\n// why\n@id("bad")\npermit (principal &&& x);'}, SCHEMA
        )
    assert str(caught.value).startswith("the policy set does not parse: b.cedar:4: in the rule that begins there: ")


def test_an_unknown_action_or_type_is_refused() -> None:
    assert "does not validate" in refused('@id("p") permit (principal, action == Action::"revoke", resource);')
    assert "does not validate" in refused('@id("p") permit (principal is Robot, action, resource);')


@pytest.mark.parametrize("text", ["permit (", "x", "@id(", "permit (principal, action);", "}{", "\0"])
def test_what_does_not_parse_is_refused(text: str) -> None:
    assert "does not parse" in refused(text)


@pytest.mark.parametrize("schema", ["entity", "{", "action grant appliesTo {};x"])
def test_a_schema_that_does_not_parse_is_refused(schema: str) -> None:
    refused(permit(), schema)


@pytest.mark.parametrize(
    "slot", ["principal == ?principal, action, resource", "principal, action, resource == ?resource"]
)
def test_a_policy_template_is_refused(slot: str) -> None:
    # Cedar evaluates only what is linked: a forbid would silently forbid nothing
    assert "templates" in refused(f'@id("f") forbid ({slot});')
