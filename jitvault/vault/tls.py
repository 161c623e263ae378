"""TLS to Vault: trusted authorities, and the client's certificate.

Verification cannot be turned off: an attacker between here and Vault could take every wrapping token, and could answer
look-ups at will, on which every proof rests.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from certifi import where

from jitvault.errors import UsageError


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files for the connection.

    Without `ca_file` or `ca_dir` the public authorities are trusted; `ca_file` takes precedence. `server_name` is the
    name in the server's certificate where it is not the address.
    """

    ca_file: Path | None = None
    ca_dir: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    server_name: str | None = None

    def stamp(self) -> tuple[int, ...]:
        """Return a value that changes when one of the files is replaced.

        Certificates are often issued for hours only.
        """
        return tuple(_changed_at(path) for path in (self.ca_file, self.ca_dir, self.client_cert, self.client_key))

    def options(self) -> dict[str, Any]:
        """Return the TLS arguments of `Session`.

        Raises UsageError for a file that cannot be used.
        """
        return {"context": _context(self, self.stamp()), "server_name": self.server_name}


@lru_cache(maxsize=8)
def _context(tls: Tls, _stamp: tuple[int, ...]) -> ssl.SSLContext:
    """Return the TLS context, made once for all connections.

    Making it reads and parses every authority. Threads may share it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # the common name of a certificate can be a person's; Vault's own CLI does not count it either
    context.hostname_checks_common_name = False
    for path in _authorities(tls):
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError):
            raise _unusable("VAULT_CACERT" if tls.ca_file else "VAULT_CAPATH", path) from None
    if tls.client_cert is not None:
        try:
            # without this, OpenSSL would ask for a passphrase at the terminal
            context.load_cert_chain(tls.client_cert, tls.client_key, password=_no_passphrase)
        except (OSError, ssl.SSLError):
            raise _unusable("VAULT_CLIENT_CERT, VAULT_CLIENT_KEY", tls.client_cert) from None
    return context


def _authorities(tls: Tls) -> Iterator[Path]:
    """Yield the files of trusted authorities.

    Every file of a directory counts, whatever its name, as in Vault's own CLI.
    """
    if tls.ca_file is not None or tls.ca_dir is None:
        yield tls.ca_file or Path(where())
        return
    try:
        found = sorted(path for path in tls.ca_dir.iterdir() if path.is_file())
    except OSError:
        found = []
    if not found:
        raise _unusable("VAULT_CAPATH", tls.ca_dir)
    yield from found


def _unusable(variable: str, path: Path) -> UsageError:
    return UsageError(f"{variable}: {path} cannot be read, or holds no PEM that fits", hint=f"Correct {variable}.")


def _no_passphrase() -> str:
    return ""


def _changed_at(path: Path | None) -> int:
    try:
        return path.stat().st_mtime_ns if path else 0
    except OSError:
        return 0
