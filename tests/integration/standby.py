"""A streaming standby of the sandbox's PostgreSQL: whoever may log in at the primary may log in there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from jitvault.sandbox.accounts import give
from jitvault.sandbox.placement import find_programs, place
from jitvault.sandbox.postgres import Postgres
from jitvault.sandbox.servers import Servers
from jitvault.sandbox.vault_server import VaultServer
from jitvault.sandbox.world import World, provisioned

REPLICATED = {"wal_level": "replica", "max_wal_senders": "4"}


class Standby(Postgres):
    """A standby of `primary`, made from a base backup at its first start."""

    def __init__(self, directory: Path, primary: Postgres) -> None:
        super().__init__(directory, settings=REPLICATED)
        self.primary = primary
        self.superuser_password = primary.superuser_password

    def _prepare(self, deadline: float) -> None:
        if self._placement is not None:
            return
        self._placement = placed = place(self.directory, owner=self)
        backup = [str(find_programs() / "bin" / "pg_basebackup"), "--pgdata", str(placed.data), "--write-recovery-conf"]
        backup += ["--checkpoint=fast", "--no-sync", "--dbname", self.primary.dsn()]
        subprocess.run(backup, check=True, capture_output=True, timeout=30)
        for file in (placed.data, *placed.data.rglob("*")):
            give(file, placed.account)


@contextmanager
def replicated() -> Iterator[tuple[World, Standby]]:
    """A world whose target has a standby that nothing names yet."""
    with TemporaryDirectory(prefix="jitvault-standby-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        directory = Path(name).resolve()
        bao = stack.enter_context(VaultServer(directory / "openbao"))
        primary = stack.enter_context(Postgres(directory / "postgres", settings=REPLICATED))
        world = provisioned(Servers(directory, bao, primary))
        standby = stack.enter_context(Standby(directory / "standby", primary))
        yield world, standby
        standby.stop()
        shutil.rmtree(directory / "standby", ignore_errors=True)
