"""Start both servers of the sandbox at the same time.

Their directory is removed with them.

with running_servers() as servers:
    servers.vault.address, servers.postgres.dsn()
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from jitvault.sandbox.binary import Binary
from jitvault.sandbox.lifecycle import Server
from jitvault.sandbox.postgres import Postgres
from jitvault.sandbox.vault_server import Storage, VaultServer

__all__ = ["Postgres", "Servers", "VaultServer", "running_servers"]


@dataclass(frozen=True)
class Servers:
    """A running OpenBao or HashiCorp Vault and a running PostgreSQL.

    `directory` is that of both, for further files.
    """

    directory: Path
    vault: VaultServer
    postgres: Postgres


@contextmanager
def running_servers(
    *,
    binary: Binary | None = None,
    max_request_duration: timedelta = timedelta(seconds=2),
    storage: Storage = "inmem",
    postgres_in: Callable[[Path], Postgres] = Postgres,
) -> Iterator[Servers]:
    """Start both servers.

    At the end, also after an exception, stop both and remove their directory. `binary` is the program that serves as
    Vault, `find_binary()` where none is given. `postgres_in` creates the PostgreSQL, where it is not the wheel's with
    its usual settings.

    A signal has to become an exception to stop the servers: Python does that for SIGINT, the caller has to for SIGTERM.
    After a SIGKILL of this process the servers are dead, but the directory remains.

    Raises: what `Server.start` raises, for the first server that fails.
    """
    with tempfile.TemporaryDirectory(prefix="jitvault-sandbox-", ignore_cleanup_errors=True) as name:
        directory = Path(name).resolve()
        vault = VaultServer(
            directory / "vault", binary=binary, max_request_duration=max_request_duration, storage=storage
        )
        postgres = postgres_in(directory / "postgres")
        with ExitStack() as stack:
            _start_together(stack, vault, postgres)
            yield Servers(directory, vault, postgres)


def _start_together(stack: ExitStack, *servers: Server) -> None:
    """Start all servers at once.

    `stack` stops those that started, also when another one fails.
    """
    with ThreadPoolExecutor(max_workers=len(servers)) as pool:
        starts = [pool.submit(server.start) for server in servers]
    for server in servers:
        stack.push(server)
    for start in starts:
        start.result()
