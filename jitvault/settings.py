"""The settings: the only place where the environment becomes settings.

VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT   as Vault's own CLI; BAO_* as OpenBao's
JITVAULT_WORKER_TOKEN    the worker's identity: a command that has it does the acts itself
JITVAULT_ADMIN_TOKEN     what `init` and `templates check` use; VAULT_TOKEN otherwise
JITVAULT_LEDGER          a path or sqlite:///… for a SQLite file, or postgresql://…, whose password can be left to
                         PGPASSWORD, PGPASSFILE and what else PostgreSQL's own programs look at
JITVAULT_AUDIT_FILE      the file that Vault's audit device writes, or a directory that `audit receive` fills; several
                         of them, as for the nodes of a cluster, with `:` between
JITVAULT_AUDIT_DEVICE    the device's name in Vault
JITVAULT_SETTLE_WINDOW   the server's longest request; a task is sealed after it
JITVAULT_ROLLING_STEP    how long a credential lives without the worker, where a task's window is longer
JITVAULT_DENIED_LIMIT    after so many denied requests a task is ended
JITVAULT_SHARED_HOSTS    networks (CIDRs, `,` between) whose addresses worker and agents have in common
JITVAULT_NOTIFY_COMMAND  a command that gets each notice as JSON on its standard input
JITVAULT_NOTIFY_URL      a webhook that gets it by POST, signed with the key in JITVAULT_NOTIFY_KEY_FILE
JITVAULT_NOTIFY_KEY_FILE a file of mode 0600
JITVAULT_NOTIFY_TIMEOUT  how long one of them may take
JITVAULT_TEMPLATES       a directory of access templates, instead of the shipped ones
JITVAULT_POLICIES        a directory of .cedar files and one .cedarschema, instead of the shipped ones
"""

from __future__ import annotations

import os
import shlex
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jitvault import shipped
from jitvault.domain.secret import Secret
from jitvault.domain.windows import parse_duration
from jitvault.errors import JitvaultError, UsageError


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    # what is wrong with it is not repeated: it may be a secret in the wrong variable
    try:
        return parse_duration(value)
    except JitvaultError:
        raise ValueError("expected a duration such as 90s or 2m") from None


def _paths(value: object) -> object:
    return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value


def _words(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return tuple(shlex.split(value))
    except ValueError:
        raise ValueError("expected a command as a shell would take it apart") from None


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return tuple(str(ip_network(part.strip())) for part in value.split(",") if part.strip())
    except ValueError:
        raise ValueError("expected networks such as 10.0.0.0/8, with commas between") from None


def _either(name: str) -> AliasChoices:
    return AliasChoices(f"VAULT_{name}", f"BAO_{name}")


def _default_ledger() -> SecretStr:
    return SecretStr(str(Path.home() / ".local" / "share" / "jitvault" / "ledger.db"))


class Settings(BaseSettings):
    """Read once, at the start of a command."""

    model_config = SettingsConfigDict(env_prefix="JITVAULT_", frozen=True, env_ignore_empty=True)

    vault_addr: str = Field("https://127.0.0.1:8200", validation_alias=_either("ADDR"), pattern=r"^https?://[^/\s]+")
    vault_token: SecretStr | None = Field(None, validation_alias=_either("TOKEN"))
    vault_namespace: str | None = Field(None, validation_alias=_either("NAMESPACE"))
    vault_cacert: str | None = Field(None, validation_alias=_either("CACERT"))
    worker_token: SecretStr | None = None
    admin_token: SecretStr | None = None
    # it can hold a password
    ledger: SecretStr = Field(default_factory=_default_ledger)
    audit_file: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_paths)] = ()
    audit_device: str = "jitvault"
    settle_window: Annotated[timedelta, BeforeValidator(_duration)] = timedelta(seconds=90)
    rolling_step: Annotated[timedelta, BeforeValidator(_duration)] = timedelta(minutes=2)
    denied_limit: int = Field(1, ge=1)
    shared_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_networks)] = ()
    notify_command: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ()
    notify_url: SecretStr | None = None
    notify_key_file: Path | None = None
    notify_timeout: Annotated[timedelta, BeforeValidator(_duration)] = timedelta(seconds=5)
    templates: Path = Field(default_factory=shipped.templates_dir)
    policies: Path = Field(default_factory=lambda: shipped.policies_dir() / "cedar")

    @property
    def person(self) -> Secret | None:
        """The caller's own token: VAULT_TOKEN, or what `bao login` left in the home directory."""
        if self.vault_token:
            return Secret(self.vault_token.get_secret_value())
        try:
            left = (Path.home() / ".vault-token").read_text().strip()
        except OSError:
            return None
        return Secret(left) if left else None

    @property
    def worker(self) -> Secret | None:
        return Secret(self.worker_token.get_secret_value()) if self.worker_token else None

    @property
    def admin(self) -> Secret | None:
        return Secret(self.admin_token.get_secret_value()) if self.admin_token else self.person


def load() -> Settings:
    """The settings of this process. Raises UsageError that names the variable and not its value."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]).upper()
        if name.startswith("VAULT_") and name not in os.environ:
            # of the two spellings, the one that was used
            name = name.replace("VAULT_", "BAO_", 1)
        variable = name if name.startswith(("VAULT_", "BAO_", "JITVAULT_")) else f"JITVAULT_{name}"
        said = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{variable}: {said}", hint=f"Correct {variable} or unset it.") from None
