"""The warnings of `policy check`.

They tell of what validates, and still grants nothing or can be approved by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jitvault.errors import JitvaultError, VaultRefused
from jitvault.formats.did_you_mean import nearest
from jitvault.lifecycle.decision.explain import grantable_not_renewable, uncovered_risks
from jitvault.policy.named_in_conditions import missing_guards, unknown_levels, unknown_templates
from jitvault.provision.names import GROUPS
from jitvault.vault.identity import Identity
from jitvault.wiring import Wiring

if TYPE_CHECKING:
    from jitvault.policy.cedar import CedarAuthorizer


def warnings_of(wiring: Wiring, policies: CedarAuthorizer) -> list[str]:
    """Return what a policy set most likely does not mean, in words."""
    templates = list(wiring.templates.values())
    rules = list(policies.rules.values())
    return [
        *unknown_levels(rules),
        *uncovered_risks(policies, rules, templates),
        *missing_guards(rules),
        *_missing_groups(wiring, policies),
        *unknown_templates(rules, wiring.templates, _place_of_templates(wiring)),
        *grantable_not_renewable(policies, templates),
    ]


def _place_of_templates(wiring: Wiring) -> str:
    """Return where the templates come from that the rules were compared with."""
    settings = wiring.settings
    if "templates" in settings.model_fields_set:
        return f"{settings.templates} (JITVAULT_TEMPLATES)"
    if settings.agent_login is not None:
        return "the worker's templates as it published them (JITVAULT_TEMPLATES is not set)"
    return f"{settings.templates} (those that ship: JITVAULT_TEMPLATES is not set)"


def _missing_groups(wiring: Wiring, policies: CedarAuthorizer) -> list[str]:
    """Return the groups that the policies name and that Vault does not have.

    Those that `init` creates are left out: it may not have run yet. Where no identity of this process may ask Vault,
    all others are returned.
    """
    own = sorted(policies.groups - GROUPS.keys())
    missing = _not_in_vault(wiring, own)
    why = "nobody has provisioned it in Vault"
    if missing is None:
        missing = own
        why = "`jitvault init` does not create it, and Vault was not asked"
    return [
        f"rule {', '.join(_rules_naming(policies, group))} names the group {group}: {why}"
        f"{nearest(group, sorted(GROUPS))}"
        for group in missing
    ]


def _rules_naming(policies: CedarAuthorizer, group: str) -> list[str]:
    return [
        rule.id
        for rule in policies.rules.values()
        if group in rule.groups or any(needed.group == group for needed in rule.obligations.approvals)
    ]


def _not_in_vault(wiring: Wiring, groups: Sequence[str]) -> list[str] | None:
    """Return those groups that Vault does not have.

    None where no identity here may ask Vault, or Vault does not answer.
    """
    try:
        for token in wiring.identities():
            identity = Identity(wiring.vault(token))
            try:
                return [group for group in groups if not identity.has_group(group)]
            except VaultRefused:
                continue
    except JitvaultError:
        # the check of the files is what was asked for; whatever keeps Vault from answering is told elsewhere
        return None
    return None
