"""Keep valid what engines publish by themselves, such as lists of revoked certificates.

A list that was short-lived enough to be believed for no longer than a template says is over soon, and Vault makes the
next one only when something is revoked. Then whoever reads it refuses every certificate, and nothing can be proven.
"""

from __future__ import annotations

from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.engines.interface import Upkeep
from jitvault.errors import JitvaultError, VaultUnavailable, WrongState
from jitvault.formats.clocks import MAX_SKEW

_LOOK_AGAIN_S = 60.0
"""How often the configuration is read where the stream shows no write to it: it need not show all."""
Mount = tuple[str, str]
"""An engine, and where it is mounted."""


class Renewals:
    """When what was renewed last, by this worker. Another one may renew the same: that does no harm."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._wanted: dict[Mount, Upkeep | None] = {}
        self._looked_at: dict[Mount, float] = {}
        self._renewed_at: dict[Mount, float] = {}
        self._written_at: dict[Mount, datetime] = {}

    def renew_due(self) -> int:
        """Renew what is due; gives how many were. Costs Vault a request a minute for each mount, besides renewals.

        A mount whose configuration somebody wrote to is looked at once the stream shows it: what it publishes may be
        over in seconds since then.

        Raises VaultUnavailable, and WrongState when a mount let nothing be renewed; the others had their turn.
        """
        renewed, refused = 0, None
        for engine, mount in sorted({(t.spec.engine, t.spec.mount) for t in self._worker.templates.values()}):
            try:
                renewed += self._renew(engine, mount)
            except VaultUnavailable:
                raise
            except JitvaultError as error:
                refused = WrongState(f"what {mount}/ publishes cannot be renewed: {error}", hint=error.hint)
        if refused is not None:
            raise refused
        return renewed

    def _renew(self, engine: str, mount: str) -> bool:
        key, now = (engine, mount), self._worker.clock.monotonic()
        if engine not in self._worker.engines:
            return False
        if self._is_rewritten(key) or now - self._looked_at.get(key, -_LOOK_AGAIN_S) >= _LOOK_AGAIN_S:
            self._wanted[key] = self._worker.engines[engine].upkeep(self._worker.reader.read, mount)
            self._looked_at[key] = now
        wanted = self._wanted[key]
        if wanted is None or now - self._renewed_at.get(key, float("-inf")) < wanted.every.total_seconds():
            return False
        self._worker.reader.read(wanted.path)
        self._renewed_at[key] = now
        return True

    def _is_rewritten(self, key: Mount) -> bool:
        """Whether the stream showed a write to the configuration since this was asked last."""
        _, mount = key
        since = self._written_at.setdefault(key, self._worker.now() - MAX_SKEW)
        newest = self._worker.ledger.configured(mount, since)
        if newest is None:
            return False
        self._written_at[key] = newest
        return True
