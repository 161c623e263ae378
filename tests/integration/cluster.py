"""A real cluster on loopback: three nodes with raft storage and one seal, each with an audit file.

with running_cluster() as cluster:
    cluster.active.address, cluster.standbys[0].address
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import requests

from jitvault.http.connection import NoAnswer
from jitvault.sandbox.postgres import Postgres
from jitvault.sandbox.vault_configuration import AuditDevice
from jitvault.sandbox.vault_server import VaultServer

T = TypeVar("T")

PATIENCE_S = 30.0
STEP_DOWN_S = 5.0
ACTIVE, STANDBY = 200, 429  # what sys/health answers


class Node(VaultServer):
    """One node of a cluster. The first one initialises it; the others join `joins`."""

    def __init__(self, directory: Path, *, joins: Node | None = None) -> None:
        super().__init__(directory, storage="raft")
        self._joins = joins
        if joins is not None:
            # the root token is the cluster's, and a node can only join one whose seal it can open
            self._root_token = joins.root_token
            self._key_file = joins._key_file
            self._unseal_key = joins._unseal_key

    def __repr__(self) -> str:
        return self.directory.name

    @property
    def health(self) -> int:
        """The HTTP status of `sys/health`; 0 when nothing answers."""
        if not self.running:
            return 0
        try:
            return self._ask("GET", "/v1/sys/health", seconds=2)[0]
        except NoAnswer:
            return 0

    @property
    def leader(self) -> str:
        """Where it says the active node is."""
        return str(self._ask("GET", "/v1/sys/leader")[1].get("leader_address"))

    @property
    def applied(self) -> int:
        """How far it has followed what was written: a standby is some 0.1 s behind."""
        return int(self._ask("GET", "/v1/sys/leader")[1]["raft_applied_index"])

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What its audit file holds. A Vault's standby has none until it was active for the first time."""
        if not self.audit_file.exists():
            return []
        return [json.loads(line) for line in self.audit_file.read_bytes().splitlines()]

    def as_root(
        self, method: str, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> requests.Response:
        """Ask this very node."""
        headers = {**(headers or {}), "X-Vault-Token": self.root_token}
        return requests.request(method, f"{self.address}/v1/{path}", headers=headers, json=body, timeout=10)

    def _storage_block(self) -> str:
        join = f'  retry_join {{\n    leader_api_addr = "{self._joins.address}"\n  }}\n' if self._joins else ""
        return (
            f'storage "raft" {{\n  path = "{self._raft}"\n  node_id = "{self.directory.name}"\n'
            '  performance_multiplier = 1\n  autopilot_update_interval = "100ms"\n'
            f'  autopilot_reconcile_interval = "200ms"\n{join}}}\n'
        )

    def _devices(self) -> tuple[AuditDevice, ...]:
        # A device has the same options on every node, so its path is the same on every node as well. It is relative
        # here, and each node runs in a directory of its own.
        (device,) = super()._devices()
        return (replace(device, options={**device.options, "file_path": self.audit_file.name}),)

    def _serves(self, status: int) -> bool:
        """A node that joined, or comes back, serves as a standby as well."""
        return status == ACTIVE or (status == STANDBY and self._root_token is not None)


@dataclass
class Cluster:
    """Three nodes, and the PostgreSQL that they give credentials for."""

    directory: Path
    nodes: tuple[Node, ...]
    postgres: Postgres

    @property
    def active(self) -> Node:
        """The active node, as soon as there is one."""
        return self._until(lambda: next((node for node in self.nodes if node.health == ACTIVE), None))

    @property
    def standbys(self) -> list[Node]:
        return [node for node in self.nodes if node.health == STANDBY]

    @property
    def audit_files(self) -> str:
        """All of them, as JITVAULT_AUDIT_FILE wants them."""
        return ":".join(str(node.audit_file) for node in self.nodes)

    def kill_active(self) -> Node:
        """SIGKILL the active node and wait until another one is; gives the one that is dead."""
        victim = self.active
        victim.kill()
        assert self.active is not victim
        return victim

    def step_down(self) -> Node:
        """Make another node the active one; gives the one that was it."""
        before = self.active
        assert before.as_root("put", "sys/step-down").status_code == 204
        deadline = time.monotonic() + STEP_DOWN_S
        while before.health != STANDBY and time.monotonic() < deadline:
            time.sleep(0.02)
        if before.health == ACTIVE:
            # a Vault that took over from another one says 204 and stays active
            before.restart()
        self._until(lambda: before.health == STANDBY)
        self.mend()
        return before

    def mend(self) -> None:
        """Bring back what was killed, and wait until all three know who is active."""
        for node in self.nodes:
            node.start()
        self._until(lambda: all(node.leader == self.active.address for node in self.nodes))
        self.catch_up()

    def catch_up(self) -> None:
        """Wait until every node has what was written until now."""
        written = self.active.applied
        self._until(lambda: all(node.applied >= written for node in self.nodes))

    def answers_reads(self, standby: Node) -> None:
        """Wait until a standby answers reads itself: for a second after its start it forwards them."""
        self.catch_up()
        begin = len(standby.lines)
        self._until(lambda: standby.as_root("get", "auth/token/lookup-self") and len(standby.lines) > begin)

    def _until(self, ask: Callable[[], T]) -> T:
        """What `ask` gives, as soon as that is something."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := ask()):
            assert time.monotonic() < deadline, {str(node): node.health for node in self.nodes}
            time.sleep(0.02)
        return found


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start everything; at the end stop it and remove its files, after an exception as well."""
    with (
        tempfile.TemporaryDirectory(prefix="jitvault-cluster-", ignore_cleanup_errors=True) as name,
        ExitStack() as stack,
    ):
        directory = Path(name).resolve()
        postgres = Postgres(directory / "postgres")
        first = Node(directory / "node1")
        with ThreadPoolExecutor(max_workers=3) as pool:
            started = pool.submit(postgres.start)
            stack.callback(postgres.stop)
            stack.enter_context(first)
            # a new node would have to wait ten seconds for its vote
            first.as_root("put", "sys/storage/raft/autopilot/configuration", {"server_stabilization_time": "0s"})
            nodes = (first, *(Node(directory / name, joins=first) for name in ("node2", "node3")))
            joining = [pool.submit(node.start) for node in nodes[1:]]
            for node in nodes[1:]:
                stack.callback(node.stop)
            for one in (started, *joining):
                one.result()
        cluster = Cluster(directory, nodes, postgres)
        cluster._until(lambda: _voters(first) == len(nodes))
        yield cluster


def _voters(node: Node) -> int:
    servers = node.as_root("get", "sys/storage/raft/configuration").json()["data"]["config"]["servers"]
    return sum(1 for server in servers if server["voter"])
