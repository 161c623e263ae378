"""The composition root: builds everything from the settings.

No other module knows which adapter implements an interface. Modules that take long to import are imported where they
are needed: unwrapping and signing need no database, policy engine or reader of audit files.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from jitvault import shipped_files as shipped
from jitvault.documents.paths import INSTALLATION
from jitvault.errors import (
    ForeignLedger,
    InvalidInput,
    JitvaultError,
    LedgerUnavailable,
    MissingLedger,
    UsageError,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
    WrongState,
)
from jitvault.formats.secret import Secret
from jitvault.formats.server_product import commands_of
from jitvault.ledger import ownership
from jitvault.model import rules_generation as generation
from jitvault.vault.active_node import ActiveNode
from jitvault.vault.client import Connection, Vault
from jitvault.vault.documents import Documents
from jitvault.vault.server import NamespaceGuard, ServerRelease, VaultTime
from jitvault.vault.tls import Tls
from jitvault.vault.tokens import Tokens

if TYPE_CHECKING:
    from jitvault.context import Person, WorkerContext
    from jitvault.engines.interface import Engine
    from jitvault.formats.reloadable import CurrentMapping
    from jitvault.formats.server_product import Product
    from jitvault.ledger.kept_tasks import KeptTasks
    from jitvault.ledger.ledger import Ledger
    from jitvault.model.template import AccessTemplate
    from jitvault.notices.interface import Messenger
    from jitvault.notices.notifier import Notifier
    from jitvault.policy.cedar import CedarAuthorizer, CurrentPolicies
    from jitvault.settings import Settings
    from jitvault.vault import interface
    from jitvault.vault.facts import Facts
    from jitvault.vault.login import Login
    from jitvault.vault.transit import KnownHashes


def _refused_token(source: str) -> str:
    """Return the hint for a caller whose token Vault refused."""
    from jitvault.settings import AGENT_LOGIN

    if source == AGENT_LOGIN:
        return "Does the role of this login give the policy jitvault-agent? `jitvault agents add` sets it up."
    hint = "Check whether it expired (`bao token lookup`), and log in again (`bao login`)."
    if source.startswith("~"):
        return hint
    return f"{hint} {source} is set, so the token that `bao login` leaves in ~/.vault-token is not used."


class SystemClock:
    """This host's clock, which also knows Vault's.

    `now` is always this host's time. `agreed` is Vault's where the two differ by more than is tolerated.
    """

    def __init__(self) -> None:
        self.vaults = VaultTime()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def agreed(self) -> datetime:
        """Return the time to act by: this host's, corrected by Vault's."""
        return self.vaults.agreed(self.now(), self.monotonic())

    def behind(self) -> timedelta:
        """Return by how much this host's clock is behind Vault's at least."""
        return self.vaults.behind(self.now(), self.monotonic())

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def monotonic(self) -> float:
        return time.monotonic()


class Wiring:
    """What one command can reach; each part is built on first use.

    Once `closing` returns true because this process is to end, no request is begun, and no answer is waited for at
    length.
    """

    def __init__(self, settings: Settings, closing: Callable[[], bool] | None = None) -> None:
        self.settings = settings
        self.closing = closing
        self.clock = SystemClock()
        self.unverified = ""
        """Why Vault could not be asked whose the ledger is; empty where it was asked, or nobody needed to know."""

    def for_thread(self, answer_s: int | None = None) -> Wiring:
        """Return a copy for another thread, with its own connections to Vault.

        They wait `answer_s` seconds for an answer, where that is given. Everything else is shared, above all the login
        and the ledger.
        """
        other = Wiring(self.settings, self.closing)
        other.templates = self.templates
        other.engines = self.engines
        other.authorizer = self.authorizer
        other.unchecked_ledger = self.unchecked_ledger
        other.clock = self.clock
        other._connection = _waiting(self._connection, answer_s)
        other._at_root = _waiting(self._at_root, answer_s)
        other.release = self.release
        other.facts = self.facts
        other.kept = self.kept
        other.hashes = self.hashes
        if self.has_worker:
            other.login = self.login
        other.person_token = self.person_token
        return other

    def close(self) -> None:
        """Revoke this process's logins and close the ledger, where used."""
        for name in ("login", "person_token"):
            held = self.__dict__.get(name)
            if held is not None and not isinstance(held, Secret):
                held.close()
        for engine in self.__dict__.get("engines", {}).values():
            if engine.probe is not None:
                engine.probe.close()
        if "unchecked_ledger" in self.__dict__:
            # Close now: otherwise SQLite's WAL file stays until garbage collection.
            self.unchecked_ledger.close()

    @property
    def given_node(self) -> Connection:
        """The node that VAULT_ADDR names, active or not."""
        s = self.settings
        tls = Tls(s.vault_cacert, s.vault_capath, s.vault_client_cert, s.vault_client_key, s.vault_tls_server_name)
        return Connection(s.vault_addr.rstrip("/"), s.vault_namespace, tls, closing=self.closing)

    @property
    def vault_command(self) -> str:
        """The program that hints name, `bao` or `vault`.

        By the product that answers, and by what is installed here.
        """
        return self.commands()[0]

    def commands(self, *, ask: bool = True) -> tuple[str, ...]:
        """Return the programs that a hint names, `bao` or `vault` or both.

        It goes by the product that answers, where the server is to be asked; else by the one that the ledger was used
        with; else by what is installed here.
        """
        release = self.release() if ask else None
        return commands_of(release.product if release else self._product_of_ledger(), shutil.which)

    def _product_of_ledger(self) -> Product | None:
        """Return the product that the ledger was last used with.

        None where there is no ledger, or it cannot be read.
        """
        try:
            return self.unchecked_ledger.product() if self.has_ledger else None
        except LedgerUnavailable:
            return None

    @cached_property
    def _at_root(self) -> Connection:
        node = ActiveNode(self.given_node, self.settings.nodes)
        return replace(self.given_node, namespace=None, node=node, hears=self.clock.vaults.hear)

    @cached_property
    def _connection(self) -> Connection:
        from jitvault.settings import spelled

        s = self.settings
        guard = None
        if s.vault_namespace:
            guard = NamespaceGuard(self.release, spelled("NAMESPACE"), s.vault_namespace)
        elif self._login_namespace:
            guard = NamespaceGuard(self.release, "JITVAULT_WORKER_LOGIN_NAMESPACE", self._login_namespace)
        return replace(self._at_root, namespace=s.vault_namespace, check=guard)

    @property
    def _login_namespace(self) -> str | None:
        """The namespace where the worker logs in, None for the root namespace."""
        namespace = self.settings.worker_login_namespace or self.settings.vault_namespace
        return None if namespace in ("root", "/") else namespace

    @cached_property
    def release(self) -> ServerRelease:
        """The server's product and version, looked up again from time to time."""
        return ServerRelease(self._at_root)

    @cached_property
    def facts(self) -> Facts:
        """What the worker's turns have read, shared by all threads."""
        from jitvault.vault.facts import Facts

        def may_keep() -> bool:
            release = self.release()
            return release is not None and not release.is_replica

        return Facts(may_keep=may_keep)

    @cached_property
    def kept(self) -> KeptTasks:
        """The held tasks that are renewed from memory, shared by all threads."""
        from jitvault.ledger.kept_tasks import KeptTasks

        return KeptTasks()

    @cached_property
    def hashes(self) -> KnownHashes:
        """The HMACs that the worker has asked for, shared by all threads."""
        from jitvault.vault.transit import KnownHashes

        return KnownHashes()

    def vault(self, token: Secret | Login | None) -> Vault:
        """Return a client of Vault with this token."""
        return Vault(self._connection, token)

    @cached_property
    def login(self) -> Login:
        """The worker's login, shared by all threads.

        Raises UsageError.
        """
        from jitvault.login import worker_method
        from jitvault.vault.login import Login

        return Login(self._connection, worker_method(self.settings), namespace=self._login_namespace)

    @cached_property
    def person_token(self) -> Secret | Login | None:
        """What the caller authenticates with.

        That is the login that JITVAULT_AGENT_LOGIN names, or a token; None without either. Raises UsageError where both
        are set.
        """
        if self.settings.agent_login is None:
            return self.settings.person
        from jitvault.login import agent_method
        from jitvault.vault.login import Login

        namespace = self.settings.agent_login_namespace or self.settings.vault_namespace
        own = None if namespace in ("root", "/") else namespace
        return Login(self._connection, agent_method(self.settings), namespace=own)

    @cached_property
    def templates(self) -> CurrentMapping[str, AccessTemplate]:
        """The access templates in use.

        On an agent's host they are those that the worker published, unless JITVAULT_TEMPLATES names others. Raises
        InvalidInput when they do not validate.
        """
        from jitvault.formats.reloadable import CurrentMapping
        from jitvault.model.template import load_templates

        def load() -> Mapping[str, AccessTemplate]:
            if self.settings.agent_login is not None and "templates" not in self.settings.model_fields_set:
                from jitvault.vault.published_templates import read_templates

                if (published := read_templates(self.person.documents)) is not None:
                    return published
            found = load_templates(shipped.files(self.settings.templates, ".yaml", ".yml", ".json"))
            if self.settings.sandbox_target is None:
                return found
            from jitvault.sandbox.connections import connected_to

            return connected_to(self.settings.sandbox_target, found)

        return CurrentMapping(load)

    @cached_property
    def engines(self) -> Mapping[str, Engine]:
        """The installed secrets engines by name, from their entry points."""
        from jitvault.engines.installed import installed_engines

        return installed_engines()

    @cached_property
    def person(self) -> Person:
        """The caller, who writes and signs under their own entity.

        Raises UsageError, VaultRefused.
        """
        from jitvault.context import Person
        from jitvault.vault.transit import Transit

        token = self.person_token
        if token is None:
            raise UsageError(
                "no Vault token: VAULT_TOKEN is not set",
                hint="Log in to Vault (`bao login`) first. An agent's own login is set by JITVAULT_AGENT_LOGIN.",
            )
        vault = self.vault(token)
        me = self._own_facts(token)
        if not me.entity_id:
            raise UsageError(
                "this Vault token belongs to no entity, so it cannot sign anything",
                hint="Log in with an auth method (`bao login -method=…`); a root token has no entity.",
            )
        return Person(me=me, signer=Transit(vault), documents=Documents(vault), clock=self.clock)

    @cached_property
    def caller(self) -> interface.TokenFacts:
        """Facts about the caller's own token, or without one the worker's.

        Raises VaultRefused for a token that Vault does not know.
        """
        token = self.person_token
        return Tokens(self.vault(self.login)).lookup_self() if token is None else self._own_facts(token)

    def _own_facts(self, token: Secret | Login) -> interface.TokenFacts:
        """Return facts about the caller's own token.

        Raises VaultRefused for one that Vault does not know, which says where the token was found, and what logging in
        raises.
        """
        if not isinstance(token, Secret):
            token.token()
        try:
            return Tokens(self.vault(token)).lookup_self()
        except VaultRejected:
            raise
        except VaultRefused as error:
            raise VaultRefused(
                f"{error}; the token is that of {self.settings.person_source}",
                method=error.method,
                path=error.path,
                hint=_refused_token(self.settings.person_source),
            ) from None

    def token_role(self, name: str) -> Mapping[str, object] | None:
        """Return a token role as the caller may read it, None where they may not."""
        return Tokens(self.vault(self.person_token)).role(name)

    @property
    def has_worker(self) -> bool:
        """Whether the worker's identity is configured here."""
        return self.settings.has_worker

    @property
    def login_if_any(self) -> Login | None:
        """The worker's login, None where it is not configured here."""
        return self.login if self.has_worker else None

    @property
    def has_ledger(self) -> bool:
        """Whether there is a ledger to read.

        A caller without one sees what the worker publishes.
        """
        from jitvault.ledger.storage.location import ledger_exists

        return ledger_exists(self.settings.ledger.get_secret_value())

    @cached_property
    def ledger(self) -> Ledger:
        """The existing ledger, which belongs to this Vault's installation.

        Where Vault cannot be asked, `unverified` says why. Raises LedgerUnavailable: MissingLedger for one that is not
        there, UnusedLedger for one that belongs to no installation yet, ForeignLedger for one of another installation.
        """
        found = self.unchecked_ledger
        if found.installation() is None:
            raise ownership.unused(self.ledger_place)
        self._check_owner(found)
        return found

    @cached_property
    def unchecked_ledger(self) -> Ledger:
        """The existing ledger, whomever it belongs to. Raises LedgerUnavailable."""
        return self._opened(create=False)

    @property
    def ledger_place(self) -> str:
        """The ledger's place as messages name it."""
        from jitvault.ledger.storage.location import shown

        return shown(self.settings.ledger.get_secret_value())

    def make_ledger(self) -> bool:
        """Make the ledger where there is none; return whether it was made.

        Only a worker does this: a command that named the wrong place would find an empty ledger there.
        """
        is_new = not self.has_ledger
        self.unchecked_ledger = self._opened(create=True)
        return is_new

    def _opened(self, *, create: bool) -> Ledger:
        from jitvault.ledger.ledger import Ledger
        from jitvault.ledger.storage.database import opened

        try:
            return Ledger(opened(self.settings.ledger.get_secret_value(), create=create))
        except MissingLedger as error:
            raise ownership.missing(error, is_default="ledger" not in self.settings.model_fields_set) from None

    def check_owner(self, ledger: Ledger) -> None:
        """Raise ForeignLedger for a ledger of another installation than this Vault's.

        A ledger that no worker has used yet passes.
        """
        if ledger.installation() is not None:
            self._check_owner(ledger)

    def _check_owner(self, ledger: Ledger) -> None:
        """Compare the ledger's installation with Vault's.

        Raises ForeignLedger. Sets `unverified` where no identity here may ask Vault.
        """
        try:
            here = self._read_installation()
        except (UsageError, VaultRefused, VaultUnavailable) as error:
            self.unverified = str(error)
            return
        if here != ledger.installation():
            raise self._foreign(ledger, provisioned=here is not None)

    def _foreign(self, ledger: Ledger, *, provisioned: bool) -> ForeignLedger:
        release = self.release()
        product = release.product if release else None
        address = self.settings.vault_addr
        return ownership.foreign(ledger, self.ledger_place, address, provisioned=provisioned, product=product)

    def _read_installation(self) -> str | None:
        """Return the id of this Vault's installation, None where it has none.

        It is read with the first identity here that may. Raises UsageError where there is none, VaultRefused and
        VaultUnavailable.
        """
        refusal: JitvaultError = UsageError("there is no Vault token")
        for token in self.identities():
            try:
                found = Documents(self.vault(token)).get(INSTALLATION)
            except VaultRejected as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return None
                refusal = error
            except VaultRefused as error:
                refusal = error
            else:
                return str(found["id"]) if found and "id" in found else None
        raise refusal

    def identities(self) -> Iterator[Secret | Login]:
        """Yield the identities of this process, the worker's last.

        A login costs most.
        """
        person = self.person_token
        if person is not None:
            yield person
        if self.settings.admin_token is not None and self.settings.admin is not None:
            yield self.settings.admin
        if self.has_worker:
            yield self.login

    @property
    def documents(self) -> interface.Documents:
        """Return Vault's documents as the caller may read them.

        Where the caller has no token, the worker's identity reads them.

        Raises UsageError where there is neither.
        """
        if self.person_token is None and self.has_worker:
            return Documents(self.vault(self.login))
        return self.person.documents

    @cached_property
    def worker(self) -> WorkerContext:
        """Everything that acts under the worker's identity.

        Registers the worker's session in the ledger. Raises UsageError, AuditUntrusted, LedgerUnavailable and others.
        """
        from jitvault.stream.reading import register_session
        from jitvault.vault.transit import AuditHash

        unregistered = self.worker_without_session
        device = self.settings.audit_device
        unregistered.ledger.raise_generation(generation.GENERATION)
        self.login.introduce(
            lambda vault: register_session(
                replace(unregistered, tokens=Tokens(vault), hasher=AuditHash(vault, device, self.hashes))
            )
        )
        return unregistered

    @cached_property
    def worker_without_session(self) -> WorkerContext:
        """Like `worker`, but without registering a session.

        For an existing ledger that is full or read-only.
        """
        from jitvault.audit.files.configured import ConfiguredSources
        from jitvault.context import RunMode, WorkerContext, never
        from jitvault.vault.identity import Identity
        from jitvault.vault.leases import Leases
        from jitvault.vault.transit import AuditHash, Transit
        from jitvault.vault.worker_client import WorkerVault

        s = self.settings
        vault = WorkerVault(self._connection, self.login, self.facts)
        if not s.audit_file:
            raise UsageError("JITVAULT_AUDIT_FILE is not set", hint="Name the file that Vault's audit device writes.")
        documents = Documents(vault)
        installation = self._installation(documents)
        # bound to this installation by now
        self.ledger = self.unchecked_ledger
        return WorkerContext(
            ledger=self.ledger,
            facts=self.facts,
            kept=self.kept,
            sources=ConfiguredSources(s.audit_file, namespace=s.vault_namespace or ""),
            authorizer=self.authorizer,
            engines=self.engines,
            templates=self.templates,
            clock=self.clock,
            tokens=Tokens(vault),
            leases=Leases(vault),
            hasher=AuditHash(vault, s.audit_device, self.hashes),
            signer=Transit(vault),
            documents=documents,
            identity=Identity(vault, s.person_key),
            tells_persons=bool(s.person_key),
            reader=vault,
            installation=installation,
            longest_request=s.settle_window,
            release=self.release,
            rolling_step=s.rolling_step,
            denied_limit=s.denied_limit,
            shared_hosts=s.shared_hosts,
            open_requests=s.open_requests,
            mode=RunMode(stopped=self.closing or never),
        )

    @cached_property
    def teller(self) -> Notifier:
        """The notifier of people.

        Raises UsageError where its settings are incomplete.
        """
        from jitvault.http.connection import NotSent, ServerAddress
        from jitvault.notices.channels import Command, Webhook, shared_key
        from jitvault.notices.notifier import Notifier

        s = self.settings
        messengers: list[Messenger] = [Command(s.notify_command)] if s.notify_command else []
        if s.notify_url is not None:
            url = s.notify_url.get_secret_value()
            try:
                ServerAddress.of(url)
            except NotSent:
                raise UsageError("JITVAULT_NOTIFY_URL: expected http(s)://HOST[:PORT]/PATH") from None
            if s.notify_key_file is None:
                raise UsageError("JITVAULT_NOTIFY_URL needs JITVAULT_NOTIFY_KEY_FILE: notices are signed")
            messengers.append(Webhook(url, shared_key(s.notify_key_file)))
        return Notifier(self.worker_without_session.ledger, self.clock, messengers, s.notify_timeout)

    @cached_property
    def authorizer(self) -> CurrentPolicies:
        """The policies in use. Raises InvalidInput when they do not validate."""
        from jitvault.policy.cedar import CurrentPolicies

        return CurrentPolicies(lambda: self.policies(self.settings.policies))

    def policies(self, directory: Path) -> CedarAuthorizer:
        """The policy set in a directory. Raises InvalidInput."""
        policies = {Path(name).name: _text(name, data) for name, data in shipped.files(directory, ".cedar").items()}
        schemas = shipped.files(directory, ".cedarschema")
        if not policies or len(schemas) != 1:
            raise InvalidInput(
                f"{directory} needs .cedar files and one .cedarschema; it has {len(policies)} and {len(schemas)}",
                hint=f"Copy the schema that ships: {shipped.policies_dir() / 'cedar' / 'jitvault.cedarschema'}. A set "
                "of your own needs no other.",
            )
        return _authorizer(tuple(sorted(policies.items())), _text(*next(iter(schemas.items()))))

    def _installation(self, documents: Documents) -> str:
        """Return the id of the installation that `init` made in this Vault.

        A ledger belongs to one installation for good, and a new one is bound here. Raises WrongState where there is
        none, ForeignLedger where the ledger belongs to another one.
        """
        ledger = self.unchecked_ledger
        found = documents.get(INSTALLATION)
        if found is None:
            raise WrongState("this Vault is not provisioned", hint="An administrator runs `jitvault init` first.")
        installation = str(found["id"])
        if ledger.installation() is None:
            self._begin_ledger(ledger, documents, installation)
        if ledger.installation() != installation:
            raise self._foreign(ledger, provisioned=True)
        return installation

    def _begin_ledger(self, ledger: Ledger, documents: Documents, installation: str) -> None:
        """Bind a new ledger to the installation.

        Where Vault knows of open tasks, another ledger was lost: nothing is granted until it was rebuilt.
        """
        from jitvault.lifecycle.record.missing_tasks import may_be_open, missing_tasks

        if any(map(may_be_open, missing_tasks(documents, ledger, installation))):
            # before the ledger is bound: whoever dies in between leaves it for the next one to look
            ledger.begin_recovery(self.clock.agreed())
        ledger.set_installation(installation)


def _waiting(connection: Connection, answer_s: int | None) -> Connection:
    return connection if answer_s is None else replace(connection, timeout_s=answer_s)


def _text(name: str, data: bytes) -> str:
    """Return the text of one file.

    Raises InvalidInput, also for a file that is too long.
    """
    if len(data) > shipped.MAX_BYTES:
        raise InvalidInput(f"{name}: expected at most {shipped.MAX_BYTES // 1024} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{name}: expected UTF-8") from None


@lru_cache(maxsize=8)
def _authorizer(policies: tuple[tuple[str, str], ...], schema: str) -> CedarAuthorizer:
    """Return the authorizer of these texts, cached.

    The check for changed files runs often, and identical texts are parsed and validated only once.
    """
    from jitvault.policy.cedar import CedarAuthorizer

    return CedarAuthorizer(dict(policies), schema)
