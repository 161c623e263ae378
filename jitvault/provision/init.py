"""Provision Vault for `jitvault init`.

An administrator runs it once, and again after every change. found = plan(vault, want) # reads only; refuses what is not
jitvault's apply(vault, found) # makes the changes; every step of a second plan is "keep"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jitvault.engines.interface import Engine
from jitvault.model.read_limit import TASKS_PER_SECOND
from jitvault.model.template import AccessTemplate
from jitvault.provision.apply import carry_out
from jitvault.provision.desired import desired
from jitvault.provision.live import Live
from jitvault.provision.plan import Plan, Step, difference
from jitvault.provision.worker_login import WorkerLogin
from jitvault.vault.client import Vault

__all__ = ["Plan", "Step", "Want", "apply", "plan"]


@dataclass(frozen=True, slots=True)
class Want:
    """What to provision Vault for.

    `policies` maps the file names of `policies/vault` to their texts, `networks` maps names to CIDRs. `worker_login` is
    the worker's AppRole, None where none is wanted. `tasks_per_second` is how many tasks behind one client address may
    begin to read within a second; 0 sets no limit.
    """

    templates: Mapping[str, AccessTemplate]
    engines: Mapping[str, Engine]
    policies: Mapping[str, str]
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    worker_login: WorkerLogin | None = None
    tasks_per_second: int = TASKS_PER_SECOND


def plan(vault: Vault, want: Want) -> Plan:
    """Return what `apply` would do; nothing is written.

    `vault` has the administrator's identity. Signing keys are planned for the present members of the groups, so `init`
    has to run again when a member joins. Raises InvalidInput for an unusable template, network or policy file,
    WrongState where something with a name of jitvault's is not jitvault's, and VaultRefused for an identity that may
    not read everything.
    """
    live = Live(vault)
    items = desired(
        templates=want.templates,
        engines=want.engines,
        networks=want.networks,
        policies=want.policies,
        signers=live.signers(),
        tasks_per_second=want.tasks_per_second,
        worker_login=want.worker_login,
    )
    return difference(items, live)


def apply(vault: Vault, plan: Plan) -> None:
    """Make the plan's changes in order, and stop at the first failure.

    Each finished step is complete, and the next `plan` has the rest. Raises what `Vault.write` raises.
    """
    for step in plan.changes:
        carry_out(vault, step)
