"""The settings, read from the environment in this module only.

As in Vault's own CLI, and BAO_* as in OpenBao's; where both are set they have to agree, except for the token:
VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE
VAULT_CACERT, VAULT_CAPATH          the trusted authorities of Vault's certificate
VAULT_CLIENT_CERT, VAULT_CLIENT_KEY the client's own certificate
VAULT_TLS_SERVER_NAME               the name in Vault's certificate, where it is not the address
VAULT_SKIP_VERIFY                   refused

JITVAULT_NODES           more nodes of the cluster, asked for the active node where VAULT_ADDR does not answer

The worker's identity; a command that has it can end access where no worker does. One of these three:
JITVAULT_WORKER_TOKEN    a token
JITVAULT_WORKER_TOKEN_FILE  a file with a token, read again when it changes
JITVAULT_WORKER_LOGIN    approle, jwt, spiffe or cert, with
  JITVAULT_WORKER_LOGIN_MOUNT, _ROLE, _NAMESPACE, and for spiffe _AUDIENCE
  JITVAULT_WORKER_ROLE_ID, JITVAULT_WORKER_SECRET_ID   or a file of each: …_FILE
  JITVAULT_WORKER_SECRET_ID_WRAPPED_FROM               the path that the wrapping of the secret id has to come from
  JITVAULT_WORKER_JWT_FILE

An agent's own login, in place of VAULT_TOKEN:
JITVAULT_AGENT_LOGIN     jwt, spiffe, cert or approle, with
  JITVAULT_AGENT_LOGIN_MOUNT, _ROLE, _NAMESPACE, and for spiffe _AUDIENCE
  JITVAULT_AGENT_JWT_FILE
  JITVAULT_AGENT_ROLE_ID, JITVAULT_AGENT_SECRET_ID   or a file of each: …_FILE
  JITVAULT_AGENT_SECRET_ID_WRAPPED_FROM

JITVAULT_ADMIN_TOKEN     what `init` and `templates check` use; VAULT_TOKEN otherwise
JITVAULT_LEDGER          a path or sqlite:///… for a SQLite file, or postgresql://…, whose password can come from
                         PGPASSWORD, PGPASSFILE and the other places where PostgreSQL's own programs look
JITVAULT_AUDIT_FILE      the file that Vault's audit device writes, or a directory that `audit receive` fills; several
                         of them, as for the nodes of a cluster, with `:` between
JITVAULT_AUDIT_DEVICE    the device's name in Vault
JITVAULT_SETTLE_WINDOW   the server's longest request; a task is sealed after it, and after the further time that a
                         HashiCorp Vault of 1.15 or later needs for its lines
JITVAULT_RETENTION       how long a task's published documents stay in Vault after the task was sealed, or `never`
                         to remove nothing
JITVAULT_ROLLING_STEP    how long a credential lives without the worker, where a task's window is longer
JITVAULT_DENIED_LIMIT    how many denied requests end a task
JITVAULT_PERSON_KEY      the key of Vault entities' metadata that names the person behind an entity: a person then
                         cannot approve what another of their entities requested
JITVAULT_REQUESTS_PER_MINUTE  how many documents of one author a worker looks at in a minute
JITVAULT_OPEN_REQUESTS   how many tasks of one requester may wait for their grant; further requests are refused
JITVAULT_TASKS_PER_SECOND  how many tasks behind one client address may begin to read within a second: `init` limits
                         each path that gives credentials to this many times the template's lease_budget; 0: no limit
JITVAULT_SHARED_HOSTS    networks (CIDRs, `,` between) whose addresses worker and agents have in common
JITVAULT_NOTIFY_COMMAND  a command that gets each notice as JSON on its standard input
JITVAULT_NOTIFY_URL      a webhook that gets each notice by POST, signed with the key in JITVAULT_NOTIFY_KEY_FILE
JITVAULT_NOTIFY_KEY_FILE a file of mode 0600
JITVAULT_NOTIFY_TIMEOUT  how long a command or a webhook may take
JITVAULT_TEMPLATES       a directory of access templates, instead of the shipped ones
JITVAULT_POLICIES        a directory of .cedar files and one .cedarschema, instead of the shipped ones
JITVAULT_SANDBOX_TARGET  set by `jitvault dev` alone: the HOST:PORT of the sandbox's PostgreSQL, where its templates
                         give access, whatever host, port and TLS they name
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jitvault import shipped_files as shipped
from jitvault.documents.paths import REQUEST_LIFE
from jitvault.errors import JitvaultError, UsageError
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.secret import Secret
from jitvault.formats.time_window import DURATION_FORMS, MAX_DURATION, parse_seconds
from jitvault.model.read_limit import TASKS_PER_SECOND

_ADDRESS = r"^https?://[^/\s]+"
_HOST_AND_PORT = r"^[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$"
# Without TOKEN: two tokens may be two people, as in the break-glass page, where VAULT_TOKEN is for jitvault and
# BAO_TOKEN for `bao`.
_SHARED = (
    *("ADDR", "NAMESPACE", "CACERT", "CAPATH", "CLIENT_CERT", "CLIENT_KEY", "TLS_SERVER_NAME"),
    "SKIP_VERIFY",
)
# what a value that fits no pattern should have been
_PATTERNS = {
    "VAULT_ADDR": "expected a URL that begins with http:// or https://, such as https://vault.example:8200",
    "sandbox_target": "expected HOST:PORT, as `jitvault dev` sets it",
    "person_key": "expected the name of a metadata key, at most 64 of A-Z a-z 0-9 _ . -",
}
# how much of a variable's name has to be a setting's
_NEARLY = 0.9
# values that Go parses as false, as Vault's own CLI does
_FALSE = ("", "0", "f", "false")
AGENT_LOGIN = "the login of JITVAULT_AGENT_LOGIN"
Way = Literal["approle", "jwt", "spiffe", "cert"]
KUBERNETES_JWT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    # the value is not repeated: it may be a secret in the wrong variable
    try:
        found = timedelta(seconds=parse_seconds(value))
    except JitvaultError:
        raise ValueError(f"expected {DURATION_FORMS}") from None
    if not timedelta(0) < found <= MAX_DURATION or found % timedelta(seconds=1):
        raise ValueError(f"expected whole seconds, more than zero and at most {MAX_DURATION.days}d")
    return found


def _retention(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "never":
        return None
    days = re.fullmatch(r"([0-9]{1,4})d", value)
    if days is None or timedelta(days=int(days[1])) < REQUEST_LIFE:
        # After a ledger restore only Vault's documents say what became of a request, and a request can begin something
        # for REQUEST_LIFE.
        raise ValueError(f"expected whole days such as 30d, at least {REQUEST_LIFE.days}d, or never")
    return timedelta(days=int(days[1]))


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


def _addresses(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = tuple(part.strip() for part in value.split(",") if part.strip())
    if not all(re.match(_ADDRESS, address) for address in found):
        raise ValueError("expected URLs such as https://vault-2.example:8200, with commas between")
    return found


def _namespace(value: object) -> object:
    """Return None for the root namespace.

    The root namespace has two more names, and its lines name none.
    """
    return None if isinstance(value, str) and value.strip("/") in ("", "root") else value


def _either(name: str) -> AliasChoices:
    return AliasChoices(f"VAULT_{name}", f"BAO_{name}")


def _default_ledger() -> SecretStr:
    return SecretStr(str(Path.home() / ".local" / "share" / "jitvault" / "ledger.db"))


class Settings(BaseSettings):
    """The settings, read once at the start of a command."""

    model_config = SettingsConfigDict(env_prefix="JITVAULT_", frozen=True, env_ignore_empty=True)

    vault_addr: str = Field("https://127.0.0.1:8200", validation_alias=_either("ADDR"), pattern=_ADDRESS)
    vault_token: SecretStr | None = Field(None, validation_alias=_either("TOKEN"))
    vault_namespace: Annotated[str | None, BeforeValidator(_namespace)] = Field(
        None, validation_alias=_either("NAMESPACE")
    )
    vault_cacert: Path | None = Field(None, validation_alias=_either("CACERT"))
    vault_capath: Path | None = Field(None, validation_alias=_either("CAPATH"))
    vault_client_cert: Path | None = Field(None, validation_alias=_either("CLIENT_CERT"))
    vault_client_key: Path | None = Field(None, validation_alias=_either("CLIENT_KEY"))
    vault_tls_server_name: str | None = Field(None, validation_alias=_either("TLS_SERVER_NAME"))
    nodes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_addresses)] = ()
    worker_token: SecretStr | None = None
    worker_token_file: Path | None = None
    worker_login: Way | None = None
    worker_login_mount: str | None = None
    worker_login_role: str | None = None
    worker_login_namespace: str | None = None
    worker_login_audience: str | None = None
    worker_role_id: SecretStr | None = None
    worker_role_id_file: Path | None = None
    worker_secret_id: SecretStr | None = None
    worker_secret_id_file: Path | None = None
    worker_secret_id_wrapped_from: str | None = None
    worker_jwt_file: Path = KUBERNETES_JWT
    agent_login: Way | None = None
    agent_login_mount: str | None = None
    agent_login_role: str | None = None
    agent_login_namespace: str | None = None
    agent_login_audience: str | None = None
    agent_role_id: SecretStr | None = None
    agent_role_id_file: Path | None = None
    agent_secret_id: SecretStr | None = None
    agent_secret_id_file: Path | None = None
    agent_secret_id_wrapped_from: str | None = None
    agent_jwt_file: Path = KUBERNETES_JWT
    admin_token: SecretStr | None = None
    # secret, because the URL can hold a password
    ledger: SecretStr = Field(default_factory=_default_ledger)
    audit_file: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_paths)] = ()
    audit_device: str = "jitvault"
    settle_window: Annotated[timedelta, BeforeValidator(_duration)] = timedelta(seconds=90)
    retention: Annotated[timedelta | None, BeforeValidator(_retention)] = timedelta(days=30)
    rolling_step: Annotated[timedelta, BeforeValidator(_duration)] = timedelta(minutes=2)
    denied_limit: int = Field(1, ge=1, le=400)
    person_key: str = Field("", pattern=r"^[A-Za-z0-9_.-]{0,64}$")
    requests_per_minute: int = Field(1200, ge=1)
    open_requests: int = Field(5000, ge=1)
    tasks_per_second: int = Field(TASKS_PER_SECOND, ge=0, le=100_000)
    shared_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_networks)] = ()
    notify_command: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ()
    notify_url: SecretStr | None = None
    notify_key_file: Path | None = None
    notify_timeout: Annotated[timedelta, BeforeValidator(_duration)] = timedelta(seconds=5)
    templates: Path = Field(default_factory=shipped.templates_dir)
    policies: Path = Field(default_factory=lambda: shipped.policies_dir() / "cedar")
    sandbox_target: str | None = Field(None, pattern=_HOST_AND_PORT)

    @property
    def person(self) -> Secret | None:
        """The caller's own token.

        VAULT_TOKEN, or the token that `bao login` left in the home directory.
        """
        if self.vault_token:
            return Secret(self.vault_token.get_secret_value())
        try:
            from_login = (Path.home() / ".vault-token").read_text().strip()
        except OSError:
            return None
        return Secret(from_login) if from_login else None

    @property
    def person_source(self) -> str:
        """Where the caller's own token was found."""
        if self.agent_login and not self.vault_token:
            return AGENT_LOGIN
        return spelled("TOKEN") if self.vault_token else "~/.vault-token"

    @property
    def has_worker(self) -> bool:
        """Whether the worker's identity is configured here."""
        return any((self.worker_token, self.worker_token_file, self.worker_login))

    @property
    def has_default_address(self) -> bool:
        """Whether Vault's address is set by nobody."""
        return "vault_addr" not in self.model_fields_set

    @property
    def lacks_policies(self) -> bool:
        """Whether this is an agent's host without the worker's policies.

        Those that ship are then not what decides.
        """
        return self.agent_login is not None and not self.has_worker and "policies" not in self.model_fields_set

    @property
    def admin(self) -> Secret | None:
        """The administrator's token: JITVAULT_ADMIN_TOKEN, or the caller's own."""
        return Secret(self.admin_token.get_secret_value()) if self.admin_token else self.person


