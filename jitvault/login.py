"""The worker's and an agent's way to log in to Vault, by the settings."""

from __future__ import annotations

import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from jitvault.errors import UsageError
from jitvault.formats.secret import Secret
from jitvault.settings import Settings, Way
from jitvault.vault.auth_methods import (
    AGENT,
    WORKER,
    AppRole,
    Certificate,
    FromFile,
    GivenToken,
    Jwt,
    LoginOwner,
    Method,
    StaticValue,
    TokenFile,
)
from jitvault.vault.spiffe import Spiffe

# group and others
_OTHERS = 0o077
# the default mount of a login by SPIFFE: its JWT is one for the JWT method
_MOUNTS = {"spiffe": "jwt"}


@dataclass(frozen=True, slots=True)
class _Given:
    """The settings of one login; `prefix` begins the names of its variables."""

    owner: LoginOwner
    prefix: str
    way: Way
    mount: str | None
    role: str | None
    audience: str | None
    jwt_file: Path
    role_id: tuple[SecretStr | None, Path | None]
    secret_id: tuple[SecretStr | None, Path | None]
    wrapped_from: str | None
    has_certificate: bool


def worker_method(s: Settings) -> Method:
    """Return the worker's configured way to authenticate.

    Raises UsageError where none is set, more than one, or one that is incomplete.
    """
    ways = [name for name in ("worker_token", "worker_token_file", "worker_login") if getattr(s, name)]
    if not ways:
        raise UsageError(
            "this needs the worker's identity, and none of JITVAULT_WORKER_LOGIN, JITVAULT_WORKER_TOKEN and "
            "JITVAULT_WORKER_TOKEN_FILE is set",
            hint="Run it where a worker runs, with the worker's settings, or ask whoever runs one "
            "(docs/operations/worker-identity.md). In a sandbox of `jitvault dev --env-dir DIR`, "
            "`source DIR/worker.env` first.",
        )
    if len(ways) > 1:
        names = " and ".join(f"JITVAULT_{name.upper()}" for name in ways)
        raise UsageError(f"{names} are both set", hint="The worker has one identity: unset the other.")
    if s.worker_token is not None:
        return GivenToken(Secret(s.worker_token.get_secret_value()))
    if s.worker_token_file is not None:
        return TokenFile(FromFile(s.worker_token_file, "JITVAULT_WORKER_TOKEN_FILE"))
    assert s.worker_login is not None  # noqa: S101 (for the type checker)
    return _login_method(
        _Given(
            owner=WORKER,
            prefix="JITVAULT_WORKER",
            way=s.worker_login,
            mount=s.worker_login_mount,
            role=s.worker_login_role,
            audience=s.worker_login_audience,
            jwt_file=s.worker_jwt_file,
            role_id=(s.worker_role_id, s.worker_role_id_file),
            secret_id=(s.worker_secret_id, s.worker_secret_id_file),
            wrapped_from=s.worker_secret_id_wrapped_from,
            has_certificate=s.vault_client_cert is not None,
        )
    )


def agent_method(s: Settings) -> Method:
    """Return the way of an agent to authenticate, by JITVAULT_AGENT_LOGIN.

    Raises UsageError where it is incomplete, or a token is set beside it.
    """
    if s.agent_login is None:
        raise UsageError("this needs an agent's login, and JITVAULT_AGENT_LOGIN is not set")
    if s.vault_token is not None:
        raise UsageError(
            f"{s.person_source} and JITVAULT_AGENT_LOGIN are both set",
            hint=f"The caller has one identity: unset the other. An agent with a login needs no {s.person_source}.",
        )
    return _login_method(
        _Given(
            owner=AGENT,
            prefix="JITVAULT_AGENT",
            way=s.agent_login,
            mount=s.agent_login_mount,
            role=s.agent_login_role,
            audience=s.agent_login_audience,
            jwt_file=s.agent_jwt_file,
            role_id=(s.agent_role_id, s.agent_role_id_file),
            secret_id=(s.agent_secret_id, s.agent_secret_id_file),
            wrapped_from=s.agent_secret_id_wrapped_from,
            has_certificate=s.vault_client_cert is not None,
        )
    )


def exposed_secrets(s: Settings) -> list[tuple[str, Path, int]]:
    """Return each secret id's file that is open to more than its owner.

    Each with the variable that names it and its mode. A file that cannot be looked at is left to whoever reads it.
    """
    found = []
    for field in ("agent_secret_id_file", "worker_secret_id_file"):
        path = getattr(s, field)
        if path is None:
            continue
        with suppress(OSError):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & _OTHERS:
                found.append((f"JITVAULT_{field.upper()}", path, mode))
    return found


def _login_method(given: _Given) -> Method:
    mount = (given.mount or _MOUNTS.get(given.way, given.way)).strip("/")
    if given.way == "cert":
        if not given.has_certificate:
            raise UsageError(f"{given.prefix}_LOGIN=cert needs VAULT_CLIENT_CERT and VAULT_CLIENT_KEY")
        return Certificate(given.owner, mount, given.role)
    if given.way == "approle":
        return AppRole(
            given.owner,
            mount,
            _source(given, "ROLE_ID", given.role_id),
            _source(given, "SECRET_ID", given.secret_id),
            given.wrapped_from,
        )
    if not given.role:
        raise UsageError(f"{given.prefix}_LOGIN={given.way} needs {given.prefix}_LOGIN_ROLE")
    if given.way == "jwt":
        return Jwt(given.owner, mount, given.role, FromFile(given.jwt_file, f"{given.prefix}_JWT_FILE"))
    if not given.audience:
        raise UsageError(
            f"{given.prefix}_LOGIN=spiffe needs {given.prefix}_LOGIN_AUDIENCE",
            hint="Set it to the audience that the role of Vault's JWT method is bound to.",
        )
    return Spiffe(given.owner, mount, given.role, given.audience)


def _source(given: _Given, name: str, either: tuple[SecretStr | None, Path | None]) -> FromFile | StaticValue:
    """Return a value's source: the environment or a file.

    Raises UsageError where none is set, or both.
    """
    variable = f"{given.prefix}_{name}"
    value, path = either
    if (value is None) == (path is None):
        raise UsageError(f"{given.prefix}_LOGIN=approle needs either {variable} or {variable}_FILE")
    if path is not None:
        return FromFile(path, f"{variable}_FILE")
    assert value is not None  # noqa: S101 (for the type checker)
    return StaticValue(Secret(value.get_secret_value()))
