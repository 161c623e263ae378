"""The ways in which the worker and an agent authenticate to Vault.

    AppRole       role id and secret id; the secret id can come wrapped, and is unwrapped once
    Jwt           a JWT in a file that is rotated: of a Kubernetes service account, of SPIFFE, or of a CI job
    Certificate   the client certificate of the connection
    TokenFile     a token in a file, from a Vault agent or an operator; the worker's alone
    GivenToken    a token, with no way to get another one; the worker's alone

spiffe.py has one more. docs/operations/worker-identity.md and docs/agents.md say how each is set up.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from jitvault.errors import (
    JitvaultError,
    OutcomeUnknown,
    SecurityFinding,
    UsageError,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
)
from jitvault.formats.secret import Secret
from jitvault.vault.client import Vault
from jitvault.vault.wrapping import Wrapping

_MAX_BYTES = 64 * 1024
JWT_HINT = "Is the JWT a fresh one, and do its issuer, audience and subject fit the role?"


@dataclass(frozen=True, slots=True)
class LoginToken:
    """A token as Vault described it when it was issued.

    `ttl_s` is 0 for a token that does not expire. A batch token cannot be revoked.
    """

    token: Secret
    ttl_s: int
    renewable: bool
    is_batch: bool = False


@dataclass(frozen=True, slots=True)
class LoginOwner:
    """Whose login it is.

    `name` is how messages name the owner, `page` the documentation that says how the login is set up.
    """

    name: str
    page: str


WORKER = LoginOwner("worker", "docs/operations/worker-identity.md")
AGENT = LoginOwner("agent", "docs/agents.md")


class Method(Protocol):
    """One way to authenticate.

    `name` and `owner` are shown to people. `is_login` says whether the tokens belong to this process: made for it, and
    revoked by it.
    """

    name: ClassVar[str]
    is_login: ClassVar[bool]
    owner: LoginOwner

    def open(self, nobody: Vault) -> LoginToken:
        """Return a token.

        `nobody` is a client without a token. Raises VaultRefused where Vault gives no token, SecurityFinding,
        UsageError, VaultUnavailable.
        """

    def has_news(self) -> bool:
        """Return whether there is another token than the last `open` gave."""


@dataclass(frozen=True, slots=True)
class FromFile:
    """A value that is read from its file each time, since it may be replaced.

    `variable` is the setting that names the file.
    """

    path: Path
    variable: str

    def read(self) -> Secret:
        """Return the value. Raises UsageError, without the content of the file."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                # a pipe would be waited for, and a device has no end
                raise UsageError(f"{self.variable}: {self.path} is no regular file", hint="Check the file.")
            with self.path.open() as file:
                found = file.read(_MAX_BYTES + 1).strip()
        except (OSError, UnicodeDecodeError):
            raise UsageError(f"{self.variable}: {self.path} cannot be read", hint="Check the file.") from None
        if not found or len(found) > _MAX_BYTES:
            raise UsageError(f"{self.variable}: {self.path} is empty or too long", hint="Check the file.")
        return Secret(found)


@dataclass(frozen=True, slots=True)
class StaticValue:
    """A value from the environment."""

    value: Secret

    def read(self) -> Secret:
        """Return the value."""
        return self.value


class LoginMethod:
    """What the logins share: path, request, meaning of a refusal."""

    name: ClassVar[str]
    is_login: ClassVar[bool] = True

    def __init__(self, owner: LoginOwner, mount: str) -> None:
        self.owner = owner
        self.mount = mount

    def has_news(self) -> bool:
        return False

    def log_in(self, nobody: Vault, body: Mapping[str, Any], hint: str) -> LoginToken:
        """Return the token that Vault gives for `body`.

        `hint` goes with a refusal. Raises VaultRefused, VaultUnavailable.
        """
        whose = f"the {self.owner.name}'s login"
        try:
            auth = nobody.write(f"auth/{self.mount}/login", body, method="post").get("auth") or {}
        except OutcomeUnknown as error:
            # a token that was issued and never received expires by itself, and nothing else can have been done
            raise VaultUnavailable(f"Vault did not answer {whose} ({error})") from None
        except VaultRefused as error:
            raise VaultRefused(f"{whose} by {self.name} was refused ({error})", hint=hint) from None
        if not auth.get("client_token"):
            raise VaultRefused(f"{whose} by {self.name} gave no token: Vault may ask for a second factor")
        return LoginToken(
            Secret(auth["client_token"]),
            int(auth.get("lease_duration") or 0),
            bool(auth.get("renewable")),
            is_batch=auth.get("token_type") == "batch",
        )


