"""How often one client address may ask for the credentials of a path: a rate-limit quota of Vault's.

An agent that floods an issuing path fills its mount, and each certificate that is revoked makes the list of all of them
anew (docs/vault-facts.md, "Certificates"). Its task ends at the first of these, a moment later; what a moment is worth
the quota bounds. Whoever comes over it is refused with a 429, which leaves no line, and asks again in the next second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jitvault.model.template import AccessTemplate

PREFIX = "jitvault-reads-"
WITHIN_S = 1
"""A window of Vault's quota. A client that waits for a second is in the next one."""
TASKS_PER_SECOND = 10
"""So many tasks behind one client address may begin to read within a second, unless an administrator says otherwise."""


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `rate` requests a second of each client address to `path`, below the mount `mount` of type `engine`."""

    path: str
    mount: str
    engine: str
    rate: int


def name_of(path: str) -> str:
    """A quota has no field for a marker, and a path has characters that no name may have."""
    return PREFIX + hashlib.sha256(path.encode()).hexdigest()[:16]


def quotas(templates: Iterable[AccessTemplate], tasks_per_second: int) -> Iterator[Quota]:
    """One for each issuing path: all leases that its templates let so many tasks have. None for 0 tasks."""
    found: dict[str, Quota] = {}
    for template in templates if tasks_per_second else ():
        for choices in template.all_choices():
            path, spec = template.resolve(choices), template.spec
            before = found[path].rate if path in found else 0
            rate = max(before, spec.lease_budget * tasks_per_second)
            found[path] = Quota(path, spec.mount, spec.engine, rate)
    yield from (found[path] for path in sorted(found))


def quota_body(quota: Quota, path: str) -> dict[str, Any]:
    """The quota as it is written; `path` has the namespace in front."""
    return {"path": path, "rate": quota.rate, "interval": f"{WITHIN_S}s", "block_interval": "0s"}


def normal(data: Mapping[str, Any]) -> dict[str, Any]:
    """A quota in one form, as Vault gives it."""
    return {
        "path": str(data.get("path") or ""),
        "rate": round(float(data.get("rate") or 0), 3),
        "interval": int(data.get("interval") or 0),
        "block_interval": int(data.get("block_interval") or 0),
        "role": str(data.get("role") or ""),
    }


def wanted(quota: Quota, path: str) -> dict[str, Any]:
    return normal({"path": path, "rate": quota.rate, "interval": WITHIN_S})
