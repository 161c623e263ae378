"""What Vault's answers say of the server.

That is the active node's product and version, and Vault's clock. Product and version are from public endpoints. The
clock is from the `Date` of every answer, which has whole seconds.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Any

from jitvault.errors import JitvaultError, UsageError
from jitvault.formats.clocks import Offset, agreed
from jitvault.formats.server_product import Release, release_of, without_namespaces
from jitvault.vault.client import Connection, Vault

# Shorter than the least sensible settle window with several nodes: a node that took over is known by then.
_LOOK_AGAIN_S = 10.0
_TIMEOUT_S = 3


class ServerRelease:
    """Ask the active node for its release, at most once in 10 s per process.

    The last known release is used while no node answers.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: Release | None = None
        self._look_at = 0.0
        self._lock = Lock()

    def __call__(self) -> Release | None:
        """Return the release, None where it was never told or is hidden.

        Raises nothing.
        """
        with self._lock:
            if time.monotonic() >= self._look_at:
                self._look()
                self._look_at = time.monotonic() + _LOOK_AGAIN_S
            return self._known

    def _look(self) -> None:
        server = self._connection
        address = server.node.address() if server.node else server.address
        # without `node`, so that this does not wait for an election
        anonymous = Vault(replace(server, address=address, node=None, namespace=None, timeout_s=_TIMEOUT_S), None)
        try:
            with closing(anonymous):
                self._known = release_of(anonymous.health(), seal_status_of(anonymous))
        except JitvaultError:
            return


class NamespaceGuard:
    """Refuse requests with a namespace to a server without namespaces.

    Such a server acts in its root instead, and its audit lines name no namespace. A worker that reads only the lines of
    its namespace would skip all of them, and with a shared ledger no other worker would read them again. Shared between
    threads.
    """

    def __init__(self, release: ServerRelease, variable: str, namespace: str) -> None:
        self._release = release
        self._variable = variable
        self._namespace = namespace
        self._passed = False

    def __call__(self) -> None:
        """Raise UsageError where the server has no namespaces.

        Where the server's release is unknown, the request is sent and refused later.
        """
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
    """Return the server's seal status, empty where a proxy hides it."""
    try:
        return vault.seal_status()
    except JitvaultError:
        return {}


class VaultTime:
    """What time it is in Vault; shared between threads.

    All times that are floats are of this process's monotonic clock.
    """

    def __init__(self) -> None:
        self._offset: Offset | None = None
        self._lock = Lock()

    def hear(self, date: str, sent: float, received: float) -> None:
        """Take in the `Date` of an answer, with the times around its request.

        An unreadable date is ignored.
        """
        try:
            second = parsedate_to_datetime(date)
            if second.tzinfo is None:
                return
            newer = Offset.heard(second.astimezone(UTC), sent, received)
        except (ValueError, OverflowError):
            return
        with self._lock:
            self._offset = self._offset.narrowed(newer) if self._offset else newer

    def agreed(self, own: datetime, monotonic: float) -> datetime:
        """Return the time to act by, where this host's clock shows `own`."""
        return agreed(own, monotonic, self._offset)

    def behind(self, own: datetime, monotonic: float) -> timedelta:
        """Return by how much `own` is behind Vault's clock at least.

        0 as long as no answer came.
        """
        return self._offset.behind(own, monotonic) if self._offset else timedelta(0)
