from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jitvault.authorize.cedar import CedarAuthorizer
from jitvault.domain.policy import APPROVERS, Decision, Obligations
from jitvault.errors import InvalidInput
from jitvault.ports.policy import Question

SHIPPED = Path(__file__).parents[3] / "policies" / "cedar"
SCHEMA = (SHIPPED / "jitvault.cedarschema").read_text()
OPERATORS = "jitvault-operators"
ASKED = Question(
    requester="e-req",
    requester_groups=(OPERATORS,),
    agent="e-agent",
    owner="e-owner",
    template="pg-read",
    tier="low",
    data_domains=("orders",),
    criticality="low",
    risk="low",
    intent="Count the orders.",
    tools=("psql",),
    window_s=900,
    network="",
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


# -- the shipped policies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("risk", "approvals"), [("low", 0), ("medium", 1), ("high", 2), ("critical", 2)])
def test_risk_decides_how_many_have_to_approve(risk: str, approvals: int) -> None:
    decision = shipped().decide([replace(ASKED, risk=risk)])
    assert decision.permitted
    assert decision.obligations == Obligations(approvals, APPROVERS, None)
    assert len(decision.rules) == 1


@pytest.mark.parametrize("risk", ["low", "medium", "high", "critical"])
@pytest.mark.parametrize("groups", [(), ("jitvault-approvers",), ("jitvault-agents", "jitvault-operators-2")])
def test_who_is_no_operator_is_denied(risk: str, groups: tuple[str, ...]) -> None:
    decision = shipped().decide([replace(ASKED, risk=risk, requester_groups=groups)])
    assert not decision.permitted
    assert decision.rules == ()


def test_an_operator_may_be_in_other_groups_too() -> None:
    assert shipped().decide([replace(ASKED, requester_groups=("staff", OPERATORS, "dba"))]).permitted


@pytest.mark.parametrize("risk", ["", "LOW", "none", "extreme"])
def test_a_risk_that_no_policy_knows_is_denied(risk: str) -> None:
    assert not shipped().decide([replace(ASKED, risk=risk)]).permitted


def test_of_several_accesses_the_strictest_holds_and_all_must_be_permitted() -> None:
    both = shipped().decide([ASKED, replace(ASKED, risk="high")])
    assert both.permitted
    assert both.obligations.approvals == 2
    assert len(both.rules) == 2
    assert not shipped().decide([ASKED, replace(ASKED, risk="x")]).permitted


def test_no_question_is_a_denial() -> None:
    assert not shipped().decide([]).permitted


def test_every_shipped_rule_names_how_many_approve() -> None:
    text = "".join(path.read_text() for path in SHIPPED.glob("*.cedar"))
    assert text.count("permit (") == text.count("@id(") == text.count("@approvals(") == 3


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
    one = permit('@id("one") @approvals("1") @approver_group("security") @max_window("600")')
    two = permit('@id("two") @approvals("3") @approver_group("security")')
    three = permit('@id("three") @max_window("1200")')
    decision = decide(one + two + three)
    assert decision.permitted
    assert decision.obligations == Obligations(3, "security", 600)
    assert decision.rules == ("one", "three", "two")


def test_two_approver_groups_are_refused_since_one_count_cannot_speak_for_both() -> None:
    one = permit('@id("one") @approvals("1") @approver_group("dba")')
    two = permit('@id("two") @approvals("1") @approver_group("security")')
    with pytest.raises(InvalidInput, match="several approver groups"):
        decide(one + two)


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
    assert not decide(text).permitted
    assert decide(permit('@id("e")', "context.window_s * 2 > 0")).permitted


def test_reasons_are_ids_and_not_positions() -> None:
    text = permit('@id("never")', "context.window_s > 999999") + permit('@id("yes")')
    assert decide(text).rules == ("yes",)


def test_what_is_asked_reaches_the_policies() -> None:
    told = " && ".join(
        [
            'principal in Group::"jitvault-operators"',
            'principal == Operator::"e-req"',
            'resource == AccessTemplate::"pg-read"',
            'resource.tier == "low"',
            'resource.data_domains.contains("orders")',
            'context.agent == "e-agent"',
            'context.owner == "e-owner"',
            'context.criticality == "low"',
            'context.risk == "low"',
            'context.intent == "Count the orders."',
            'context.tools.contains("psql")',
            "context.window_s == 900",
            'context.network == ""',
        ]
    )
    assert decide(permit(when=told)).permitted
    for name, value in {
        "requester": "x",
        "requester_groups": (),
        "agent": "x",
        "owner": "x",
        "template": "x",
        "tier": "high",
        "data_domains": (),
        "criticality": "high",
        "risk": "high",
        "intent": "x",
        "tools": (),
        "window_s": 901,
        "network": "office",
    }.items():
        assert not decide(permit(when=told), replace(ASKED, **{name: value})).permitted  # type: ignore[arg-type]


def test_names_with_quotes_are_only_names() -> None:
    odd = 'x" || true || "\\\n\0'
    question = replace(ASKED, requester=odd, requester_groups=(odd,), template=odd, intent=odd)
    assert not decide(permit(when='principal in Group::"jitvault-operators"'), question).permitted


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
        *('@max_window("1h")', '@max_window("2592001")', '@max_window("-1")', '@max_window("")'),
        # no value at all must not read as "nobody has to approve"
        *("@approvals", "@max_window", "@approver_group", '@approver_group("")'),
    ],
)
def test_a_bad_annotation_is_refused(annotation: str) -> None:
    assert "policy p: @" in refused(permit(f'@id("p") {annotation}'))


def test_the_bounds_of_annotations_are_allowed() -> None:
    decision = decide(permit('@id("p") @approvals("10") @max_window("2592000")'))
    assert decision.obligations == Obligations(10, APPROVERS, 2_592_000)
    assert decide(permit('@id("p") @reason("because") @approvals("0")')).obligations == Obligations()


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
