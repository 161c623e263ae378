"""Where a ledger is.

Imports no database library, which takes long: a command without a ledger does not need one.
"""

from __future__ import annotations

from pathlib import Path

from jitvault.errors import LedgerUnavailable


def path_of(ledger: str) -> Path | None:
    """Return the file that a path names.

    None for anything else, which is read as a URL.
    """
    return Path(ledger).expanduser() if ledger.startswith(("/", "./", "~/")) else None


def ledger_exists(ledger: str) -> bool:
    """Return whether `ledger` is an existing SQLite file or a server.

    A server is contacted only when the ledger is opened.
    """
    file = path_of(ledger)
    if file is None:
        from jitvault.ledger.storage.database import file_of

        try:
            file = file_of(ledger)
        except LedgerUnavailable:
            return False
    return file is None or file.exists()
