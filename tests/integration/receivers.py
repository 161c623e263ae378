"""A receiver in a process of its own, and an OpenBao that pushes to it, for the tests of both."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import secrets
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

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


class Https:
    """A receiver's certificate and bearer, and what those have who may send to it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.certificate, self.key = self_signed(directory)
        self.bearer_file = directory / "bearer"
        self.bearer = f"Bearer {secrets.token_hex(16)}"
        self.bearer_file.touch(0o600)
        self.bearer_file.write_text(self.bearer)
        self.trusting = ssl.create_default_context(cafile=self.certificate)
        self.tls = ("--tls-cert", str(self.certificate), "--tls-key", str(self.key))
        self.args = ("--http", "https://127.0.0.1:0/audit", *self.tls, "--bearer-file", str(self.bearer_file))

    def device(self, receiver: Receiving) -> AuditDevice:
        """An http device that knows the bearer."""
        header = json.dumps({"Authorization": [f"file://{self.bearer_file}"]})
        return device("http", uri=receiver.url, headers=header)

    def connect(self, receiver: Receiving) -> ssl.SSLSocket:
        caller = socket.create_connection(receiver.host_and_port, timeout=10)
        return self.trusting.wrap_socket(caller, server_hostname="127.0.0.1")

    def post(
        self, receiver: Receiving, body: bytes | Iterator[bytes], path: str = "/audit", **headers: str | None
    ) -> int:
        """Send a body as somebody who knows the bearer, unless other headers are given."""
        given = {name.replace("_", "-"): text for name, text in {"Authorization": self.bearer, **headers}.items()}
        connection = http.client.HTTPSConnection(*receiver.host_and_port, timeout=15, context=self.trusting)
        try:
            connection.request("POST", path, body, {name: text for name, text in given.items() if text is not None})
            return connection.getresponse().status
        finally:
            connection.close()


def connect(receiver: Receiving) -> socket.socket:
    """Connect to the socket of a receiver."""
    caller = socket.socket(socket.AF_UNIX)
    caller.settimeout(10)
    caller.connect(receiver.url.removeprefix("unix://"))
    return caller


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = directory / "cert.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


class TrustingVault(VaultServer):
    """An OpenBao that pushes to an HTTP receiver whose certificate it trusts, as Go programs do for this variable."""

    def __init__(self, directory: Path, receiver: Receiving, https: Https) -> None:
        super().__init__(directory, more_devices=[https.device(receiver)])
        self.trusted = https.certificate

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
