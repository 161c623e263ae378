"""The URL of the HTTP receiver, its certificate, and its senders' secret."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from jitvault.errors import UsageError


@dataclass(frozen=True)
class Endpoint:
    """`http://HOST:PORT/PATH` or `https://…`, with what is needed to serve it."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None = None
    bearer: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, *, certificate: Path | None, key: Path | None, bearer_file: Path | None) -> Endpoint:
        """Parse the URL and read the files. Raises UsageError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not host or port is None or "@" in parts.netloc:
            raise UsageError(f"--http: expected http(s)://HOST:PORT/PATH, got {url!a:.100}")
        if parts.query or parts.fragment:
            raise UsageError("--http: the URL ends with its path")
        if (parts.scheme == "https") != (certificate is not None and key is not None) or bool(certificate) != bool(key):
            raise UsageError("--http: https needs --tls-cert and --tls-key, and http takes neither")
        tls = _tls(certificate, key) if certificate and key else None
        return cls(host, port, parts.path or "/", tls, _bearer(bearer_file) if bearer_file else None)


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (certificate, key):
        if not path.is_file():
            raise UsageError(f"{path} is not there")
    try:
        # without a password function, OpenSSL would ask for one on the terminal
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "not PEM"
        raise UsageError(f"{certificate} and {key} are no certificate with its key: {reason}") from None
    return context


def _bearer(path: Path) -> bytes:
    """Return the secret in a file.

    `Bearer ` may precede it, as OpenBao wants it in its own file.
    """
    try:
        text = path.read_text("ascii").strip().removeprefix("Bearer ").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not ASCII"
        raise UsageError(f"--bearer-file {path} cannot be read: {reason}") from None
    if not text or not text.isprintable():
        raise UsageError(f"--bearer-file {path} holds no bearer")
    return text.encode()
