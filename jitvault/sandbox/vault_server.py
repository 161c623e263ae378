"""A real OpenBao or HashiCorp Vault with a file audit device.

The server is initialised and unsealed. It is not in dev mode: it has a configuration file and a storage. Raft storage
survives `kill`. In-memory storage is empty after a restart, with a new root token and a new audit salt, and the server
appends to the same audit file. A first start with raft takes 1 to 2 s more, because its first election waits for a
heartbeat time-out that no option shortens; later starts do not.

OpenBao unseals itself with a static seal, whose key is a file of mode 0600 in `directory`, and has its audit devices in
its configuration. Vault has neither: its one unseal key, like the root token of both, exists only in the memory of this
process, and its devices are enabled by API before anything else.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from jitvault.errors import VaultUnavailable, WrongState
from jitvault.formats.server_product import Product
from jitvault.http.connection import NoAnswer, ServerAddress, connect
from jitvault.http.deadline_socket import TimeLimit
from jitvault.sandbox import vault_configuration
from jitvault.sandbox.accounts import write_private
from jitvault.sandbox.binary import Binary, find_binary
from jitvault.sandbox.lifecycle import MINIMAL_ENVIRONMENT, Server
from jitvault.sandbox.processes import Command, ServerProcess, free_port
from jitvault.sandbox.vault_configuration import Addresses, AuditDevice, quoted

Storage = Literal["inmem", "raft"]

AUDIT_DEVICE = "jitvault"

# A sandbox has little in memory, so the server would look for garbage every second: that takes a fifth of its time.
_GARBAGE_PERCENT = "400"
_HEALTH_ACTIVE = 200
_HEALTH_NOT_INITIALISED = 501
_HEALTH_SEALED = 503
# No recovery key for OpenBao: its only use would be to create another root token.
_INITIALISE = {
    Product.OPENBAO: {"recovery_shares": 0, "recovery_threshold": 0},
    Product.VAULT: {"secret_shares": 1, "secret_threshold": 1},
}


class VaultServer(Server):
    """An OpenBao or a Vault on 127.0.0.1 with its files in `directory`.

    See `Server` for how it starts and stops. `binary` is the program, `find_binary()` where none is given.
    `max_request_duration` is how long the server lets one request run, at least 1 ms. `more_configuration` is put at
    the end of the configuration file. `more_devices` are audit devices beside the file.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binary: Binary | None = None,
        max_request_duration: timedelta = timedelta(seconds=2),
        storage: Storage = "inmem",
        more_configuration: str = "",
        more_devices: Sequence[AuditDevice] = (),
    ) -> None:
        super().__init__(directory, log_name="server.log")
        self._given_binary = binary
        self.max_request_duration = max_request_duration
        self.storage = storage
        self.more_configuration = more_configuration
        self.more_devices = more_devices
        self.audit_file = self.directory / "audit.log"
        self._key_file = self.directory / "seal.key"
        self._config_file = self.directory / "server.hcl"
        self._raft = self.directory / "raft"
        self._cluster_port: int | None = None
        self._root_token: str | None = None
        self._unseal_key: str | None = None
        self._lacks_devices = False

    @cached_property
    def binary(self) -> Binary:
        """The server's program. Raises `UsageError` when there is none."""
        return self._given_binary or find_binary()

    @property
    def product(self) -> Product:
        return self.binary.product

    @property
    def name(self) -> str:
        return self.product

    @property
    def address(self) -> str:
        """The base URL, without a slash at the end.

        Raises `WrongState` before the first start.
        """
        return f"http://{self.host}:{self.port}"

    @property
    def root_token(self) -> str:
        """The root token. Raises `WrongState` before the first start."""
        if self._root_token is None:
            raise WrongState(f"{self.name} has no root token yet", hint="Call start() first.")
        return self._root_token

    def _prepare(self, deadline: float) -> None:
        if self.storage == "inmem":
            self._root_token = None
            self._unseal_key = None
        elif self._root_token is None and self._raft.exists():
            raise WrongState(
                f"{self.directory} contains the data of another server, and its root token is gone",
                hint="Use an empty directory.",
            )
        if self.product is Product.OPENBAO and not self._key_file.exists():
            # In hex, because the server trims white space off the file, and random bytes may end with some.
            write_private(self._key_file, secrets.token_bytes(32).hex())

    def _choose_ports(self) -> None:
        super()._choose_ports()
        # a server with one port for both does not start
        self._cluster_port = free_port(self.port)

    def _command(self) -> Command:
        self._config_file.unlink(missing_ok=True)
        write_private(self._config_file, self._configuration())
        if self.storage == "raft":
            self._raft.mkdir(mode=0o700, exist_ok=True)
        return Command(
            arguments=(str(self.binary.path), "server", f"-config={self._config_file}"),
            directory=self.directory,
            log_file=self.log_file,
            environment={**MINIMAL_ENVIRONMENT, "HOME": str(self.directory), "GOGC": _GARBAGE_PERCENT},
        )

    def _configuration(self) -> str:
        made = vault_configuration.configuration(
            self.product,
            Addresses(f"{self.host}:{self.port}", f"{self.host}:{self._cluster_port}"),
            storage=self._storage_block(),
            max_request_milliseconds=max(1, self.max_request_duration // timedelta(milliseconds=1)),
            key_file=self._key_file,
            devices=self._devices(),
        )
        return f"{made}{self.more_configuration}\n"

    def _devices(self) -> tuple[AuditDevice, ...]:
        ours = AuditDevice("file", AUDIT_DEVICE, {"file_path": str(self.audit_file), "mode": "0600"})
        return (ours, *self.more_devices)

    def _storage_block(self) -> str:
        if self.storage == "inmem":
            return 'disable_clustering = true\nstorage "inmem" {\n}\n'
        return (
            f'storage "raft" {{\n  path = {quoted(self._raft)}\n  node_id = "sandbox"\n'
            "  performance_multiplier = 1\n}\n"
        )

    def _listens(self, process: ServerProcess) -> bool:
        # Asking the port is not enough: until this server has bound it, another sandbox's server may answer there.
        return " server started!" in process.said()

    def _settle(self, deadline: float) -> None:
        process = self._process
        assert process is not None  # noqa: S101 (for the type checker)
        if not process.wait_ready(self._is_serving, deadline=deadline):
            raise self._not_started(process)

    def _is_serving(self) -> bool:
        """Return whether the server is active and unsealed, after a next step.

        The steps are to initialise it, to unseal it and to enable its devices.
        """
        try:
            status, _ = self._ask("GET", "/v1/sys/health")
            if status == _HEALTH_NOT_INITIALISED and self._root_token is None:
                self._initialise()
            elif status in (_HEALTH_NOT_INITIALISED, _HEALTH_SEALED) and self._unseal_key is not None:
                # a joining node reports that it is not initialised until it has joined; then it accepts the key
                self._ask("PUT", "/v1/sys/unseal", {"key": self._unseal_key})
            elif status == _HEALTH_ACTIVE and self._lacks_devices:
                self._enable_devices()
        except NoAnswer:
            return False
        return self._serves(status) and not self._lacks_devices

    def _serves(self, status: int) -> bool:
        """Return whether a server answers `sys/health` with this HTTP status."""
        return status == _HEALTH_ACTIVE

    def _initialise(self) -> None:
        status, answer = self._ask("PUT", "/v1/sys/init", _INITIALISE[self.product], seconds=20)
        token = answer.get("root_token")
        keys = answer.get("keys")
        if status != HTTPStatus.OK or not isinstance(token, str):
            raise VaultUnavailable(
                f"the sandbox's {self.name} refused to be initialised (HTTP {status})",
                hint=f"Its log: {self.log_file}",
            )
        self._root_token = token
        if self.product is Product.VAULT:
            self._unseal_key = str(keys[0]) if keys else None
            self._lacks_devices = True

    def _enable_devices(self) -> None:
        """Enable the audit devices of a new Vault in their order.

        Everything done later is in their files.
        """
        for device in self._devices():
            path = f"/v1/sys/audit/{device.name}"
            status, answer = self._ask("PUT", path, device.body, token=self._root_token, seconds=20)
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                # the server has only just become active: try again
                return
            # a device is in use already where an earlier try enabled it and the answer was lost
            if status != HTTPStatus.NO_CONTENT and "already in use" not in str(answer.get("errors")):
                raise VaultUnavailable(
                    f"the sandbox's {self.name} refused its audit device {device.name}: {answer.get('errors')}",
                    hint=f"Its log: {self.log_file}",
                )
        self._lacks_devices = False

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        seconds: float = 5,
    ) -> tuple[int, dict[str, Any]]:
        """Send a request and return its HTTP status and JSON answer. Raises NoAnswer."""
        headers = {} if token is None else {"X-Vault-Token": token}
        sent = None if body is None else json.dumps(body).encode()
        limit = TimeLimit(seconds, time.monotonic() + seconds)
        with closing(connect(ServerAddress(self.host, self.port), limit)) as connection:
            answer = connection.ask(method, path, headers, sent, limit)
        with suppress(ValueError):
            found = answer.json()
            if isinstance(found, dict):
                return answer.status_code, found
        return answer.status_code, {}
