"""Keep reading the audit stream, so that the ledger knows within milliseconds what Vault did."""

from __future__ import annotations

from collections.abc import Callable

from jitvault.errors import AuditUntrusted, JitvaultError, VaultUnavailable, WrongState
from jitvault.services.context import Worker
from jitvault.services.observe import observe

POLL_S = 0.01
RETRY_S = 1.0
_LOOK_AROUND_S = 1.0


def follow(worker: Worker, *, stopped: Callable[[], bool], tell: Callable[[JitvaultError | None], None]) -> None:
    """Read on until `stopped()`. `tell` hears why that is not possible now, and None when it is again.

    Raises LedgerUnavailable and whatever else does not pass by itself.
    """
    known: str | None = None
    looked: float | None = None
    while not stopped():
        now = worker.clock.monotonic()
        # a file that is not ours may grow all the time, and each look at it costs Vault a request
        around = looked is None or now - looked >= _LOOK_AROUND_S
        looked = now if around else looked
        try:
            observe(worker, look_around=around)
        except (AuditUntrusted, VaultUnavailable, WrongState) as error:
            if str(error) != known:
                tell(error)
            known = str(error)
            worker.clock.sleep(RETRY_S)
            continue
        if known is not None:
            tell(None)
            known = None
        worker.clock.sleep(POLL_S)
