"""A world whose servers may die: OpenBao on raft storage, so that it comes back as it was, behind a go-between.

with staged() as stage:
    rig = stage.rig(tmp_path)
    stage.between.when("PUT auth/token/revoke-accessor", "after", stage.kill)
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
import requests
from commands import EXAMPLE, Result
from copied_world import copied_world
from go_between import GoBetween
from rig import Rig, own_rig

from jitvault import wiring
from jitvault.errors import JitvaultError
from jitvault.sandbox.postgres import Postgres
from jitvault.sandbox.servers import Servers
from jitvault.sandbox.vault_server import VaultServer
from jitvault.sandbox.world import World, env, provisioned
from jitvault.vault.client import Connection, Vault

# every moment that the tests know; otherwise those that differ most
ALL = bool(os.environ.get("JITVAULT_TEST_ALL_OUTAGES"))
# longer than anything here takes on a busy machine, unless it is held back
TIMEOUT_S = 1.5
RESTORED_S = 20.0
# where nothing is held back: a busy machine can take more than a second for an answer
_PATIENT_S = 5


@dataclass
class Stage:
    """The world, the go-between before its Vault, and the ways to break both and mend them."""

    world: World
    between: GoBetween
    variables: dict[str, str] = field(repr=False)

    @property
    def bao(self) -> VaultServer:
        return self.world.servers.vault

    @property
    def postgres(self) -> Postgres:
        return self.world.servers.postgres

    def rig(self, directory: Path) -> Rig:
        """A rig with a ledger of its own, whose commands speak to Vault through the go-between."""
        self.between.clear()
        directory.mkdir(exist_ok=True)
        return own_rig(self.world, {**self.variables, "VAULT_ADDR": self.between.address}, directory)

    def kill(self) -> None:
        """OpenBao by SIGKILL; its port refuses connections."""
        self.bao.kill()
        self.between.down()

    def seal(self) -> None:
        """Vault answers 503 from now on; a static seal opens itself at the next start."""
        self._admin.write("sys/seal")

    def mend(self) -> None:
        """Everything runs and serves again, as it was left."""
        self.between.clear()
        thaw(self.postgres)
        self.postgres.start()
        if self.bao.running and self.bao._ask("GET", "/v1/sys/health")[0] != 200:
            # a static seal opens itself at a start alone
            self.bao.kill()
        self.bao.start()
        self.between.up()

    def snapshot(self) -> bytes:
        """Vault's whole storage as it is now, as an administrator keeps it; of raft storage alone."""
        return self._storage("GET", "snapshot").content

    def restore(self, snapshot: bytes) -> None:
        """Put Vault's storage back to a snapshot; Vault answers before it has done that."""
        admin = self._admin
        admin.write("cubbyhole/since", {"the": "snapshot"})
        self._storage("POST", "snapshot-force", snapshot)
        deadline = time.monotonic() + RESTORED_S
        while not self._is_without(admin, "cubbyhole/since"):
            assert time.monotonic() < deadline, "Vault was not put back"
            time.sleep(0.02)

    def copy_files(self, to: Path) -> None:
        """The storage of a Vault that is stopped for it, as a backup of its disk has it."""
        self.kill()
        shutil.copytree(self.bao._raft, to)
        self.mend()

    def put_back(self, copy: Path) -> None:
        """The same the other way round: no line of the audit stream tells of it."""
        if self.bao.running:
            self.kill()
        shutil.rmtree(self.bao._raft)
        shutil.copytree(copy, self.bao._raft)
        self.mend()

    @staticmethod
    def _is_without(admin: Vault, path: str) -> bool:
        try:
            return admin.read(path) is None
        except JitvaultError:
            # it starts anew with what it was given
            return False

    def _storage(self, method: str, what: str, body: bytes | None = None) -> requests.Response:
        headers = {"X-Vault-Token": self.world.admin_token.reveal()}
        url = f"{self.world.address}/v1/sys/storage/raft/{what}"
        answer = requests.request(method, url, headers=headers, data=body, timeout=RESTORED_S)
        answer.raise_for_status()
        return answer

    @property
    def _admin(self) -> Vault:
        return Vault(Connection(self.world.address), self.world.admin_token)

    def pause_target(self) -> None:
        """SIGSTOP PostgreSQL with all its sessions: it accepts connections, and says nothing."""
        _signal_all(self.postgres, signal.SIGSTOP)


