"""Read the audit stream up to now, and know whether it can be trusted.

One call to `sys/audit-hash` proves three things at once when its own line appears in the stream: the stream
belongs to this Vault, the device's salt is unchanged, and this is how far behind we are. HMACs do not
authenticate lines: whoever can write the audit file is outside the threat model.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from jitvault.domain.confirmation import Canary
from jitvault.errors import AuditUntrusted
from jitvault.ports.audit import Position
from jitvault.services.context import Worker, new_id

PATIENCE_S = 5.0
_POLL_S = 0.005


def observe(worker: Worker) -> None:
    """Enter into the ledger everything that the stream says up to its present end."""
    if worker.source.has_more(_position(worker)):
        with worker.ledger.claim_source(worker.source.name) as claim:
            _read(worker, claim)


def canary(worker: Worker) -> Canary:
    """Read the stream up to a fresh canary. Raises AuditUntrusted when it does not show up in time."""
    _position(worker)
    sent, sent_at = worker.clock.monotonic(), worker.now()
    expected = worker.hasher.hash(new_id())
    while True:
        with worker.ledger.claim_source(worker.source.name) as claim:
            found = _read(worker, claim, expected)
        if found is not None:
            _own_lines_are_there(worker, sent_at)
            return found
        if worker.clock.monotonic() - sent > PATIENCE_S:
            raise AuditUntrusted(
                f"the audit stream {worker.source.name} does not show what Vault was just asked: it belongs to "
                f"another Vault, its device was re-created, or it is more than {PATIENCE_S:.0f} s behind"
            )
        worker.clock.sleep(_POLL_S)


def identify(worker: Worker) -> None:
    """Remember this worker's token by its HMAC: operation ids count only in its own lines."""
    me = worker.tokens.lookup_self()
    worker.ledger.session(worker.hasher.hash(me.accessor), worker.now())


def _position(worker: Worker) -> Position:
    """How far the stream was read; a source that is new begins at its present end."""
    ledger, source = worker.ledger, worker.source
    known = ledger.position(source.name)
    if known is not None:
        return known
    ledger.start_source(source.name, source.start())
    started = ledger.position(source.name)
    assert started is not None  # noqa: S101 - it was just written
    return started


def _read(worker: Worker, claim: int, expected: str | None = None) -> Canary | None:
    """Read on under the source's claim; gives the canary `expected`, also if another process read it before."""
    ledger, source = worker.ledger, worker.source
    found = None
    for batch in source.read(_position(worker)):
        found = ledger.observe(source.name, batch, claim=claim, at=worker.now(), expected=expected) or found
    return found or (ledger.keep_canary(source.name, expected) if expected else None)


def _own_lines_are_there(worker: Worker, sent_at: datetime) -> None:
    """Every act that was answered before the canary was sent has a line before it, or somebody filters them.

    Both times are of the ledger's writers, never Vault's; the second allows for several hosts.
    """
    missing = worker.ledger.unseen_operations(sent_at - timedelta(seconds=1))
    if missing:
        raise AuditUntrusted(
            f"the audit stream {worker.source.name} lacks lines of jitvault's own acts (operation {missing[0]})",
            hint="Lines are filtered or lost on their way. Nothing is confirmed until that is mended.",
        )
