"""TLS servers on loopback that demand a certificate of Vault's PKI: some look whether it is revoked, some do not."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Kind = Literal["blind", "looking", "strict", "late"]
_TURN_S = 0.1
_KEPT_S = 4
"""For how long a server that is `late` goes by the CRL that it fetched last."""


class TlsServer:
    """`blind` never looks at the CRL; `looking` does at each handshake, and leaves sessions alone; `strict` ends those
    as well, and resumes none; `late` looks at a CRL that may be some seconds old. `mount` is the URL of the PKI mount
    whose certificates it takes.
    """

    def __init__(self, kind: Kind, directory: Path, mount: str) -> None:
        self._kind, self._mount, self._directory = kind, mount, directory
        self.identity = directory / "server.pem"
        self.authority = _identity(self.identity)
        self._kept = self._new_context()
        self._saved, self._saved_at = b"", float("-inf")
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._begin(self._accept)

    def stop(self) -> None:
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _begin(self, work: object, *given: object) -> None:
        thread = threading.Thread(target=work, args=given, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        try:
            with self._context().wrap_socket(connection, server_side=True) as session:
                shown = session.getpeercert() or {}
                self._hold(session, int(str(shown["serialNumber"]), 16))
        except OSError:
            # it refused, or the client is gone
            connection.close()

    def _hold(self, session: ssl.SSLSocket, serial: int) -> None:
        session.settimeout(_TURN_S)
        while not self._stopped.is_set():
            try:
                if not session.recv(100):
                    return
            except TimeoutError:
                if self._kind == "strict" and serial in self._revoked():
                    return

    def _context(self) -> ssl.SSLContext:
        """One for all connections where sessions are resumed; the key of their tickets is in it."""
        # of two lists OpenSSL keeps the one that it knew first where they are of one second
        context = self._new_context() if self._kind in ("strict", "late") else self._kept
        if self._kind != "blind":
            crl = self._directory / f"{threading.get_ident()}.pem"
            crl.write_bytes(self._saved_crl() if self._kind == "late" else self._crl())
            context.load_verify_locations(crl)
        return context

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.identity)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=requests.get(f"{self._mount}/ca/pem", timeout=5).text)
        if self._kind != "blind":
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return context

    def _saved_crl(self) -> bytes:
        if time.monotonic() - self._saved_at > _KEPT_S:
            self._saved, self._saved_at = self._crl(), time.monotonic()
        return self._saved

    def _crl(self) -> bytes:
        """The CRL once it is a second old: of two of one second OpenSSL keeps the one that it knew first."""
        while True:
            found = requests.get(f"{self._mount}/crl/pem", timeout=5).content
            if datetime.now(UTC) - x509.load_pem_x509_crl(found).last_update_utc >= timedelta(seconds=1):
                return found
            time.sleep(_TURN_S)

    def _revoked(self) -> set[int]:
        crl = x509.load_der_x509_crl(requests.get(f"{self._mount}/crl", timeout=5).content)
        return {entry.serial_number for entry in crl}


def _identity(file: Path) -> str:
    """Make a certificate for 127.0.0.1 that signs itself, with its key, in `file`; the certificate (PEM)."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a verifier")])
    sans = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(sans, critical=False)
    made = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=9))
    certificate = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    file.write_bytes(
        certificate + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return certificate.decode()
