"""Program that becomes a sandbox server.

The server dies with the process that started it. It is run as a script, not imported: `python -I -S leash.py PARENT
SIGNAL UID GID COMMAND…`. It takes the given identity (-1: it keeps its own), asks the kernel to send it SIGNAL when
PARENT dies, and then execs COMMAND, so that its process id is the server's. Its messages carry no secret, and go to
stderr, which is the server's log.

Why a program and not `subprocess.Popen(preexec_fn=…)`: `preexec_fn` runs Python in a forked copy of a process that may
have threads, which can hang, and from Python 3.12 on it warns. Why in this order: the kernel clears the parent-death
signal when the user or group id changes (prctl(2), PR_SET_PDEATHSIG), but keeps it over an exec of a program without
set-user-ID.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
EXIT_CANNOT_RUN = 127


def become(uid: int, gid: int) -> None:
    """Change to another identity permanently, without supplementary groups.

    Needs root.
    """
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with_parent(libc: ctypes.CDLL, parent: int, signal_number: int) -> None:
    """Make the kernel send `signal_number` when the parent dies.

    Exits at once if the parent is dead already. Only Linux can send the signal; on other systems this only checks that
    the parent is alive.
    """
    if sys.platform == "linux":
        if libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot ask for a signal at the parent's death")
    if os.getppid() != parent:
        sys.exit(EXIT_CANNOT_RUN)  # the parent died before the request: no signal would ever come


def main(arguments: list[str]) -> None:
    """Become the server. Exits with 127 when that is not possible."""
    parent, signal_number, uid, gid = (int(value) for value in arguments[:4])
    command = arguments[4:]
    libc = ctypes.CDLL(None, use_errno=True)  # before the change of identity: the new one may not be able to read it
    try:
        if uid >= 0:
            become(uid, gid)
        die_with_parent(libc, parent, signal_number)
        os.execv(command[0], command)  # noqa: S606 (there must be no shell in between)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_CANNOT_RUN)


if __name__ == "__main__":
    main(sys.argv[1:])
