"""How a connection to Vault is protected: whose certificate is believed, and which one is shown.

There is no way to turn the verification off: whoever stands between here and Vault could take every wrapping token,
and could answer look-ups as it likes, which is what a proof rests on.
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
    """Files of PEM. Without `ca_file` or `ca_dir` the public authorities are believed; `ca_file` goes first.

    `server_name` is what the server's certificate has to be made out to where that is not the address.
    """

    ca_file: Path | None = None
    ca_dir: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    server_name: str | None = None

    def stamp(self) -> tuple[int, ...]:
        """Something that changes when one of the files is replaced: certificates are made for hours."""
        return tuple(_changed_at(path) for path in (self.ca_file, self.ca_dir, self.client_cert, self.client_key))

    def options(self) -> dict[str, Any]:
        """How `Session` speaks https. Raises UsageError for a file that cannot be used."""
        return {"context": _context(self, self.stamp()), "server_name": self.server_name}


@lru_cache(maxsize=8)
def _context(tls: Tls, _stamp: tuple[int, ...]) -> ssl.SSLContext:
    """One for all connections: making it reads and parses every authority. Threads may share it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in _authorities(tls):
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError):
            raise _unusable("VAULT_CACERT" if tls.ca_file else "VAULT_CAPATH", path) from None
    if tls.client_cert is not None:
        try:
            # a key with a passphrase would be asked for at the terminal
            context.load_cert_chain(tls.client_cert, tls.client_key, password=_no_passphrase)
        except (OSError, ssl.SSLError):
            raise _unusable("VAULT_CLIENT_CERT, VAULT_CLIENT_KEY", tls.client_cert) from None
    return context


def _authorities(tls: Tls) -> Iterator[Path]:
    """Every file of a directory counts, whatever its name: so it is with Vault's own CLI."""
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
