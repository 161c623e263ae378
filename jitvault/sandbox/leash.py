"""A program that becomes a sandbox server, tied to the life of the process that started it.

It is run as a script, not imported: `python -I -S leash.py PARENT SIGNAL UID GID COMMAND…`. It takes the
identity it is told (-1: keep), asks the kernel to send it SIGNAL when PARENT dies, and then execs COMMAND, so
that its process id is the server's. Nothing it says carries a secret; it says it on stderr, the server's log.

Why a program and not `subprocess.Popen(preexec_fn=…)`: `preexec_fn` runs Python in a forked copy of a
process that may have threads, which can hang, and from Python 3.12 on it warns. Why the order below: the
kernel forgets the wish when the user or group id changes (prctl(2), PR_SET_PDEATHSIG), but keeps it over an
exec of a program without set-user-ID.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
EXIT_CANNOT_RUN = 127


def become(uid: int, gid: int) -> None:
    """Take another identity for good, without any supplementary group. Needs root."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with_parent(libc: ctypes.CDLL, parent: int, signal_number: int) -> None:
    """Have the kernel send `signal_number` when the parent dies. Exits at once if it already has.

    Linux only; elsewhere this only checks that the parent is still there.
    """
    if sys.platform == "linux":
        if libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot ask for a signal at the parent's death")
    if os.getppid() != parent:
        sys.exit(EXIT_CANNOT_RUN)  # it died before we asked: no signal would ever come


def main(arguments: list[str]) -> None:
    """Become the server. Returns only by exiting, with 127, when that is not possible."""
    parent, signal_number, uid, gid = (int(value) for value in arguments[:4])
    command = arguments[4:]
    libc = ctypes.CDLL(None, use_errno=True)  # while we can still read it: the new identity may not
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
