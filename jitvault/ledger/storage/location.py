"""Where a ledger is.

Imports no database library, which takes long: a command without a ledger does not need one.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

_SOMEWHERE = "the place that JITVAULT_LEDGER names"


def path_of(ledger: str) -> Path | None:
    """Return the file that a path names.

    None for anything else, which is read as a URL.
    """
    return Path(ledger).expanduser() if ledger.startswith(("/", "./", "~/")) else None


def file_of(ledger: str) -> Path | None:
    """Return the file of a SQLite ledger, None for anything else."""
    if (file := path_of(ledger)) is not None:
        return file
    try:
        url = urlsplit(ledger, allow_fragments=False)
    except ValueError:
        return None
    if url.scheme.partition("+")[0] != "sqlite":
        return None
    # sqlite:///relative/file and sqlite:////absolute/file
    return Path(url.path[1:]) if url.path[1:] else None


def shown(ledger: str) -> str:
    """Return a ledger's place as messages name it.

    The place is a file's path, or a URL without its password.
    """
    if (file := file_of(ledger)) is not None:
        return str(file)
    try:
        url = urlsplit(ledger, allow_fragments=False)
        user, _, host = url.netloc.rpartition("@")
    except ValueError:
        return _SOMEWHERE
    if not url.scheme:
        return _SOMEWHERE
    name = user.partition(":")[0]
    login = f"{name}@" if name else ""
    return f"{url.scheme}://{login}{host}{url.path}"


def ledger_exists(ledger: str) -> bool:
    """Return whether there may be a ledger.

    It is False where the location is a SQLite file that is not there. Whether a server has one, and whether `ledger` is
    a location at all, is found when the ledger is opened.
    """
    file = file_of(ledger)
    return file is None or file.exists()
