"""Find which rights of a plan live tasks still need.

A plan of `init` may take rights from the worker.

Without these rights nothing of such a task could be listed, renewed by path, revoked by path or proven.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from jitvault.documents.paths import PUBLISHED, published_path
from jitvault.documents.published_task import IllegibleDocument, PublishedTask, read_published
from jitvault.formats.plural import counted
from jitvault.model.states import UNSEALED, State
from jitvault.provision.networks import network_of
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents

_LEASES = re.compile(r'^path "sys/leases/lookup/([^"*]+)/\*"', re.MULTILINE)
_ROLES = "auth/token/create/"
_NEEDS_RIGHTS = UNSEALED - {State.UNVERIFIED}


def lost_paths(before: str, after: str) -> frozenset[str]:
    """Return the lease paths that one policy text has and the other lacks."""
    return frozenset(_LEASES.findall(before)) - frozenset(_LEASES.findall(after))


def in_use(vault: Vault, lost: Iterable[str]) -> tuple[str, ...]:
    """Return in words which of the lost paths live tasks use, a line for each.

    For a token role Vault itself lists the live tokens. What workers publish of tasks says which task uses a path or a
    network: other users of the same engine count for nothing. Raises VaultRefused.
    """
    lost = sorted(lost)
    if not lost:
        return ()
    roles = [path.removeprefix(_ROLES) for path in lost if path.startswith(_ROLES)]
    paths = frozenset(path for path in lost if not path.startswith(_ROLES))
    networks = frozenset(map(network_of, roles)) - {""}
    return (*_tokens(vault, roles), *_tasks(vault, paths, networks))


def _tokens(vault: Vault, roles: Iterable[str]) -> Iterator[str]:
    for role in roles:
        tokens = vault.list(f"sys/leases/lookup/{_ROLES}{role}/")
        if tokens:
            yield f"the token role {role}: {counted(len(tokens), 'live token')}, of tasks or of their wrappings"


def _tasks(vault: Vault, paths: frozenset[str], networks: frozenset[str]) -> Iterator[str]:
    documents = Documents(vault)
    for task_id in sorted(documents.names(PUBLISHED)):
        stored = documents.read(published_path(task_id))
        if stored is None:
            continue
        said = read_published(task_id, stored.document, stored.written_at)
        if isinstance(said, IllegibleDocument):
            what = ", ".join(sorted(paths | {f"network {network}" for network in networks}))
            yield f"{what}: what is published of task {task_id} cannot be read"
        if isinstance(said, PublishedTask) and said.state in _NEEDS_RIGHTS:
            revision = said.full_revision
            used = sorted({access.path for access in revision.access} & paths)
            if revision.spec.spec.network in networks:
                used.append(f"network {revision.spec.spec.network}")
            if used:
                yield f"{', '.join(used)}: task {task_id} is {said.state}"
