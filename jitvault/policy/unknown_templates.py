"""Templates that rules name and that nobody has.

Cedar knows a template by its name alone, so `resource == AccessTemplate::"postgres-readnly"` validates, and
never holds.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from jitvault.formats.did_you_mean import nearest
from jitvault.policy.cedar_json import entity_ids
from jitvault.policy.rule import Rule

_TYPE = "AccessTemplate"


def unknown_templates(rules: Sequence[Rule], templates: Collection[str], place: str) -> list[str]:
    """Return each name of no template that a rule has, in words, once.

    `place` says where the templates come from.
    """
    found: dict[str, None] = {}
    for rule in rules:
        conditions = [json.loads(condition) for condition in sorted(rule.scope.conditions)]
        for name in entity_ids([rule.scope.resource, *conditions], _TYPE):
            if name not in templates:
                found[_told(rule.id, name, templates, place)] = None
    return list(found)


def _told(rule: str, name: str, templates: Collection[str], place: str) -> str:
    shown = json.dumps(name, ensure_ascii=True)[:80]
    meant = nearest(name, sorted(templates))
    return f"rule {rule} names the template {shown}, and there is none of that name in {place}{meant}"
