"""Read-through cache for scheduled renewals.

A worker checks each of thousands of tasks as often as its token is renewed, and most answers are shared by all of them:
which entities are enabled and in which groups, what is frozen, what an administrator provisioned, how many leases are
held, whether the stream is trusted. Within one second each is read from Vault once. Nothing is checked less often:
every renewal asks all of its questions, and no answer is older than a second.

Only scheduled renewals use the cache. A turn that was triggered by news (a request to end the task, a freeze, a denial)
reads everything fresh, and so do grants, revocations and proofs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from jitvault.context import ReadCache, WorkerContext
from jitvault.stream.reading import canary
from jitvault.vault.interface import Documents, Entity, Identity, Reader, Signer, Stored


def with_cached_reads(worker: WorkerContext) -> WorkerContext:
    """Return the worker with cached reads; unchanged where it has no cache."""
    recent = worker.mode.cache
    if recent is None:
        return worker
    return replace(
        worker,
        mode=replace(worker.mode, uses_cache=True),
        documents=_Documents(recent, worker.documents),
        identity=_Identity(recent, worker.identity),
        reader=_Reader(recent, worker.reader),
        signer=_Signer(recent, worker.signer),
    )


def read_up_to(worker: WorkerContext, due_at: datetime | None) -> None:
    """Make sure that the trusted stream was read up to `due_at` at least.

    One canary that was sent after `due_at` shows this for every task that was due by then. Raises AuditUntrusted.
    """
    if worker.mode.cache is None or due_at is None:
        canary(worker)
        return
    late_s = (worker.now() - due_at) / timedelta(seconds=1)
    worker.mode.cache.of("canary", lambda: canary(worker), at_most_s=late_s)


@dataclass(frozen=True, slots=True)
class _Documents:
    """`jitvault.vault.interface.Documents` with cached reads.

    Writes and deletions go to Vault.
    """

    recent: ReadCache
    own: Documents

    def read(self, path: str) -> Stored | None:
        return self.recent.of(("document", path), lambda: self.own.read(path))

    def earlier(self, path: str, version: int) -> Stored | None:
        return self.own.earlier(path, version)

    def get(self, path: str) -> dict[str, Any] | None:
        stored = self.read(path)
        return stored.document if stored else None

    def put(self, path: str, document: Mapping[str, Any], *, op: str | None = None) -> int:
        return self.own.put(path, document, op=op)

    def names(self, path: str) -> list[str]:
        return self.recent.of(("names", path), lambda: self.own.names(path))

    def deliver(self, path: str, document: Mapping[str, Any], *, op: str) -> None:
        self.own.deliver(path, document, op=op)

    def destroy(self, path: str, *, op: str | None = None) -> None:
        self.own.destroy(path, op=op)


@dataclass(frozen=True, slots=True)
class _Identity:
    """`jitvault.vault.interface.Identity`."""

    recent: ReadCache
    own: Identity

    def by_id(self, entity_id: str) -> Entity | None:
        return self.recent.of(("entity", entity_id), lambda: self.own.by_id(entity_id))

    def by_name(self, name: str) -> Entity | None:
        return self.recent.of(("entity named", name), lambda: self.own.by_name(name))

    def groups_of(self, entity: Entity, among: Sequence[str]) -> tuple[str, ...]:
        return self.recent.of(("groups", entity, tuple(among)), lambda: self.own.groups_of(entity, among))

    def has_group(self, group: str) -> bool:
        return self.own.has_group(group)

    def members_of(self, group: str) -> list[str]:
        return self.recent.of(("members", group), lambda: self.own.members_of(group))


@dataclass(frozen=True, slots=True)
class _Reader:
    """`jitvault.vault.interface.Reader`."""

    recent: ReadCache
    own: Reader

    def read(self, path: str) -> dict[str, Any] | None:
        return self.recent.of(("read", path), lambda: self.own.read(path))

    def list(self, path: str) -> list[str]:
        return self.recent.of(("list", path), lambda: self.own.list(path))

    def capabilities(self, paths: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return self.own.capabilities(paths)


@dataclass(frozen=True, slots=True)
class _Signer:
    """`jitvault.vault.interface.Signer`."""

    recent: ReadCache
    own: Signer

    def sign(self, payload: Mapping[str, Any], payload_type: str, *, key: str, op: str | None = None) -> dict[str, Any]:
        return self.own.sign(payload, payload_type, key=key, op=op)

    def public_keys(self, key: str) -> dict[int, str]:
        return self.recent.of(("keys", key), lambda: self.own.public_keys(key))
