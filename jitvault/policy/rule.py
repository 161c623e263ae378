"""One policy of a set: its `@id`, its obligations, and its groups.

The input is Cedar's own JSON form of a policy (https://docs.cedarpolicy.com/policies/json-format.html).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jitvault.errors import InvalidInput
from jitvault.formats.time_window import parse_duration
from jitvault.policy.cedar_json import entity_ids
from jitvault.policy.decision import APPROVERS, Obligations, ProofLevel, Requirement

GROUP = r"jitvault-[a-z0-9](?:[a-z0-9-]{0,53}[a-z0-9])?"
"""The names of groups that the worker may look up in Vault."""

_OBLIGATIONS = frozenset(
    {"approvals", "approver_group", "owner_may_approve", "max_ttl", "max_window", "confirm", "notify"}
)
_KNOWN = _OBLIGATIONS | {"id", "reason"}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,79}")
_CHANNEL = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_MAX_APPROVALS = 10
_MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Scope:
    """The principals, actions, resources and conditions of a policy.

    They are Cedar's JSON; a condition is its text.
    """

    principal: Mapping[str, Any]
    action: Mapping[str, Any]
    resource: Mapping[str, Any]
    conditions: frozenset[str]

    @property
    def is_impossible(self) -> bool:
        """Whether a condition can never hold, whatever the question."""
        never = ({"kind": "when", "body": {"Value": False}}, {"kind": "unless", "body": {"Value": True}})
        return any(json.loads(condition) in never for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy of a set.

    `name` is the position by which Cedar names it, such as `policy0`.
    """

    name: str
    id: str
    permits: bool
    obligations: Obligations
    reason: str
    groups: frozenset[str]
    scope: Scope


def read_rule(name: str, policy: Mapping[str, Any]) -> Rule:
    """Return the rule of a policy in Cedar's JSON form.

    Raises InvalidInput for an annotation that is unknown, has a bad value, or would oblige to nothing.
    """
    # An annotation without a value is null, and must not be read as absent.
    annotations = {key: value or "" for key, value in (policy.get("annotations") or {}).items()}
    if not annotations.get("id"):
        raise InvalidInput(f"{name} has no @id annotation", hint="Every policy needs one: reports show it.")
    found = _Annotations(annotations["id"], annotations)
    if not _ID.fullmatch(found.id):
        raise InvalidInput(f"{name}: @id({found.id!r:.100}): expected 1 to 80 of A-Z a-z 0-9 . _ : -")
    if unknown := sorted(set(annotations) - _KNOWN):
        # a misspelt obligation would otherwise be none
        raise InvalidInput(f"policy {found.id}: unknown annotation @{unknown[0]}")
    permits = policy["effect"] == "permit"
    useless = sorted(set(annotations) & _OBLIGATIONS)
    if useless and not permits:
        raise InvalidInput(f"policy {found.id}: @{useless[0]} has no effect on a forbid")
    groups = frozenset(entity_ids(policy, "Group"))
    for group in sorted(groups):
        found.check_group("Group::", group)
    obligations = found.obligations()
    return Rule(
        name=name,
        id=found.id,
        permits=permits,
        obligations=obligations,
        reason=found.reason(),
        groups=groups,
        scope=_scope(policy),
    )


class _Annotations:
    """The annotations of one policy, read one by one."""

    def __init__(self, rule: str, annotations: Mapping[str, str]) -> None:
        self.id = rule
        self._values = annotations

    def obligations(self) -> Obligations:
        return Obligations(
            approvals=self._approvals(),
            max_ttl_s=self._seconds("max_ttl"),
            max_window_s=self._seconds("max_window"),
            confirm=self._proof_level(),
            notify=self._notify(),
            owner_may_approve=self._owner(),
        )

    def reason(self) -> str:
        if "reason" not in self._values:
            return ""
        text = self._values["reason"]
        if not text.strip() or len(text) > _MAX_REASON or not text.isprintable():
            raise self._wrong("reason", f"one line of 1 to {_MAX_REASON} characters")
        return text.strip()

    def check_group(self, what: str, group: str) -> None:
        if not re.fullmatch(GROUP, group):
            raise InvalidInput(
                f"policy {self.id}: {what}({group!r:.80}): expected a Vault group named jitvault-…, of a-z 0-9 -",
                hint="The worker can read no other group.",
            )

    def _approvals(self) -> tuple[Requirement, ...]:
        group = self._values.get("approver_group")
        if group is not None:
            self.check_group("@approver_group", group)
        if "approvals" not in self._values:
            if group is not None:
                raise InvalidInput(f"policy {self.id}: @approver_group has no effect without @approvals")
            return ()
        text = self._values["approvals"]
        if not (text.isascii() and text.isdigit() and len(text) <= 2 and int(text) <= _MAX_APPROVALS):
            raise self._wrong("approvals", f"a whole number from 0 to {_MAX_APPROVALS}")
        return (Requirement(group or APPROVERS, int(text)),) if int(text) else ()

    def _owner(self) -> tuple[str, ...]:
        if "owner_may_approve" not in self._values:
            return ()
        if self._values["owner_may_approve"] not in ("true", "false"):
            raise self._wrong("owner_may_approve", "true or false")
        needed = self._approvals()
        if not needed:
            raise InvalidInput(f"policy {self.id}: @owner_may_approve has no effect without @approvals")
        allowed = self._values["owner_may_approve"] == "true"
        return tuple(each.group for each in needed) if allowed else ()

    def _seconds(self, name: str) -> int | None:
        if name not in self._values:
            return None
        try:
            return int(parse_duration(self._values[name]).total_seconds())
        except InvalidInput:
            raise self._wrong(name, "a duration of at most 30d such as 15m") from None

    def _proof_level(self) -> ProofLevel | None:
        if "confirm" not in self._values:
            return None
        try:
            return ProofLevel(self._values["confirm"])
        except ValueError:
            raise self._wrong("confirm", "audit or target") from None

    def _notify(self) -> tuple[str, ...]:
        if "notify" not in self._values:
            return ()
        names = [name.strip() for name in self._values["notify"].split(",")]
        if not all(_CHANNEL.fullmatch(name) for name in names):
            raise self._wrong("notify", "names of a-z 0-9 - with commas between")
        return tuple(sorted(set(names)))

    def _wrong(self, name: str, expected: str) -> InvalidInput:
        return InvalidInput(f"policy {self.id}: @{name}({self._values[name]!r:.40}): expected {expected}")


def _scope(policy: Mapping[str, Any]) -> Scope:
    conditions = frozenset(json.dumps(condition, sort_keys=True) for condition in policy.get("conditions") or ())
    return Scope(policy["principal"], policy["action"], policy["resource"], conditions)
