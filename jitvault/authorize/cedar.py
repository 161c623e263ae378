"""Policy decisions by Cedar: https://docs.cedarpolicy.com

The policy set and the schema are parsed and validated once; a set that does not validate is never used.
Annotations of permits are obligations. Cedar names its reasons by position (`policy0`), so they are mapped
to each policy's `@id`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import cedarpy

from jitvault.domain.canonical import sha256_hex
from jitvault.domain.policy import APPROVERS, Decision, Obligations, combine, strictest
from jitvault.errors import InvalidInput
from jitvault.ports.policy import Question

_KNOWN = frozenset({"id", "approvals", "approver_group", "max_window", "reason"})
_MAX_APPROVALS = 10


class CedarAuthorizer:
    """`jitvault.ports.policy.Authorizer` over `.cedar` files and one `.cedarschema`."""

    def __init__(self, policies: Mapping[str, str], schema: str) -> None:
        """`policies` maps file names to their text. Raises InvalidInput when the set does not validate."""
        text = "\n".join(policies[name] for name in sorted(policies))
        self.digest = "sha256:" + sha256_hex((text + "\0" + schema).encode())
        try:
            self._set = cedarpy.PolicySet.from_str(text)
            self._schema = cedarpy.Schema.from_str(schema)
            result = cedarpy.validate_policies(text, schema)
            parsed = json.loads(cedarpy.policies_to_json_str(text))
        except ValueError as error:
            raise InvalidInput(f"the policy set does not parse: {error!s:.300}") from None
        if not result.validation_passed:
            problems = "; ".join(str(problem) for problem in result.errors)
            raise InvalidInput(f"the policy set does not validate: {problems:.300}")
        if parsed["templates"]:
            raise InvalidInput("the policy set has policy templates (?principal, ?resource), which decide nothing here")
        self._rules = {name: _Rule(name, policy) for name, policy in parsed["staticPolicies"].items()}
        groups = {rule.obligations.approver_group for rule in self._rules.values() if rule.obligations.approvals}
        if len(groups) > 1:
            # one count cannot say that each of two groups has approved
            raise InvalidInput(f"policies name several approver groups, this version knows one: {sorted(groups)}")
        ids = [rule.id for rule in self._rules.values()]
        if len(set(ids)) != len(ids):
            raise InvalidInput("two policies have the same @id")

    def decide(self, questions: Sequence[Question]) -> Decision:
        return combine([self._one(question) for question in questions])

    def _one(self, question: Question) -> Decision:
        result = cedarpy.is_authorized(_request(question), self._set, _entities(question), self._schema)
        deciding = [self._rules[reason] for reason in result.diagnostics.reasons]
        # a policy that could not be evaluated decides nothing: treat the whole as denied
        permitted = bool(result.allowed) and not result.diagnostics.errors and bool(deciding)
        obligations = deciding[0].obligations if permitted else Obligations()
        for rule in deciding[1:] if permitted else ():
            obligations = strictest(obligations, rule.obligations)
        return Decision(permitted, obligations, tuple(sorted(rule.id for rule in deciding)), self.digest)


class _Rule:
    """One policy's id and obligations, read from its annotations."""

    def __init__(self, name: str, policy: Mapping[str, Any]) -> None:
        annotations: Mapping[str, str] = policy.get("annotations") or {}
        unknown = sorted(set(annotations) - _KNOWN)
        if unknown:
            raise InvalidInput(f"policy {annotations.get('id', name)}: unknown annotation @{unknown[0]}")
        if not annotations.get("id"):
            raise InvalidInput(f"{name} has no @id annotation", hint="Every policy needs one: reports show it.")
        if not annotations.get("approver_group", APPROVERS):
            raise InvalidInput(f"policy {annotations['id']}: @approver_group names no group")
        self.id = annotations["id"]
        self.obligations = Obligations(
            approvals=self._number(annotations, "approvals", default=0, most=_MAX_APPROVALS) or 0,
            approver_group=annotations.get("approver_group", APPROVERS),
            max_window_s=self._number(annotations, "max_window", default=None, most=30 * 86_400),
        )

    def _number(self, annotations: Mapping[str, str], name: str, *, default: int | None, most: int) -> int | None:
        if name not in annotations:
            return default
        # an annotation without a value is null, and must not read as none
        value = annotations[name] or ""
        if not (value.isascii() and value.isdigit() and len(value) <= 9 and int(value) <= most):
            raise InvalidInput(f"policy {self.id}: @{name}({value!r:.40}) is not a whole number from 0 to {most}")
        return int(value)


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _request(question: Question) -> dict[str, Any]:
    return {
        "principal": _uid("Operator", question.requester),
        "action": _uid("Action", "grant"),
        "resource": _uid("AccessTemplate", question.template),
        "context": {
            "agent": question.agent,
            "owner": question.owner,
            "criticality": question.criticality,
            "risk": question.risk,
            "intent": question.intent,
            "tools": list(question.tools),
            "window_s": question.window_s,
            "network": question.network,
        },
    }


def _entities(question: Question) -> list[dict[str, Any]]:
    groups = [_uid("Group", group) for group in question.requester_groups]
    return [
        *({"uid": group, "attrs": {}, "parents": []} for group in groups),
        {"uid": _uid("Operator", question.requester), "attrs": {}, "parents": groups},
        {
            "uid": _uid("AccessTemplate", question.template),
            "attrs": {"tier": question.tier, "data_domains": list(question.data_domains)},
            "parents": [],
        },
    ]
