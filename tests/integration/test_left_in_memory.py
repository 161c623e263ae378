"""A lease that Vault revoked, and whose look-up finds it until Vault restarts.

A revocation of Vault's own queue that failed takes the lease's record from memory, writes to its log, and puts the
record back. A revocation that succeeds in between removes the record, and then it is back for good. Here the log is
held up, so that the time in between is as long as the test needs.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from invariants import check_over, verdicts
from rig import Held, Rig
from stage import Stage, hasty, sealed, staged, until_done

from jitvault.errors import VaultRejected
from jitvault.sandbox.processes import Command
from jitvault.sandbox.vault_server import VaultServer
from jitvault.vault.leases import Leases

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]

_SMALLEST_PIPE = 4096


class HeldLog:
    """Takes what a server writes to a pipe, and can stop doing so."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _SMALLEST_PIPE)
        self._flows = threading.Event()
        self._flows.set()
        threading.Thread(target=self._take, daemon=True).start()

    def hold(self) -> None:
        """Whoever writes a line waits from now on."""
        self._flows.clear()
        with suppress(BlockingIOError):
            while True:
                os.write(self._pipe, b"." * 512)

    def let_go(self) -> None:
        self._flows.set()

    def _take(self) -> None:
        while True:
            self._flows.wait()
            with suppress(BlockingIOError):
                os.read(self._pipe, _SMALLEST_PIPE)
            time.sleep(0.005)


class HeldServer(VaultServer):
    """A server whose log can be held up."""

    def __init__(self, directory: Path) -> None:
        # only what failed is logged, so that nothing else waits
        super().__init__(directory, storage="raft", more_configuration='log_level = "error"')
        self.log = HeldLog(directory.parent / "stderr")

    def _command(self) -> Command:
        command = super()._command()
        to_pipe = ("/bin/sh", "-c", f'exec "$@" 2>{self.log.path}', "sh")
        return replace(command, arguments=(*to_pipe, *command.arguments))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged(HeldServer) as found:
        yield found


@pytest.fixture
def rig(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    hasty(monkeypatch)
    yield stage.rig(tmp_path)
    stage.mend()


def left_in_memory(stage: Stage, rig: Rig, held: Held, revoke: Callable[[], object]) -> None:
    """Have `revoke` revoke a lease while Vault's queue, which could not do so, waits to write that to its log."""
    server = stage.bao
    assert isinstance(server, HeldServer)
    stage.postgres.kill()
    server.log.hold()
    # the lease of a token that ends goes into the queue, whose first try is made at once
    rig.vault(held.token).write("auth/token/revoke-self")
    time.sleep(1)
    stage.postgres.start()
    lease_id = held.lease_id
    deadline = time.monotonic() + 40
    # the first revocation may meet a connection from before the restart
    while rig.lease_is_live(lease_id):
        assert time.monotonic() < deadline, "Vault did not revoke it"
        revoke()
    server.log.let_go()
    deadline = time.monotonic() + 10
    while not is_found(rig, lease_id):
        assert time.monotonic() < deadline, "Vault did not put it back"
        time.sleep(0.05)
    assert not rig.lease_is_live(lease_id)


def is_found(rig: Rig, lease_id: str) -> bool:
    try:
        rig.admin.write("sys/leases/lookup", {"lease_id": lease_id})
    except VaultRejected:
        return False
    return True


def test_a_lease_that_is_left_in_vaults_memory_is_proven_dead(stage: Stage, rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    left_in_memory(stage, rig, held, lambda: rig("operator", "complete", file.stem, code=None))
    until_done(rig, "complete", file.stem)
    assert verdicts(rig, file.stem) == ["audit_confirmed", "target_confirmed"]
    check_over(rig, file.stem)
    # before a task is sealed, Vault is asked whether it has again what was proven dead
    assert sealed(rig, file.stem)
    assert is_found(rig, held.lease_id)


def test_a_lease_that_vaults_queue_could_not_revoke_is_there(stage: Stage, rig: Rig, spec: Spec) -> None:
    held = rig.active(spec())
    stage.postgres.kill()
    rig.admin.write(f"sys/leases/revoke/{held.lease_id}", {"sync": False})
    leases = Leases(rig.admin)
    # Vault's storage is asked once the lease is over by a second
    while (found := leases.lookup(held.lease_id)) and found.ttl_s >= 0:
        time.sleep(0.1)
    assert leases.lookup(held.lease_id, revoked=True) is not None