def load() -> Settings:
    """Return the settings of this process.

    Raises UsageError that names the variable and not its value.
    """
    _check_shared(os.environ)
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]).upper()
        if name.startswith("VAULT_"):
            name = spelled(name.removeprefix("VAULT_"))
        variable = name if name.startswith(("VAULT_", "BAO_", "JITVAULT_")) else f"JITVAULT_{name}"
        reason = _in_words(str(first["loc"][0]), dict(first), os.environ.get(variable, ""))
        raise UsageError(f"{variable}: {reason}", hint=f"Correct {variable} or unset it.") from None


def misspelt(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that are nearly a setting's name, each with that name."""
    known = variables()
    own = [name for name in environment if name.startswith("JITVAULT_") and name not in known]
    found = {name: difflib.get_close_matches(name, known, n=1, cutoff=_NEARLY) for name in own}
    return {name: close[0] for name, close in found.items() if close}


def _in_words(field: str, error: Mapping[str, Any], value: str) -> str:
    """Return why a setting's value is wrong; the value is not repeated."""
    kind, limits = error["type"], error.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return _PATTERNS[field]
    if kind == "literal_error":
        allowed = str(limits["expected"])
        return f"expected {allowed}" + nearest(value, re.findall(r"'([^']+)'", allowed))
    if kind == "int_parsing":
        return "expected a whole number"
    if kind == "greater_than_equal":
        return f"expected {limits['ge']} or more"
    if kind == "less_than_equal":
        return f"expected {limits['le']} or less"
    return str(error["msg"]).removeprefix("Value error, ")


def spelled(name: str) -> str:
    """Return VAULT_name or BAO_name, whichever spelling was used."""
    return f"BAO_{name}" if not os.environ.get(f"VAULT_{name}") else f"VAULT_{name}"


def variables() -> tuple[str, ...]:
    """Return the names of all environment variables read here, sorted."""
    prefix = str(Settings.model_config["env_prefix"])
    shared = {f"{spelling}_{name}" for name in (*_SHARED, "TOKEN") for spelling in ("VAULT", "BAO")}
    own = {f"{prefix}{name.upper()}" for name in Settings.model_fields if not name.startswith("vault_")}
    return tuple(sorted(shared | own))


def _check_shared(environment: Mapping[str, str]) -> None:
    """Check settings that Vault's and OpenBao's CLI share. Raises UsageError.

    Both spellings have to agree, and certificates have to be verified: without that, an attacker could stand in the
    connection.
    """
    for name in _SHARED:
        vaults, baos = environment.get(f"VAULT_{name}"), environment.get(f"BAO_{name}")
        if vaults and baos and vaults != baos:
            # Vault's CLI would use the one and OpenBao's the other: it is unknown which one was meant
            raise UsageError(
                f"VAULT_{name} and BAO_{name} are both set, and differ", hint="Unset the one that is not meant."
            )
    for variable in ("VAULT_SKIP_VERIFY", "BAO_SKIP_VERIFY"):
        if environment.get(variable, "").lower() not in _FALSE:
            raise UsageError(
                f"{variable}: jitvault always verifies Vault's certificate, since every proof rests on Vault's answers",
                hint=f"Unset {variable}, and set VAULT_CACERT to the CA of Vault's certificate.",
            )
