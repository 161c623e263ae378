"""Record this worker's session, and notice a new salt or another server.

The ledger knows a session by the HMAC of its token's accessor, as the audit lines show it. The HMACs change when the
audit device is created again, and then the lines before and after cannot be joined.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.errors import AuditUntrusted
from jitvault.formats.server_product import another_server
from jitvault.ledger.stream.model import DEVICE_ANEW

DEVICE_ANEW_GAP = f"{DEVICE_ANEW}: its salt is another one"
_BY_LISTING = "Tasks that were held meanwhile are proven by look-ups and a listing, or not at all."
_DEVICE_ANEW_HINT = (
    "Lines from before name the same tokens by other HMACs, and acts without a device have no line. "
    f"{_BY_LISTING} Find out who made it anew."
)


def register_session(worker: WorkerContext) -> bool:
    """Record this worker's token by its HMAC; return whether the salt is new.

    Operation ids count only in lines of recorded sessions. The HMAC of a constant shows whether the device still has
    the salt of all earlier lines. If the salt is new, every source begins a new segment, and a finding of no task
    reports it. Where Vault refuses to hash, nothing is trusted, and access can still be revoked.
    """
    me = worker.tokens.lookup_self()
    now = worker.now()
    is_anew = False
    _check_product(worker, now)
    with suppress(AuditUntrusted):
        is_anew = worker.ledger.record_salt(worker.hasher.hash(f"jitvault/{worker.installation}"), now)
        if is_anew:
            worker.ledger.start_segments(DEVICE_ANEW_GAP, now)
            message = f"By {now:%Y-%m-%d %H:%M:%S} UTC {DEVICE_ANEW_GAP}. {_DEVICE_ANEW_HINT}"
            worker.ledger.finding(None, "audit_device_anew", message, now)
        worker.ledger.record_session(worker.hasher.hash(me.accessor), now)
    return is_anew


def _check_product(worker: WorkerContext, now: datetime) -> None:
    """Begin a new segment in every source where the server's product changed.

    Also records a finding of no task. Vault's storage was moved from one product to the other, or another server stands
    at the address: the lines have another form, and what happened in between has no line.
    """
    release = worker.release()
    before = worker.ledger.product()
    if release is None or release.product is before:
        return
    if why := another_server(before, release.product):
        worker.ledger.start_segments(why, now)
        message = f"By {now:%Y-%m-%d %H:%M:%S} UTC {why}. {_BY_LISTING} Find out who moved it."
        worker.ledger.finding(None, "another_server", message, now)
    worker.ledger.set_product(release.product)
