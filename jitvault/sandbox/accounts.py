"""Choose the user for a server that refuses to run as root, and write what others may not read.

Also find out what that user can reach.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from jitvault.errors import UsageError
from jitvault.sandbox.processes import Account

# `pgserver` is the user that the PostgreSQL wheel creates for itself, and is used where it exists. Otherwise `nobody`
# is used, which every system has: a demo should not add a user to a machine.
_CANDIDATES = ("pgserver", "nobody")


def server_account() -> Account | None:
    """Return the user to run PostgreSQL as.

    None when this process is not root and PostgreSQL runs as its user.

    Raises:
        UsageError: this process is root, and the system has no user for PostgreSQL.
    """
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise UsageError(
        "PostgreSQL does not run as root, and there is no other user for it here",
        hint="Run the sandbox as a normal user, or add a system user called pgserver.",
    )


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def give(path: Path, account: Account | None) -> None:
    """Make `account` the owner of a file or directory.

    This process created it. Nothing is done without an account.
    """
    if account is not None:
        os.chown(path, account.uid, account.gid)


def reachable(path: Path, account: Account) -> bool:
    """Return whether `account` can reach and read `path`.

    It has to be able to enter all directories above, and to read `path`, or to enter it if it is a directory. Only mode
    bits are checked: where an access control list grants more, the answer is False nevertheless.
    """
    path = path.resolve()
    needed = stat.S_IXOTH if path.is_dir() else stat.S_IROTH
    return _may(path, account, needed) and all(_may(parent, account, stat.S_IXOTH) for parent in path.parents)


def _may(path: Path, account: Account, bit: int) -> bool:
    """Return whether `account` has the permission `bit` for `path`.

    It has it as owner, by its group or as one of the others.
    """
    status = path.stat()
    if status.st_uid == account.uid:
        bit <<= 6
    elif status.st_gid == account.gid:
        bit <<= 3
    return bool(status.st_mode & bit)
