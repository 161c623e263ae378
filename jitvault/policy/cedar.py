"""Policy decisions by Cedar: https://docs.cedarpolicy.com

The policy set and the schema are parsed and validated once; a set that does not validate is never used.
Annotations of permits are obligations. Cedar names its reasons by position (`policy0`), so they are mapped
to each policy's `@id`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import cedarpy

from jitvault.errors import InvalidInput
from jitvault.formats.canonical_json import sha256_hex
from jitvault.formats.reloadable import Reloadable
from jitvault.policy.cedar_request import Named, Slice, Slices, entities_of, request_of
from jitvault.policy.decision import Decision, Obligations, combine, strictest
from jitvault.policy.question import Question
from jitvault.policy.rule import Rule, read_rule
from jitvault.policy.unreachable_rules import unreachable_rules

_MOST_PROBLEMS = 8
_POSITION = re.compile(r"\bpolicy\d+\b")


class CedarAuthorizer:
    """An authorizer over `.cedar` files and one `.cedarschema`.

    Implements `jitvault.policy.interface.Authorizer`.
    """

    def __init__(self, policies: Mapping[str, str], schema: str) -> None:
        """Parse the policy set; `policies` maps file names to their text.

        Raises InvalidInput if the set does not validate.
        """
        text = "\n".join(policies[name] for name in sorted(policies))
        self.digest = "sha256:" + sha256_hex((text + "\0" + schema).encode())
        try:
            handle = cedarpy.PolicySet.from_str(text)
            self._schema = cedarpy.Schema.from_str(schema)
            result = cedarpy.validate_policies(text, self._schema)
            parsed = json.loads(cedarpy.policies_to_json_str(text))
        except ValueError as error:
            raise InvalidInput(f"the policy set does not parse: {_where(policies) or _line(error)}") from None
        if parsed["templates"]:
            raise InvalidInput("the policy set has policy templates (?principal, ?resource), which decide nothing here")
        self.rules = {name: read_rule(name, policy) for name, policy in parsed["staticPolicies"].items()}
        if not result.validation_passed:
            problems = sorted(self._in_words(problem, policies) for problem in result.errors)
            more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
            # whole: a message that ends within a word says less than none
            raise InvalidInput(f"the policy set does not validate: {'; '.join(problems[:_MOST_PROBLEMS])}{more}")
        ids = [rule.id for rule in self.rules.values()]
        if twice := sorted({each for each in ids if ids.count(each) > 1}):
            raise InvalidInput(f"two policies have the same @id: {', '.join(twice)}")
        self._slices = Slices(Slice(handle, self.rules), parsed["staticPolicies"])
        self._fitting: set[tuple[str, ...]] = set()
        permits = (rule for rule in self.rules.values() if rule.permits)
        approval_groups = {requirement.group for rule in permits for requirement in rule.obligations.approvals}
        self.groups = frozenset(approval_groups).union(*(rule.groups for rule in self.rules.values()))

    @property
    def idle(self) -> Mapping[str, str]:
        """The rules that decide nothing, by their `@id`, each with the reason."""
        return unreachable_rules(list(self.rules.values()))

    def decide(self, questions: Sequence[Question]) -> Decision:
        """Decide in one call to Cedar.

        See `jitvault.policy.interface.Authorizer.decide`. Cedar gets only what the questions name: rules, people
        and templates.
        """
        if not questions:
            return combine([])
        entities = _entities(tuple(dict.fromkeys(Named.by(question) for question in questions)))
        requests = [request_of(question) for question in questions]
        part = self._slices.of(questions)
        shapes = {_shape(question) for question in questions}
        schema = None if shapes <= self._fitting else self._schema
        results = cedarpy.is_authorized_batch(requests, part.handle, entities, schema)
        if not any(result.diagnostics.errors for result in results):
            self._fitting |= shapes
        return combine([self._decision(result, part.rules) for result in results])

    def _decision(self, result: cedarpy.AuthzResult, rules_of: Mapping[str, Rule]) -> Decision:
        deciding = [rules_of[reason] for reason in result.diagnostics.reasons]
        if result.diagnostics.errors:
            # Cedar skips a policy that errs; a forbid that is skipped would let everything through.
            erred = sorted({rules_of[name].id for e in result.diagnostics.errors for name in _POSITION.findall(e)})
            why = f"{', '.join(erred) or 'the question'} could not be evaluated"
            return Decision(False, Obligations(), tuple(erred), self.digest, (why,))
        permitted = bool(result.allowed) and bool(deciding)
        obligations = Obligations()
        for rule in deciding if permitted else ():
            obligations = strictest(obligations, rule.obligations)
        rules = tuple(sorted(rule.id for rule in deciding))
        reasons = tuple(sorted({rule.reason for rule in deciding if rule.reason}))
        return Decision(permitted, obligations, rules, self.digest, reasons)

    def _in_words(self, problem: cedarpy.ValidationError, policies: Mapping[str, str]) -> str:
        """Return what does not validate, with the file and the line of its rule.

        Cedar's positions (`policy0`) are replaced by the rules' `@id`s.
        """
        rule = self.rules.get(str(problem.policy_id))
        place = _line_of(f'@id("{rule.id}")', policies) if rule is not None else ""
        return place + _POSITION.sub(
            lambda found: self.rules[found[0]].id if found[0] in self.rules else found[0], problem.error
        )


@lru_cache(maxsize=1024)
def _entities(named: tuple[Named, ...]) -> cedarpy.Entities:
    """Return the named people and templates in Cedar's form.

    The result is cached: a task is asked about again and again, and mostly nothing of it has changed.
    """
    return cedarpy.Entities.from_json_str(json.dumps(entities_of(named)))


def _shape(question: Question) -> tuple[str, ...]:
    """Return the parts of a question by which the schema may refuse it.

    Everything else has one type, whatever its value.
    """
    return question.action.value, question.principal.kind, question.agent.kind, question.owner.kind


def _where(policies: Mapping[str, str]) -> str:
    """Return the first rule that does not parse, with its file and line.

    Cedar says neither. Empty where each rule parses by itself.
    """
    for name in sorted(policies):
        for line, text in _statements(policies[name]):
            try:
                cedarpy.PolicySet.from_str(text)
            except ValueError as error:
                return f"{name}:{line}: in the rule that begins there: {_line(error)}"
    return ""


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each statement of a file with the line in which it begins.

    A statement ends with the line that ends with a semicolon. Comments before it are left out.
    """
    begins, lines = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if not lines and (not line.strip() or line.lstrip().startswith("//")):
            continue
        begins = begins if lines else number
        lines.append(line)
        if line.partition("//")[0].rstrip().endswith(";"):
            yield begins, "\n".join(lines)
            lines = []
    if lines:
        yield begins, "\n".join(lines)


def _line_of(part: str, policies: Mapping[str, str]) -> str:
    """Return `file:line: ` of the first line with `part`; empty without one."""
    for name in sorted(policies):
        for number, line in enumerate(policies[name].splitlines(), 1):
            if part in line:
                return f"{name}:{number}: "
    return ""


def _line(error: ValueError) -> str:
    return " ".join(str(error).split())[:300]


class CurrentPolicies(Reloadable[CedarAuthorizer]):
    """An authorizer with the last policy set that was valid.

    Implements `jitvault.policy.interface.Authorizer`.
    """

    @property
    def digest(self) -> str:
        return self.value.digest

    @property
    def groups(self) -> frozenset[str]:
        return self.value.groups

    def decide(self, questions: Sequence[Question]) -> Decision:
        return self.value.decide(questions)
