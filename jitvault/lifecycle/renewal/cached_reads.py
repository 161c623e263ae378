"""The look at a held task whose time has come, among thousands of them: what all are judged by alike is read once.

A worker looks at each task that it keeps as often as its token is renewed, and most of what it looks at is the same for
all: who is enabled and in which group, what is frozen, what an administrator provisioned, how much is held, whether the
stream is trusted. One answer serves every look within a second of its question. Nothing is judged less often for it:
each look asks all of its questions, and all that it goes by is from this very second.

Only the look at what is due goes by it. Who comes because of news (a wish to end the task, a freeze, a denial) reads
everything now, and so does whatever grants, ends or proves.
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
    """The same worker, who goes by what was read within the last second; itself where it shares nothing."""
    recent = worker.shared
    if recent is None:
        return worker
    return replace(
        worker,
        glances=True,
        documents=_Documents(recent, worker.documents),
        identity=_Identity(recent, worker.identity),
        reader=_Reader(recent, worker.reader),
        signer=_Signer(recent, worker.signer),
    )


def read_up_to(worker: WorkerContext, due_at: datetime | None) -> None:
    """See that the stream is trusted and was read up to `due_at` at least. Raises AuditUntrusted.

    A canary that was asked for later than that shows it for all that was due by then: nothing of before is missing.
    """
    if worker.shared is None or due_at is None:
        canary(worker)
        return
    late_s = (worker.now() - due_at) / timedelta(seconds=1)
    worker.shared.of("canary", lambda: canary(worker), at_most_s=late_s)


@dataclass(frozen=True, slots=True)
class _Documents:
    """`jitvault.vault.interface.Documents`; what is written or removed is not shared."""

    recent: ReadCache
    own: Documents

    def read(self, path: str) -> Stored | None:
        return self.recent.of(("document", path), lambda: self.own.read(path))

    def earlier(self, path: str, version: int) -> Stored | None:
        return self.own.earlier(path, version)

    def get(self, path: str) -> dict[str, Any] | None:
        stored = self.read(path)
        return stored.document if stored else None

    def put(self, path: str, document: Mapping[str, Any], *, op: str | None = None) -> None:
        self.own.put(path, document, op=op)

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


@dataclass(frozen=True, slots=True)
class _Signer:
    """`jitvault.vault.interface.Signer`."""

    recent: ReadCache
    own: Signer

    def sign(self, payload: Mapping[str, Any], payload_type: str, *, key: str, op: str | None = None) -> dict[str, Any]:
        return self.own.sign(payload, payload_type, key=key, op=op)

    def public_keys(self, key: str) -> dict[int, str]:
        return self.recent.of(("keys", key), lambda: self.own.public_keys(key))
