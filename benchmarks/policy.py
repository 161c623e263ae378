"""How long one policy decision takes, in a set of 100 rules, about people out of a thousand entities."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cedarpy

from benchmarks.measure import Figure, alternate, milliseconds, ratio
from jitvault import shipped_files as shipped
from jitvault.policy.cedar import CedarAuthorizer
from jitvault.policy.cedar_request import Named, entities_of, request_of
from jitvault.policy.question import Action, HeldLeases, Moment, Principal, Question

RULES, ENTITIES = 100, 1_001
TIMES, CALLS = 40, 100
BAR_US = 300


def run(directory: Path) -> list[Figure]:
    """One question to the shipped policies and as many others as make 100, against cedarpy called with the same
    request and with handles that were made before, one of them of all 1,001 entities.

    A decision of ours makes the handle of the few entities that its question needs when it is first asked.
    """
    policies, schema = _policies()
    authorizer = CedarAuthorizer(policies, schema)
    if len(authorizer.rules) != RULES:
        raise RuntimeError(f"there are {len(authorizer.rules)} rules and not {RULES}")
    questions = _questions()
    entities = entities_of(map(Named.by, questions))
    if len(entities) != ENTITIES:
        raise RuntimeError(f"there are {len(entities)} entities and not {ENTITIES}")
    ours, theirs = itertools.cycle(questions), itertools.cycle([request_of(question) for question in questions])
    held = cedarpy.Entities.from_json_str(json.dumps(entities))
    text = "\n".join(policies[name] for name in sorted(policies))
    handles = (cedarpy.PolicySet.from_str(text), held, cedarpy.Schema.from_str(schema))
    own, reference = alternate(
        TIMES,
        lambda: milliseconds(lambda: _each(ours, authorizer)),
        lambda: milliseconds(lambda: _bare(theirs, *handles)),
    )
    said = f"cedarpy with handles, {RULES} rules, {ENTITIES:,} entities, {TIMES} times {CALLS} in turn"
    return [
        Figure("policy_decision_us", median(own) * 1000 / CALLS, "µs", said, bar=BAR_US),
        Figure("bare_cedar_us", median(reference) * 1000 / CALLS, "µs", "itself"),
        Figure("policy_decision_ratio", ratio(own, reference), "ratio", said),
    ]


def _each(questions: Iterator[Question], authorizer: CedarAuthorizer) -> None:
    for question in itertools.islice(questions, CALLS):
        if not authorizer.decide([question]).permitted:
            raise RuntimeError("a decision that should permit does not")


def _bare(requests: Iterator[dict[str, Any]], policies: Any, entities: Any, schema: Any) -> None:
    for request in itertools.islice(requests, CALLS):
        if not cedarpy.is_authorized(request, policies, entities, schema).allowed:
            raise RuntimeError("a decision that should permit does not")


def _policies() -> tuple[dict[str, str], str]:
    directory = shipped.policies_dir() / "cedar"
    policies = {path.name: path.read_text() for path in directory.glob("*.cedar")}
    schema = (directory / "jitvault.cedarschema").read_text()
    more = RULES - len(CedarAuthorizer(policies, schema).rules)
    # rules of one template each, as a large set has them; half of them look at the context, too
    policies["more.cedar"] = "\n".join(
        f'@id("more-{n}") @approvals("1") permit (principal in Group::"jitvault-team-{n}", action == Action::"grant", '
        f'resource == AccessTemplate::"t-{n}")'
        + (f' when {{ context.labels.contains("team={n}") && context.window_s < 600 }};' if n % 2 else ";")
        for n in range(more)
    )
    return policies, schema


def _questions() -> list[Question]:
    """333 questions: each about a requester, an agent and a template of its own, and the next one's owner."""
    number = (ENTITIES - 2) // 3
    operators = [Principal("Operator", f"o-{n}", f"operator {n}", ("jitvault-operators",)) for n in range(number)]
    return [
        Question(
            action=Action.GRANT,
            principal=operators[n],
            agent=Principal("Agent", f"a-{n}", f"agent {n}", ("jitvault-agents",)),
            owner=operators[(n + 1) % number],
            template=f"t-{n}",
            tier="low",
            data_domains=("orders",),
            template_owner="owner",
            lease_budget=5,
            criticality="low",
            risk="low",
            intent="Count the orders for the weekly report.",
            tools=("psql",),
            window_s=900,
            network="office",
            labels=("team", "team=data"),
            depth=0,
            moment=Moment(12, 3),
            load=HeldLeases(5, 5, 5, 0),
        )
        for n in range(number)
    ]
