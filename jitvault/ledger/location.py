"""Where a ledger is. Whoever has none is told so without a database library, which takes long to import."""

from __future__ import annotations

from pathlib import Path

from jitvault.errors import LedgerUnavailable


def path_of(ledger: str) -> Path | None:
    """The file that a path names; None for anything else, which is read as a URL."""
    return Path(ledger).expanduser() if ledger.startswith(("/", "./", "~/")) else None


def ledger_exists(ledger: str) -> bool:
    """Whether `ledger` names a SQLite file that is there, or a server, which is asked when it is opened."""
    file = path_of(ledger)
    if file is None:
        from jitvault.ledger.database import file_of

        try:
            file = file_of(ledger)
        except LedgerUnavailable:
            return False
    return file is None or file.exists()
