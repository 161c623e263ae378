"""What jitvault has to know of a secrets engine. One file per engine; entry points `jitvault.engines`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from jitvault.domain.access import Capability
from jitvault.domain.confirmation import Probed

Read = Callable[[str], Mapping[str, Any] | None]


class Engine(Protocol):
    name: str

    capability: Capability
    """What a task token needs on the paths that give its credentials: `read`, or `update` where something is sent."""

    non_hmac_response_keys: tuple[str, ...]
    """Response keys that the mount shows in plain in the audit stream, so that a probe knows whom to look for."""

    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        """The configuration that decides what a credential of `mount/path` can do and how it is revoked.

        JSON data without secrets; a change of it is drift. Raises InvalidInput when there is no such role.
        """
        ...

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        """The paths that `snapshot` reads."""
        ...

    def probe(self, where: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Probed]:
        """Ask the target about each credential, by the name that it knows it by, ending what is still open.

        `where` is the probe's document below `jitvault/probes/`; its `dsn` says how to reach the target. Raises
        NotConfirmed where it cannot be asked, UsageError where this machine lacks something for it.
        """
        ...
