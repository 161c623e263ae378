"""A receiver in a process of its own, and an OpenBao that pushes to it, for the tests of both."""

from __future__ import annotations

import http.client
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Any, Self

from jitvault.sandbox.processes import Command
from jitvault.sandbox.vault_configuration import AuditDevice
from jitvault.sandbox.vault_server import VaultServer

Key = tuple[str, str, str, str]


class Receiving:
    """`jitvault audit receive …`; ended, by its own id, when the context is left."""

    def __init__(self, spool: Path, *args: str, stdin: int | None = subprocess.DEVNULL) -> None:
        self.spool = spool
        self.args = args
        self.stdin = stdin
        self.stderr = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        argv = [sys.executable, "-m", "jitvault", "audit", "receive", *self.args, "--into", str(self.spool), "--json"]
        self.process = subprocess.Popen(argv, stdin=self.stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        # by a pipe: a file would be as full as the spool where that is what is tested
        self.listener = Thread(target=self._listen, args=[self.process.stderr])
        self.listener.start()
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], 15)
        assert ready, "it does not start"
        said = self.process.stdout.readline()
        assert said, self.stderr
        announced = json.loads(said)
        assert announced["into"] == str(self.spool)
        self.url: str = announced["listening"]

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, _, port = self.url.partition("://")[2].partition("/")[0].rpartition(":")
        return host, int(port)

    def _listen(self, stderr: IO[bytes]) -> None:
        with stderr:
            for line in stderr:
                self.stderr += line.decode()

    def stop(self, number: int = signal.SIGTERM) -> float:
        """End it as a supervisor does; how long that took. It must end well."""
        began = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(timeout=10) == 0, self.stderr
        took = time.monotonic() - began
        self.listener.join(timeout=10)
        return took

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)
        if self.process.stdout:
            self.process.stdout.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        self.listener.join(timeout=10)
        for pipe in (self.process.stdout, self.process.stdin):
            if pipe:
                pipe.close()
        assert "Traceback" not in self.stderr, self.stderr

    def peak_memory(self) -> int:
        """The most bytes of memory that it ever had at once."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def files(self) -> list[Path]:
        """A file for each sender, in the order in which they came."""
        return sorted(self.spool.glob("*.log"))

    def lines(self) -> list[bytes]:
        """All lines, sender by sender, their earlier segments included."""
        return [
            line
            for path in self.files()
            for part in [*sorted(self.spool.glob(f"{path.name}.*"), reverse=True), path]
            for line in part.read_bytes().splitlines(keepends=True)
        ]


class TrustingVault(VaultServer):
    """An OpenBao that trusts the certificates in one file, as Go programs do for this variable."""

    trusted: Path

    def _command(self) -> Command:
        command = super()._command()
        return replace(command, environment={**command.environment, "SSL_CERT_FILE": str(self.trusted)})


def device(kind: str, **options: str) -> AuditDevice:
    """One more audit device."""
    return AuditDevice(kind, "push", options)


def socket_device(url: str) -> AuditDevice:
    kind, _, address = url.partition("://")
    return device("socket", socket_type=kind, address=address)


def ask(bao: VaultServer, times: int, *, at_once: int = 1) -> list[int]:
    """Make requests that are audited, a request line and a response line each; their HTTP statuses."""

    def some(n: int) -> list[int]:
        return [one(bao) for _ in range(n)]

    share = times // at_once
    with ThreadPoolExecutor(at_once) as pool:
        return [status for found in pool.map(some, [share] * at_once) for status in found]


def one(bao: VaultServer, method: str = "GET", path: str = "auth/token/lookup-self", body: str | None = None) -> int:
    connection = http.client.HTTPConnection(bao.host, bao.port, timeout=10)
    try:
        connection.request(method, f"/v1/{path}", body, {"X-Vault-Token": bao.root_token})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def keys(lines: Iterable[bytes]) -> list[Key]:
    """What tells audit lines apart that two devices wrote of the same: their salts and times differ.

    Of whole lines: the last one of a file may be just about to be written.
    """
    entries: list[Mapping[str, Any]] = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [
        (e["request"]["id"], e["type"], e["request"]["path"], e["request"].get("operation", ""))
        for e in entries
        # each device gets a test message of its own when it is made, and of its own enabling by API the answer alone
        if not e["request"]["path"].startswith("sys/audit/")
    ]


def reference(bao: VaultServer) -> list[Key]:
    """What the file device wrote."""
    return keys(bao.audit_file.read_bytes().splitlines(keepends=True))


def eventually(holds: Callable[[], bool], *, within: float = 5) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)