class AppRole(LoginMethod):
    """Login with a role id and a secret id.

    `wrapped_from` is the path that the wrapping of the secret id has to come from, None where the secret id is not
    wrapped.
    """

    name: ClassVar[str] = "AppRole"

    def __init__(
        self,
        owner: LoginOwner,
        mount: str,
        role_id: FromFile | StaticValue,
        secret_id: FromFile | StaticValue,
        wrapped_from: str | None,
    ) -> None:
        super().__init__(owner, mount)
        self._role_id = role_id
        self._secret_id = secret_id
        self._wrapped_from = wrapped_from
        self._unwrapped: Secret | None = None

    def open(self, nobody: Vault) -> LoginToken:
        secret_id = self._unwrapped or self._secret_id.read()
        if self._wrapped_from is not None and self._unwrapped is None:
            secret_id = self._unwrapped = self._unwrap(nobody, secret_id, self._wrapped_from)
        body = {"role_id": self._role_id.read().reveal(), "secret_id": secret_id.reveal()}
        return self.log_in(
            nobody,
            body,
            "Its role id is wrong, its secret id is spent, expired or destroyed, its address is not one of the "
            f"role's, or its entity is disabled: see {self.owner.page}, and give it another secret id.",
        )

    def _unwrap(self, nobody: Vault, token: Secret, expected: str) -> Secret:
        """Return the secret id from its wrapping, after checking the wrapping.

        Raises SecurityFinding where the wrapping was replaced, or was unwrapped before.
        """
        wrapping = Wrapping(nobody)
        whose = f"the wrapped secret id of the {self.owner.name}"
        found = wrapping.creation_path(token)
        if found is not None and found != expected:
            raise SecurityFinding(
                f"{whose} was made at {found}, not at {expected}: somebody replaced it",
                hint="Nothing was unwrapped. Treat it as an incident: whoever delivered it may have kept the true one.",
            )
        answer = wrapping.unwrap_data(token) if found else None
        if answer is None:
            raise SecurityFinding(
                f"{whose} was unwrapped before, or its time is over: somebody may have it",
                hint=f"Look in the audit log for the unwrap. If that was not this {self.owner.name}'s earlier start, "
                "destroy the secret id by its accessor. Then give this one another wrapping.",
            )
        if not isinstance(answer.get("secret_id"), str):
            raise SecurityFinding(
                f"what the {self.owner.name}'s wrapping token wrapped is not a secret id",
                hint=f"The token is used up. Find out who delivered it, and give the {self.owner.name} a new wrapped "
                "secret id.",
            )
        return Secret(answer["secret_id"])


class Jwt(LoginMethod):
    """Login with a JWT, by the JWT/OIDC or the Kubernetes method.

    The JWT is read again for each login.
    """

    name: ClassVar[str] = "JWT"

    def __init__(self, owner: LoginOwner, mount: str, role: str, jwt: FromFile) -> None:
        super().__init__(owner, mount)
        self._role = role
        self._jwt = jwt

    def open(self, nobody: Vault) -> LoginToken:
        body = {"role": self._role, "jwt": self._jwt.read().reveal()}
        return self.log_in(nobody, body, f"{JWT_HINT} See {self.owner.page}.")


class Certificate(LoginMethod):
    """Login with the TLS client certificate of the connection.

    `role` is a role of the certificate method, None for any that matches.
    """

    name: ClassVar[str] = "TLS certificate"

    def __init__(self, owner: LoginOwner, mount: str, role: str | None) -> None:
        super().__init__(owner, mount)
        self._role = role

    def open(self, nobody: Vault) -> LoginToken:
        hint = "Is the certificate of VAULT_CLIENT_CERT one that the role believes, and not expired?"
        return self.log_in(nobody, {"name": self._role} if self._role else {}, hint)


class GivenToken:
    """The token in JITVAULT_WORKER_TOKEN.

    It is renewed, and never revoked: it belongs to the one who gave it.
    """

    name: ClassVar[str] = "token"
    is_login: ClassVar[bool] = False
    owner = WORKER

    def __init__(self, token: Secret) -> None:
        self._token = token

    def open(self, nobody: Vault) -> LoginToken:
        return described(nobody, self._token, "JITVAULT_WORKER_TOKEN")

    def has_news(self) -> bool:
        return False


class TokenFile:
    """The token in JITVAULT_WORKER_TOKEN_FILE, read again when replaced."""

    name: ClassVar[str] = "token file"
    is_login: ClassVar[bool] = False
    owner = WORKER

    def __init__(self, file: FromFile) -> None:
        self._file = file
        self._seen: tuple[int, ...] | None = None

    def open(self, nobody: Vault) -> LoginToken:
        # taken before the read, so that a replacement during the read counts as news
        stamp = self._stamp()
        session = described(nobody, self._file.read(), self._file.variable)
        self._seen = stamp
        return session

    def has_news(self) -> bool:
        stamp = self._stamp()
        return stamp is not None and stamp != self._seen

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            found = self._file.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def described(vault: Vault, token: Secret, variable: str) -> LoginToken:
    """Return a given token as Vault describes it.

    Raises VaultRefused that names the variable where the token came from.
    """
    try:
        with closing(vault.with_token(token)) as own:
            answer = own.read("auth/token/lookup-self") or {}
    except VaultRejected:
        raise
    except VaultRefused as error:
        raise VaultRefused(
            f"the worker's token in {variable} was refused ({error})",
            hint="Log in as the worker again: it has expired, was revoked, or its entity is disabled. Without "
            f"{variable} (`unset` it) a command signs its request and leaves it to a worker.",
        ) from None
    data = answer["data"]
    return LoginToken(token, int(data.get("ttl") or 0), bool(data.get("renewable")))


def is_over(vault: Vault, token: Secret) -> bool:
    """Return whether Vault does not know the token any more.

    A look-up of the token itself decides: for other paths, Vault answers a dead token and a forbidden path alike.
    """
    with closing(vault.with_token(token)) as own:
        try:
            own.read("auth/token/lookup-self")
        except VaultRefused:
            return True
        except JitvaultError:
            return False
    return False
