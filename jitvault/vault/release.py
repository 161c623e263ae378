"""Which product and version the active node is, as it says itself to anybody."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from threading import Lock
from typing import Any

from jitvault.errors import JitvaultError, UsageError
from jitvault.formats.product import Release, release_of, without_namespaces
from jitvault.vault.client import Connection, Vault

# shorter than the least settle window that makes sense with several nodes: who took over meanwhile is known by then
_LOOK_AGAIN_S = 10.0
_TIMEOUT_S = 3


class ServerRelease:
    """Ask the active node, at most once in 10 s for a whole process; what it was holds while nobody answers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: Release | None = None
        self._look_at = 0.0
        self._lock = Lock()

    def __call__(self) -> Release | None:
        """None where it was never told, or is hidden. Raises nothing."""
        with self._lock:
            if time.monotonic() >= self._look_at:
                self._look()
                self._look_at = time.monotonic() + _LOOK_AGAIN_S
            return self._known

    def _look(self) -> None:
        there = self._connection
        address = there.node.address() if there.node else there.address
        # nobody waits here for nodes to elect another one
        nobody = Vault(replace(there, address=address, node=None, namespace=None, timeout_s=_TIMEOUT_S), None)
        try:
            with closing(nobody):
                self._known = release_of(nobody.health(), seal_status_of(nobody))
        except JitvaultError:
            return


class NamespaceGuard:
    """Refuse to send anything where a namespace is set and the server has none. Shared between threads.

    Such a server does in its root what is asked of it, and its audit lines name no namespace. Whoever reads the lines
    of that namespace alone would pass over all of them, and with a shared ledger nobody would read those again.
    """

    def __init__(self, release: ServerRelease, variable: str, namespace: str) -> None:
        self._release, self._variable, self._namespace = release, variable, namespace
        self._passed = False

    def __call__(self) -> None:
        """Raise UsageError. Where nobody knows which server it is, the request goes its way and is refused later."""
        if self._passed:
            return
        release = self._release()
        if release is None:
            return
        if not release.has_namespaces:
            raise UsageError(
                without_namespaces(self._variable, self._namespace), hint=f"Unset {self._variable} and run it again."
            )
        self._passed = True


def seal_status_of(vault: Vault) -> dict[str, Any]:
    """What it says of its seal; nothing where a proxy in front of it lets nobody ask."""
    try:
        return vault.seal_status()
    except JitvaultError:
        return {}
