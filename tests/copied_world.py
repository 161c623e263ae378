"""A provisioned world of one's own in a tenth of the time: its servers' files are a copy of some that were made once.

The files are put back where they were made and the servers get the ports that they had there, since Vault knows both:
its audit device's file, the target's address, its own URL in certificates. So two worlds at once are two `_Plot`s.
"""

from __future__ import annotations

import atexit
import copy
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from jitvault.sandbox.lifecycle import Server
from jitvault.sandbox.postgres import Postgres
from jitvault.sandbox.processes import LOOPBACK
from jitvault.sandbox.servers import Servers
from jitvault.sandbox.vault_server import VaultServer
from jitvault.sandbox.world import World, provisioned
from jitvault.vault.client import Connection, Vault

# neither those that the sandbox takes by chance nor those of outgoing connections
_PORTS = range(12_000, 20_000)
_HELD: list[socket.socket] = []
_PLOTS: list[_Plot] = []


@contextmanager
def copied_world() -> Iterator[World]:
    """A world on raft storage, as `provisioned` makes it; at the end its servers are stopped."""
    plot = next((plot for plot in _PLOTS if not plot.in_use), None)
    if plot is None:
        plot = _made_plot()
        _PLOTS.append(plot)
    plot.in_use = True
    try:
        with ExitStack() as stack:
            yield plot.world(stack)
    finally:
        plot.in_use = False


@dataclass
class _Plot:
    """Where one copy at a time stands, and the files that each begins with."""

    made: World
    files: tuple[tuple[Path, Path], ...]
    """Where a directory belongs, and where it is kept."""
    in_use: bool = False

    def world(self, stack: ExitStack) -> World:
        for place, kept in self.files:
            shutil.rmtree(place)
            _copy(kept, place)
        made = self.made.servers
        vault, postgres = copy.copy(made.vault), copy.copy(made.postgres)
        _start(stack, vault, postgres)
        # the list of a certificate's authority is made anew, since it is valid for minutes
        admin = Vault(Connection(self.made.address), self.made.admin_token)
        admin.read("pki/crl/rotate")
        admin.close()
        return replace(self.made, servers=replace(made, vault=vault, postgres=postgres))


def _made_plot() -> _Plot:
    home = TemporaryDirectory(prefix="jitvault-sandbox-", ignore_cleanup_errors=True)
    atexit.register(home.cleanup)
    directory = Path(home.name).resolve()
    vault, postgres = VaultServer(directory / "vault", storage="raft"), Postgres(directory / "postgres")
    vault._port, vault._cluster_port, postgres._port = (_own_port() for _ in range(3))
    with ExitStack() as stack:
        _start(stack, vault, postgres)
        made = provisioned(Servers(directory, vault, postgres))
    files = []
    for n, place in enumerate((vault.directory, postgres._placed.data)):
        kept = directory / f"kept-{n}"
        _copy(place, kept)
        files.append((place, kept))
    return _Plot(made, tuple(files))


def _start(stack: ExitStack, *servers: Server) -> None:
    with ThreadPoolExecutor(len(servers)) as pool:
        starts = [pool.submit(server.start) for server in servers]
    for server in servers:
        # not by leaving their contexts: PostgreSQL's files are put back later
        stack.callback(server.stop)
    for start in starts:
        start.result()


def _copy(source: Path, to: Path) -> None:
    """With owners, which are several where root runs this."""
    subprocess.run(["cp", "-a", str(source), str(to)], check=True)


def _own_port() -> int:
    """A port that no other process of these tests takes as long as this one lives, also while nobody listens."""
    while True:
        port = secrets.choice(_PORTS)
        holder, probe = socket.socket(socket.AF_UNIX), socket.socket()
        with suppress(OSError), probe:
            holder.bind(f"\0jitvault-port-{port}")
            probe.bind((LOOPBACK, port))
            _HELD.append(holder)
            return port
        holder.close()
