"""Provision Vault for `jitvault init`.

An administrator runs it once, and again after every change. found = plan(vault, want) # reads only; refuses what is not
jitvault's apply(vault, found) # makes the changes; every step of a second plan is "keep"
"""

from __future__ import annotations

from dataclasses import replace

from jitvault.errors import WrongState
from jitvault.model.vault_access import WORKER_POLICY
from jitvault.provision.desired import Want, desired
from jitvault.provision.in_use import in_use, lost_paths
from jitvault.provision.item import Step
from jitvault.provision.items import MarkedPolicy
from jitvault.provision.live import Live
from jitvault.provision.networks import known_networks, merged, roles_to_remove
from jitvault.provision.plan import Plan, carry_out, difference
from jitvault.vault.client import Vault

__all__ = ["Plan", "Step", "Want", "apply", "plan"]


def plan(vault: Vault, want: Want) -> Plan:
    """Return what `apply` would do; nothing is written.

    `vault` has the administrator's identity. Signing keys are planned for the present members of the groups, so `init`
    has to run again when a member joins. Raises InvalidInput for an unusable template, network or policy file,
    NotFound for a network to remove that does not exist, WrongState where something with a name of jitvault's is not
    jitvault's, and VaultRefused for an identity that may not read everything.
    """
    live = Live(vault)
    known = known_networks(live)
    items = desired(
        want,
        networks=merged(known, want.networks, want.removed_networks),
        removed_roles=roles_to_remove(live, known, want.removed_networks),
        signers=live.signers(),
    )
    found = difference(items, live)
    return replace(found, in_use=in_use(vault, _lost(found, live)))


def _lost(plan: Plan, live: Live) -> frozenset[str]:
    """Return the paths whose leases the worker could no longer revoke."""
    for step in plan.changes:
        if isinstance(step.item, MarkedPolicy) and step.item.name == WORKER_POLICY:
            return lost_paths(live.policy(WORKER_POLICY) or "", step.item.text)
    return frozenset()


def apply(vault: Vault, plan: Plan) -> None:
    """Make the plan's changes in order, and stop at the first failure.

    Each finished step is complete, and the next `plan` has the rest. Raises WrongState, before the first change, for a
    plan that takes rights away which live tasks need, and what `Vault.write` raises.
    """
    check_not_in_use(plan)
    for step in plan.changes:
        carry_out(vault, step)


def check_not_in_use(plan: Plan) -> None:
    """Raise WrongState for a plan that takes what live tasks need."""
    if plan.in_use:
        raise WrongState(
            f"nothing was changed: the worker would lose rights that live tasks need ({'; '.join(plan.in_use)})",
            hint="End those tasks first (`jitvault revoke TASK`) and wait until they are sealed, or leave the network "
            "and the templates as they are.",
        )
