"""`jitvault init`: what an administrator runs to provision Vault, and again after every change.

found = plan(vault, want)     # reads only; refuses what is not jitvault's
apply(vault, found)           # makes the changes; a second plan is all "keep"
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
    """What to provision for: `policies` maps the file names of `policies/vault` to their texts,
    `networks` maps names to CIDRs. With `worker_login` the worker's AppRole, too. `tasks_per_second` is how many tasks
    behind one client address may begin to read within a second; 0 limits nobody.
    """

    templates: Mapping[str, AccessTemplate]
    engines: Mapping[str, Engine]
    policies: Mapping[str, str]
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    worker_login: WorkerLogin | None = None
    tasks_per_second: int = TASKS_PER_SECOND


def plan(vault: Vault, want: Want) -> Plan:
    """What `apply` would do, with the administrator's identity in `vault`. Writes nothing.

    Signing keys are planned for the members that the groups have now, so `init` runs again when somebody
    joins. Raises InvalidInput for an unusable template, network or policy file; WrongState for something
    of jitvault's name that is not jitvault's; VaultRefused when the identity may not look.
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
    """Make the plan's changes, in order. Stops at the first failure; what is done stays whole, and the
    next `plan` has the rest. Raises what `Vault.write` raises.
    """
    for step in plan.changes:
        carry_out(vault, step)