Staging = Callable[[], AbstractContextManager[Stage]]
"""Makes a stage that is taken down at the end."""


@contextmanager
def _made_world(make: Callable[[Path], VaultServer]) -> Iterator[World]:
    with TemporaryDirectory(prefix="jitvault-stage-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        directory = Path(name).resolve()
        bao, postgres = make(directory / "openbao"), Postgres(directory / "postgres")
        with ThreadPoolExecutor(2) as pool:
            starts = [pool.submit(server.start) for server in (bao, postgres)]
        stack.push(bao)
        stack.push(postgres)
        for start in starts:
            start.result()
        yield provisioned(Servers(directory, bao, postgres))


@contextmanager
def staged(make: Callable[[Path], VaultServer] | None = None) -> Iterator[Stage]:
    """A stage on raft storage, or on the Vault that `make` makes; at the end its servers are stopped."""
    with ExitStack() as stack:
        world = stack.enter_context(copied_world() if make is None else _made_world(make))
        stack.callback(thaw, world.servers.postgres)
        between = GoBetween((world.servers.vault.host, world.servers.vault.port))
        stack.callback(between.down)
        yield Stage(world, between, env(world, "sqlite:////nowhere", EXAMPLE))


def hasty(monkeypatch: pytest.MonkeyPatch, seconds: float = TIMEOUT_S) -> None:
    """Commands give up on an answer of Vault sooner than in 10 s."""
    monkeypatch.setattr(wiring, "Connection", functools.partial(Connection, timeout_s=seconds))


@contextmanager
def patient() -> Iterator[None]:
    """Give Vault longer for an answer again, in a test that is hasty, where nothing is held back.

    A revocation can take Vault more than 0.7 s on a busy machine, and a client in a hurry hangs up on each try.
    """
    with mock.patch.object(wiring, "Connection", functools.partial(Connection, timeout_s=_PATIENT_S)):
        yield


def until_done(
    rig: Rig, *arguments: str | Path, times: int = 4, watch: Callable[[Result], object] | None = None
) -> Result:
    """Run a command as its own messages say, until it is done; `watch` sees how each run ended. The outage is over."""
    for _ in range(times):
        with patient():
            result = rig("operator", *arguments, code=None)
        if watch is not None:
            watch(result)
        if result.code == 0:
            return result
        if "is known in" in result.stderr:
            # whether a token was made is known after Vault's longest request
            time.sleep(3.1)
    raise AssertionError((arguments, result))


def sealed(rig: Rig, task: str) -> Result:
    """Wait for the settle window and have the task sealed."""
    for _ in range(4):
        time.sleep(1.1)
        result = rig("operator", "status", task, code=None)
        if result.code == 0 and result.json["state"] == "sealed":
            return result
    raise AssertionError(result)


def claims_run_out(rig: Rig) -> None:
    """What could not release its claims keeps them for 30 s; here they are over at once."""
    for table in ("tasks", "audit_sources"):
        rig.sql(f"UPDATE {table} SET claim_until = 0")


def thaw(postgres: Postgres) -> None:
    if postgres.running:
        _signal_all(postgres, signal.SIGCONT)


def _signal_all(postgres: Postgres, number: signal.Signals) -> None:
    """To the server and everything that it started."""
    children = Path(f"/proc/{postgres.pid}/task/{postgres.pid}/children").read_text().split()
    for pid in [postgres.pid, *map(int, children)]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
