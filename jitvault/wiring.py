"""The composition root: from settings to services. Nothing else knows which adapter stands behind a port."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path

from jitvault import shipped
from jitvault.audit.sources import ConfiguredSources
from jitvault.authorize.cedar import CedarAuthorizer
from jitvault.authorize.current import CurrentPolicies
from jitvault.domain.current import CurrentMapping
from jitvault.domain.secret import Secret
from jitvault.domain.template import AccessTemplate, load_templates
from jitvault.errors import InvalidInput, LedgerUnavailable, UsageError, VaultRefused, VaultRejected, WrongState
from jitvault.ledger.database import ledger_exists, opened
from jitvault.ledger.ledger import SqlLedger
from jitvault.notification import Command, Webhook, shared_key
from jitvault.ports.engine import Engine
from jitvault.ports.notices import Messenger
from jitvault.services.context import Person, Worker, never
from jitvault.services.notify import Teller
from jitvault.services.observe import identify
from jitvault.settings import Settings
from jitvault.vault.audithash import AuditHash
from jitvault.vault.client import Connection, Vault, at_active_node
from jitvault.vault.identity import Identity
from jitvault.vault.kv import Documents
from jitvault.vault.leases import Leases
from jitvault.vault.tokens import Tokens
from jitvault.vault.transit import Transit


class SystemClock:
    """`jitvault.ports.clock.Clock`."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def monotonic(self) -> float:
        return time.monotonic()


