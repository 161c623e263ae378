"""Say how to rebuild the ledger, where it has to be rebuilt."""

from __future__ import annotations

from datetime import datetime

REASON = "the ledger has to be rebuilt"
HINT = "`jitvault ledger recover` rebuilds it, and goes on where it was interrupted."


def why_nothing_is_granted(since: datetime) -> str:
    """Return in words that a recovery has to be done, or is being done."""
    return f"nothing is granted: the ledger has had to be rebuilt since {since:%Y-%m-%d %H:%M:%S} UTC"
