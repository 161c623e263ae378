"""The difference between the desired state of Vault and its present state.

Nothing is written. Whatever has a name of jitvault's and is not jitvault's is refused here, before the first write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jitvault.model.read_limit import PREFIX
from jitvault.model.vault_access import ROLE_PREFIX
from jitvault.provision.item import Item, Step
from jitvault.provision.items import RemovedRole, TokenRole
from jitvault.provision.live import Live
from jitvault.provision.mounts import PlainKeys, ReadLimit
from jitvault.provision.names import AUDIT_DEVICE
from jitvault.vault.client import Vault


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps in their order.

    `missing` are notes on what is missing or left over that `init` does not correct. `in_use` says which rights that
    the steps take from the worker are needed for live tasks: then `init` changes nothing.
    """

    steps: tuple[Step, ...]
    missing: tuple[str, ...] = ()
    in_use: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.action != "keep")


def difference(items: Iterable[Item], live: Live) -> Plan:
    """Return what has to be done so that Vault has `items`.

    Raises WrongState for what is not jitvault's.
    """
    items = tuple(items)
    steps = (item.step(live) for item in items)
    return Plan(tuple(step for step in steps if step is not None), tuple(_missing(items, live)))


def carry_out(vault: Vault, step: Step) -> None:
    """Carry out one step. An interrupted run leaves complete steps behind, and the next plan has the rest."""
    step.item.carry_out(vault, step.action)


def _missing(items: tuple[Item, ...], live: Live) -> Iterator[str]:
    yield from _limits(items, live)
    for item in items:
        if not isinstance(item, PlainKeys):
            continue
        found = live.mounts.get(item.mount)
        if found is None:
            yield f"there is no secrets engine {item.mount}/ ({item.type}), which templates use"
        elif found.get("type") != item.type:
            yield f"the secrets engine {item.mount}/ is {found.get('type')}; templates expect {item.type}"
    if AUDIT_DEVICE not in live.audit_devices:
        yield (
            f"there is no audit device {AUDIT_DEVICE}/: without it nothing can be granted or proven "
            "(docs/operations/audit-sources.md)"
        )
    known = {item.name for item in items if isinstance(item, TokenRole | RemovedRole)}
    for name in sorted(role for role in live.token_roles if role.startswith(ROLE_PREFIX) and role not in known):
        _, _, network = name.removeprefix(ROLE_PREFIX).partition("-")
        how = f"`jitvault init --remove-network {network}`" if network else f"`bao delete auth/token/roles/{name}`"
        yield f"the token role {name} belongs to no network: {how} deletes it"


def _limits(items: tuple[Item, ...], live: Live) -> Iterator[str]:
    """Yield notes about quotas of others, or that are no longer needed."""
    paths = {live.full_path(item.quota.path) for item in items if isinstance(item, ReadLimit)}
    for path in sorted(paths):
        if other := live.limited_by_others(path):
            yield f"the quota {other}, which is not jitvault's, limits {path}: `init` adds none of its own there"
    # quotas of another namespace belong to another installation
    mounts = tuple(live.full_path(f"{mount}/") for mount in live.mounts)
    for name, found in sorted(live.quotas.items()):
        path = str(found.get("path"))
        if name.startswith(PREFIX) and path.startswith(mounts) and path not in paths:
            yield (
                f"the quota {name} limits reads of {path}, and none is needed there: no template has the path, or "
                f"JITVAULT_TASKS_PER_SECOND is 0; `bao delete sys/quotas/rate-limit/{name}` removes it"
            )
