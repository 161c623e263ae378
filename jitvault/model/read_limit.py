"""Vault's rate-limit quota for the requests of credentials of a path.

A quota limits how often one client address may send such requests. An agent that floods an issuing path fills its
mount, and each certificate that is revoked makes Vault build the revocation list anew (docs/vault-facts.md,
"Certificates"). The tripwire ends such a task at its first excess lease, a moment later; the quota bounds what the
agent gets in that moment. A client beyond the quota is refused with a 429, which leaves no audit line, and may ask
again in the next second.
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
"""The interval of the quota. A client that waits for a second is in the next interval."""
TASKS_PER_SECOND = 10
"""How many tasks behind one client address may begin to read within a second, unless an administrator sets another."""


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota: at most `rate` requests a second of one client to `path`.

    A client is a client address. `path` lies below the mount `mount`.
    """

    path: str
    mount: str
    rate: int


def name_of(path: str) -> str:
    """Return the quota's name: a hash of the path.

    A quota has no field for a marker, and a path has characters that no name may have.
    """
    return PREFIX + hashlib.sha256(path.encode()).hexdigest()[:16]


def quotas(templates: Iterable[AccessTemplate], tasks_per_second: int) -> Iterator[Quota]:
    """Yield one quota for each issuing path; none if `tasks_per_second` is 0.

    The rate is the whole lease budget of the templates, times the number of tasks.
    """
    found: dict[str, Quota] = {}
    for template in templates if tasks_per_second else ():
        for choices in template.all_choices():
            path = template.resolve(choices)
            spec = template.spec
            before = found[path].rate if path in found else 0
            rate = max(before, spec.lease_budget * tasks_per_second)
            found[path] = Quota(path, spec.mount, rate)
    yield from (found[path] for path in sorted(found))


def quota_body(quota: Quota, path: str) -> dict[str, Any]:
    """Return the quota as it is written to Vault.

    `path` has the namespace in front.
    """
    return {"path": path, "rate": quota.rate, "interval": f"{WITHIN_S}s", "block_interval": "0s"}


def normalized_quota(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a quota that Vault gave, in the form for comparison."""
    return {
        "path": str(data.get("path") or ""),
        "rate": round(float(data.get("rate") or 0), 3),
        "interval": int(data.get("interval") or 0),
        "block_interval": int(data.get("block_interval") or 0),
        "role": str(data.get("role") or ""),
    }


def wanted_quota(quota: Quota, path: str) -> dict[str, Any]:
    return normalized_quota({"path": path, "rate": quota.rate, "interval": WITHIN_S})
