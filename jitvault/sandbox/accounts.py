"""As whom a server runs that refuses to run as root, and what that user can reach."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from jitvault.errors import UsageError
from jitvault.sandbox.processes import Account

# `pgserver` is the user that the PostgreSQL wheel makes for itself; where it exists it is used. Otherwise
# `nobody`, which every system has: a demo should not add a user to a machine.
_CANDIDATES = ("pgserver", "nobody")


def server_account() -> Account | None:
    """The user to run PostgreSQL as; None when we are not root and it runs as ourselves.

    Raises:
        UsageError: we are root, and this system has no user for it.
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


def give(path: Path, account: Account | None) -> None:
    """Make `account` the owner of a file or directory that we made. Nothing to do without an account."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def reachable(path: Path, account: Account) -> bool:
    """Whether `account` can enter all directories above `path` and read it (enter it, if a directory).

    By mode bits: where an access list grants more, the answer is a needless no.
    """
    path = path.resolve()
    needed = stat.S_IXOTH if path.is_dir() else stat.S_IROTH
    return _may(path, account, needed) and all(_may(parent, account, stat.S_IXOTH) for parent in path.parents)


def _may(path: Path, account: Account, bit: int) -> bool:
    """Whether the class that `account` has for `path` (owner, group or others) has the permission `bit`."""
    status = path.stat()
    if status.st_uid == account.uid:
        bit <<= 6
    elif status.st_gid == account.gid:
        bit <<= 3
    return bool(status.st_mode & bit)
