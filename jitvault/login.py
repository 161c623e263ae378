"""The worker's way to authenticate to Vault, from the settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from jitvault.errors import UsageError
from jitvault.formats.secret import Secret
from jitvault.settings import Settings
from jitvault.vault.auth_methods import AppRole, Certificate, FromFile, GivenToken, Jwt, Method, StaticValue, TokenFile


def method_of(s: Settings) -> Method:
    """Return the configured way to authenticate.

    Raises UsageError where none is set, more than one, or one that is incomplete.
    """
    ways = [name for name in ("worker_token", "worker_token_file", "worker_login") if getattr(s, name)]
    if not ways:
        raise UsageError(
            "this needs the worker's identity, and none of JITVAULT_WORKER_LOGIN, JITVAULT_WORKER_TOKEN and "
            "JITVAULT_WORKER_TOKEN_FILE is set"
        )
    if len(ways) > 1:
        names = " and ".join(f"JITVAULT_{name.upper()}" for name in ways)
        raise UsageError(f"{names} are both set", hint="The worker has one identity: unset the other.")
    if s.worker_token is not None:
        return GivenToken(Secret(s.worker_token.get_secret_value()))
    if s.worker_token_file is not None:
        return TokenFile(FromFile(s.worker_token_file, "JITVAULT_WORKER_TOKEN_FILE"))
    mount = (s.worker_login_mount or s.worker_login or "").strip("/")
    if s.worker_login == "cert":
        if s.vault_client_cert is None:
            raise UsageError("JITVAULT_WORKER_LOGIN=cert needs VAULT_CLIENT_CERT and VAULT_CLIENT_KEY")
        return Certificate(mount, s.worker_login_role)
    if s.worker_login == "jwt":
        if not s.worker_login_role:
            raise UsageError("JITVAULT_WORKER_LOGIN=jwt needs JITVAULT_WORKER_LOGIN_ROLE")
        return Jwt(mount, s.worker_login_role, FromFile(s.worker_jwt_file, "JITVAULT_WORKER_JWT_FILE"))
    return AppRole(
        mount,
        _source("JITVAULT_WORKER_ROLE_ID", s.worker_role_id, s.worker_role_id_file),
        _source("JITVAULT_WORKER_SECRET_ID", s.worker_secret_id, s.worker_secret_id_file),
        s.worker_secret_id_wrapped_from,
    )


def _source(variable: str, value: SecretStr | None, path: Path | None) -> FromFile | StaticValue:
    """Return a value's source: the environment or a file.

    Raises UsageError where none is set, or both.
    """
    if (value is None) == (path is None):
        raise UsageError(f"JITVAULT_WORKER_LOGIN=approle needs either {variable} or {variable}_FILE")
    if path is not None:
        return FromFile(path, f"{variable}_FILE")
    assert value is not None  # noqa: S101 (for the type checker)
    return StaticValue(Secret(value.get_secret_value()))