class Wiring:
    """What one command can reach; each part is made when it is asked for.

    Once `closing` says that this process is to end, nothing new is begun and no answer is waited for at length.
    """

    def __init__(self, settings: Settings, closing: Callable[[], bool] | None = None) -> None:
        self.settings, self.closing = settings, closing
        self.clock = SystemClock()

    def for_thread(self) -> Wiring:
        """The same for another thread: with its own connections to Vault. The rest is shared, the ledger above all."""
        other = Wiring(self.settings, self.closing)
        other.templates, other.engines, other.authorizer = self.templates, self.engines, self.authorizer
        other.ledger = self.ledger
        return other

    @cached_property
    def _connection(self) -> Connection:
        s = self.settings
        return at_active_node(Connection(s.vault_addr, s.vault_namespace, s.vault_cacert, closing=self.closing))

    def vault(self, token: Secret | None) -> Vault:
        return Vault(self._connection, token)

    @cached_property
    def templates(self) -> CurrentMapping[str, AccessTemplate]:
        """The access templates in use. Raises InvalidInput when they do not validate."""
        directory = self.settings.templates
        return CurrentMapping(lambda: load_templates(shipped.files(directory, ".yaml", ".yml", ".json")))

    @cached_property
    def engines(self) -> Mapping[str, Engine]:
        return {point.name: point.load()() for point in entry_points(group="jitvault.engines")}

    @cached_property
    def person(self) -> Person:
        """The caller, who writes and signs under their own entity. Raises UsageError, VaultRefused."""
        token = self.settings.person
        if token is None:
            raise UsageError("no Vault token: VAULT_TOKEN is not set", hint="Log in to Vault (`bao login`) first.")
        vault = self.vault(token)
        me = Tokens(vault).lookup_self()
        if not me.entity_id:
            raise UsageError(
                "this Vault token belongs to no entity, so it cannot sign anything",
                hint="Log in with an auth method (`bao login -method=…`); a root token is nobody.",
            )
        return Person(me=me, signer=Transit(vault), documents=Documents(vault), clock=self.clock)

    def token_role(self, name: str) -> Mapping[str, object] | None:
        """A token role as the caller may see it, or None."""
        return Tokens(self.vault(self.settings.person)).role(name)

    @property
    def has_worker(self) -> bool:
        return self.settings.worker is not None

    @property
    def has_ledger(self) -> bool:
        """Whether there is a ledger to read; whoever has none sees what the worker publishes."""
        return ledger_exists(self.settings.ledger.get_secret_value())

    @cached_property
    def ledger(self) -> SqlLedger:
        """The ledger that is there. Raises LedgerUnavailable."""
        return SqlLedger(opened(self.settings.ledger.get_secret_value(), create=False))

    @cached_property
    def worker(self) -> Worker:
        """Everything under the worker's identity. Raises UsageError, AuditUntrusted, LedgerUnavailable…"""
        identify(self.nameless_worker)
        return self.nameless_worker

    @cached_property
    def nameless_worker(self) -> Worker:
        """The same without a word in a ledger that is there, for when that takes none."""
        s = self.settings
        if s.worker is None:
            raise UsageError("this needs the worker's identity: JITVAULT_WORKER_TOKEN is not set")
        if not s.audit_file:
            raise UsageError("JITVAULT_AUDIT_FILE is not set", hint="Name the file that Vault's audit device writes.")
        vault = self.vault(s.worker)
        documents = Documents(vault)
        if "ledger" not in self.__dict__:
            # only the worker makes one: it is the only writer
            self.ledger = SqlLedger(opened(s.ledger.get_secret_value(), create=True))
        return Worker(
            ledger=self.ledger,
            sources=ConfiguredSources(s.audit_file, namespace=s.vault_namespace or ""),
            authorizer=self.authorizer,
            engines=self.engines,
            templates=self.templates,
            clock=self.clock,
            tokens=Tokens(vault),
            leases=Leases(vault),
            hasher=AuditHash(vault, s.audit_device),
            signer=Transit(vault),
            documents=documents,
            identity=Identity(vault),
            reader=vault,
            installation=self._installation(documents),
            settle_window=s.settle_window,
            rolling_step=s.rolling_step,
            denied_limit=s.denied_limit,
            shared_hosts=s.shared_hosts,
            stopped=self.closing or never,
        )

    @cached_property
    def teller(self) -> Teller:
        """Who tells people outside what happened. Raises UsageError where that is not set up as a whole."""
        s = self.settings
        messengers: list[Messenger] = [Command(s.notify_command)] if s.notify_command else []
        if s.notify_url is not None:
            url = s.notify_url.get_secret_value()
            if not url.startswith(("https://", "http://")):
                raise UsageError("JITVAULT_NOTIFY_URL: expected an http(s) URL")
            if s.notify_key_file is None:
                raise UsageError("JITVAULT_NOTIFY_URL needs JITVAULT_NOTIFY_KEY_FILE: what is told is signed")
            messengers.append(Webhook(url, shared_key(s.notify_key_file)))
        return Teller(self.nameless_worker.ledger, self.clock, messengers, s.notify_timeout)

    @cached_property
    def authorizer(self) -> CurrentPolicies:
        """The policies in use. Raises InvalidInput when they do not validate."""
        return CurrentPolicies(lambda: self.policies(self.settings.policies))

    def policies(self, directory: Path) -> CedarAuthorizer:
        """The policy set in a directory. Raises InvalidInput."""
        policies = {Path(name).name: _text(name, data) for name, data in shipped.files(directory, ".cedar").items()}
        schemas = shipped.files(directory, ".cedarschema")
        if not policies or len(schemas) != 1:
            raise InvalidInput(f"{directory} needs .cedar files and one .cedarschema")
        return CedarAuthorizer(policies, _text(*next(iter(schemas.items()))))

    def _installation(self, documents: Documents) -> str:
        """The installation that `init` made in this Vault; a ledger belongs to one for good."""
        try:
            found = documents.get("installation")
        except VaultRejected:
            raise
        except VaultRefused as error:
            raise VaultRefused(
                f"the worker's token in JITVAULT_WORKER_TOKEN was refused ({error})",
                hint="Log in as the worker again: it has expired, was revoked, or its entity is disabled. Without "
                "JITVAULT_WORKER_TOKEN (`unset` it) a command signs its request and leaves it to a worker.",
            ) from None
        if found is None:
            raise WrongState("this Vault is not provisioned", hint="An administrator runs `jitvault init` first.")
        installation = str(found["id"])
        if self.ledger.installation() is None:
            self.ledger.set_installation(installation)
        if self.ledger.installation() != installation:
            raise LedgerUnavailable(
                "this ledger belongs to another installation of jitvault",
                hint="JITVAULT_LEDGER and VAULT_ADDR do not belong together.",
            )
        return installation


def _text(name: str, data: bytes) -> str:
    """The text of one file. Raises InvalidInput, also for one that is too long to be read whole."""
    if len(data) > shipped.MAX_BYTES:
        raise InvalidInput(f"{name}: expected at most {shipped.MAX_BYTES // 1024} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{name}: expected UTF-8") from None
