"""Renew lists that engines publish.

Lists of revoked certificates (CRLs) are such lists. A template wants such a list to be short-lived, so that verifiers
do not trust it for longer than the template says. But Vault makes a new list only when something is revoked. Once the
list has expired, verifiers refuse every certificate, and nothing can be proven by it.
"""

from __future__ import annotations

from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.engines.interface import Upkeep
from jitvault.errors import JitvaultError, VaultUnavailable, WrongState
from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.unchanged import Unchanged

_LOOK_AGAIN_S = 60.0
"""How often the configuration is read where the stream shows no write to it: the stream may not show every write."""
Mount = tuple[str, str]
"""The name of an engine, and its mount path."""


class PublishedListRenewals:
    """Renews the published lists of all mounts, and remembers when.

    Another worker may renew the same lists, which does no harm.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._upkeep: dict[Mount, Upkeep | None] = {}
        self._looked_at: dict[Mount, float] = {}
        self._renewed_at: dict[Mount, float] = {}
        self._written_at: dict[Mount, datetime] = {}
        self._unchanged = Unchanged(worker.ledger.mark)

    def renew_due(self) -> int:
        """Renew the lists that are due, and return how many were renewed.

        Besides the renewals this costs Vault a request a minute for each mount. A mount whose configuration was written
        to is read again as soon as the stream shows the write: its list may now expire within seconds.

        Raises VaultUnavailable. Raises WrongState when a list could not be renewed, after the other mounts had their
        turn.
        """
        renewed = 0
        refused: WrongState | None = None
        shows_no_write = self._unchanged.is_so()
        for engine, mount in sorted({(t.spec.engine, t.spec.mount) for t in self._worker.templates.values()}):
            try:
                renewed += self._renew(engine, mount, shows_no_write=shows_no_write)
            except VaultUnavailable:
                raise
            except JitvaultError as error:
                refused = WrongState(f"what {mount}/ publishes cannot be renewed: {error}", hint=error.hint)
        if refused is not None:
            raise refused
        self._unchanged.looked()
        return renewed

    def _renew(self, engine: str, mount: str, *, shows_no_write: bool) -> bool:
        """Renew the list of one mount if it is due; return whether it was."""
        key = (engine, mount)
        now = self._worker.clock.monotonic()
        if engine not in self._worker.engines:
            return False
        is_rewritten = not shows_no_write and self._is_rewritten(key)
        if is_rewritten or now - self._looked_at.get(key, -_LOOK_AGAIN_S) >= _LOOK_AGAIN_S:
            self._upkeep[key] = self._worker.engines[engine].upkeep(self._worker.reader.read, mount)
            self._looked_at[key] = now
        upkeep = self._upkeep[key]
        if upkeep is None or now - self._renewed_at.get(key, float("-inf")) < upkeep.every.total_seconds():
            return False
        self._worker.reader.read(upkeep.path)
        self._renewed_at[key] = now
        return True

    def _is_rewritten(self, key: Mount) -> bool:
        """Return whether the stream showed a write to the configuration.

        Only writes since the last call count.
        """
        _, mount = key
        since = self._written_at.setdefault(key, self._worker.now() - MAX_SKEW)
        newest = self._worker.ledger.configured(mount, since)
        if newest is None:
            return False
        self._written_at[key] = newest
        return True
