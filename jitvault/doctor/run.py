"""`jitvault doctor`: read the facts and judge them.

Each fact is read with an identity that may read it. The judgements are in the pure modules of this package. The checks
run with whatever identities there are, and while Vault is down: what cannot be read is skipped, with the reason.
Nothing is changed; only the audit stream is read on, as by every command with the worker's identity.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pydantic import SecretStr

from jitvault import shipped_files as shipped
from jitvault.audit.files.configured import form_problem, last_lines, why_unreadable
from jitvault.context import WorkerContext
from jitvault.doctor import identity, server, stream, target_facts, targets, vault_facts
from jitvault.doctor import ledger as record
from jitvault.doctor import policies as rules
from jitvault.doctor import provisioning as provisioned
from jitvault.doctor.check import Check, Known, Unknown
from jitvault.doctor.identity import NO_WORKER, Holder, Refused
from jitvault.doctor.ledger import NoneYet, Unusable
from jitvault.doctor.policies import PolicySet, ProbeLogin, TemplateState
from jitvault.doctor.provisioning import KINDS, NO_ADMIN, Device
from jitvault.doctor.server import AWAY, Server
from jitvault.doctor.stream import File, Tripped
from jitvault.doctor.targets import AgentLogins, Target
from jitvault.doctor.vault_facts import known
from jitvault.doctor.vault_health import server_at, takes_large
from jitvault.doctor.worker_facts import outliving, stream_of
from jitvault.documents.paths import INSTALLATION
from jitvault.engines.interface import Engine
from jitvault.errors import InvalidInput, JitvaultError, LedgerUnavailable, MissingLedger, WrongState
from jitvault.formats.secret import Secret
from jitvault.formats.server_product import Product, commands_of, product_by_lines, with_commands
from jitvault.ledger.inspection import condition, room_for
from jitvault.lifecycle.record.missing_tasks import open_tasks
from jitvault.lifecycle.requests.freeze_documents import freezes
from jitvault.model.ledger_facts import LastDecision, LedgerFacts
from jitvault.model.template import AccessTemplate
from jitvault.model.vault_access import AccessPolicy
from jitvault.provision.desired import accesses
from jitvault.provision.init import Want, plan
from jitvault.provision.worker_rights import lacking_rights
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents
from jitvault.vault.login import Login
from jitvault.wiring import Wiring

T = TypeVar("T")
Templates = Mapping[str, AccessTemplate]
Engines = Mapping[str, Engine]

_NO_TOKEN = Unknown("no person's token is set", "`bao login`, or set VAULT_TOKEN.")
_NO_IDENTITY = Unknown("no token is set that Vault accepts", "Log in to Vault (`bao login`) first.")
_NO_LEDGER = Unknown("there is no ledger here", "Run the command where the worker runs, with its JITVAULT_LEDGER.")
_FOREIGN_MEND = "JITVAULT_LEDGER and VAULT_ADDR do not belong together: correct the one that is wrong."


def all_checks(wiring: Wiring) -> Iterator[Check]:
    """Yield every check, each after those that it depends on.

    So the first failure is the first to repair.
    """
    facts = _Facts(wiring)
    before = facts.record.product if isinstance(facts.record, LedgerFacts) else None
    commands = commands_of(facts.product or before, shutil.which)
    return (replace(check, mend=with_commands(check.mend, commands)) for check in _checks(facts))


def _checks(facts: _Facts) -> Iterator[Check]:
    wiring = facts.wiring
    yield from server.judge(facts.server)
    if wiring.settings.vault_namespace:
        yield from server.judge_namespace(facts.server, wiring.settings.vault_namespace)
    yield server.judge_requests(facts.takes_large)
    yield identity.judge_person(facts.person)
    yield from identity.judge_signing_key(facts.person, facts.person_has_key)
    yield identity.judge_people(wiring.settings.person_key)
    yield from identity.judge_worker(facts.worker, facts.settings.worker_login)
    yield identity.judge_rights(facts.worker_rights)
    yield targets.judge_agents(facts.agent_logins)
    yield from _provisioned(facts)
    yield from record.judge_ledger(facts.record)
    yield from record.judge_server(facts.record, facts.product)
    yield from provisioned.judge_devices(facts.devices, wiring.settings.audit_device, facts.product)
    yield stream.judge_files(
        [File(str(path), why_unreadable(path), form_problem(path)) for path in wiring.settings.audit_file]
    )
    with _worker_for_checks(facts) as worker:
        yield from stream.judge_stream(_with_worker(worker, stream_of))
        yield from stream.judge_freezes(facts.tripped, _with_worker(worker, freezes))
        outlive = _with_worker(worker, outliving)
    yield from rules.judge_policies(facts.policies, facts.last_decision)
    yield from _templates(facts)
    yield from rules.judge_probes(facts.probes, facts.now)
    yield from targets.judge_targets(facts.targets)
    yield targets.judge_logins(facts.logins_by_certificate)
    yield from record.judge_tasks(facts.record, facts.now)
    yield record.judge_outliving(outlive if facts.no_ledger is None else facts.no_ledger)


class _Facts:
    """The facts, each read once when it is first needed.

    Those of Vault are `Unknown` while it does not serve.
    """

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.settings = wiring.settings
        self.now = wiring.clock.now()

    # -- identities ------------------------------------------------------------------------------------

    @cached_property
    def server(self) -> Known[Server]:
        found = server_at(self.wiring.given_node, self.wiring.clock)
        if isinstance(found, Unknown) or found.product is not None:
            return found
        lines = "".join(map(last_lines, self.settings.audit_file))
        return replace(found, product=product_by_lines(lines))

    @property
    def product(self) -> Product | None:
        return None if isinstance(self.server, Unknown) else self.server.product

    @property
    def takes_large(self) -> Known[bool]:
        return self.away or takes_large(self.wiring.given_node)

    @property
    def away(self) -> Unknown | None:
        return None if isinstance(self.server, Server) and self.server.serves else AWAY

    @cached_property
    def person(self) -> Known[Holder | Refused]:
        return self._as(self.wiring.person_token, _NO_TOKEN, vault_facts.holder)

    @property
    def person_has_key(self) -> Known[bool]:
        """Whether the person can sign; their own policy does not let them look."""
        person, privileged = self.person, self.privileged
        if privileged is None or not isinstance(person, Holder) or not person.entity_id:
            return self.away or _NO_IDENTITY
        return known(lambda: vault_facts.has_signing_key(privileged, person.entity_id))

    @cached_property
    def worker(self) -> Known[Holder | Refused]:
        return self._as(self.wiring.login_if_any, NO_WORKER, vault_facts.holder)

    @property
    def no_worker(self) -> Unknown | None:
        """Why nothing can be read with the worker's identity; None where it can."""
        if isinstance(self.worker, Refused):
            return Unknown(self.worker.why, identity.LOG_IN)
        return self.worker if isinstance(self.worker, Unknown) else None

    @property
    def worker_rights(self) -> Known[Sequence[str]]:
        """The rights that the worker's token lacks."""
        return self._of_templates(self.worker_client, lacking_rights)

    @property
    def access_policies(self) -> Known[Sequence[AccessPolicy]]:
        """The policies of the paths that the templates grant."""
        templates = self.templates
        if isinstance(templates, Unknown):
            return templates
        return known(lambda: list({a.policy.name: a.policy for a in accesses(templates, self.wiring.engines)}.values()))

    @cached_property
    def devices(self) -> Known[Sequence[Device]]:
        return self._as(self.settings.admin, NO_ADMIN, vault_facts.devices)

    def _as(self, token: Secret | Login | None, if_none: Unknown, look: Callable[[Vault], T]) -> Known[T]:
        if token is None or self.away is not None:
            return if_none if token is None else self.away or AWAY
        return known(lambda: look(self.wiring.vault(token)))

    @cached_property
    def admin(self) -> Vault | None:
        """The administrator's client, None without one.

        An identity that may list audit devices is taken for one that may read the rest.
        """
        return None if isinstance(self.devices, Unknown) else self.wiring.vault(self.settings.admin)

    @cached_property
    def worker_client(self) -> Vault | None:
        """A client with the worker's token, if Vault accepts it."""
        return None if self.no_worker else self.wiring.vault(self.wiring.login)

    @cached_property
    def privileged(self) -> Vault | None:
        """A client that may read what checks and probes depend on.

        It is the administrator's or the worker's, None without either.
        """
        return self.admin or self.worker_client

    @cached_property
    def any_client(self) -> Vault | None:
        return self.privileged or (
            self.wiring.vault(self.wiring.person_token) if isinstance(self.person, Holder) else None
        )

    # -- the ledger ------------------------------------------------------------------------------------

    @cached_property
    def _ledger(self) -> tuple[Known[LedgerFacts | Unusable | NoneYet], Known[LastDecision | None]]:
        if not self.wiring.has_ledger:
            return self._none_yet(), None
        try:
            found, last = condition(self.settings.ledger.get_secret_value(), self.now, writes=self.settings.has_worker)
        except MissingLedger:
            return self._none_yet(), None
        except LedgerUnavailable as error:
            unusable = Unusable(str(error), error.hint)
            return unusable, unusable
        if found.installation is None:
            return self._none_yet(of=found), None
        if self._is_foreign(found):
            foreign = Unusable(f"{self.wiring.ledger_place} belongs to another installation of jitvault", _FOREIGN_MEND)
            return foreign, foreign
        return replace(found, place=self.wiring.ledger_place), last

    def _is_foreign(self, found: LedgerFacts) -> bool:
        """Return whether the ledger belongs to another Vault.

        False where this Vault's installation id cannot be read.
        """
        vault = self.any_client
        here = known(lambda: Documents(vault).get(INSTALLATION)) if vault else None
        known_here = here.get("id") if isinstance(here, dict) else None
        return None not in (known_here, found.installation) and known_here != found.installation

    def _none_yet(self, *, of: LedgerFacts | None = None) -> Known[NoneYet]:
        """Return that there is no ledger that a worker has used.

        `of` are the facts of one that no worker has used.
        """
        if self.no_worker:
            return _NO_LEDGER if not self.settings.has_worker else self.no_worker
        documents = Documents(self.wiring.vault(self.wiring.login))
        tasks = known(lambda: open_tasks(documents, (documents.get(INSTALLATION) or {}).get("id")))
        if isinstance(tasks, Unknown):
            return tasks
        room = room_for(self.settings.ledger.get_secret_value())
        place = self.wiring.ledger_place
        return NoneYet(tasks, room, place, is_new=of is not None, login=of.login if of else None)

    @property
    def record(self) -> Known[LedgerFacts | Unusable | NoneYet]:
        return self._ledger[0]

    @property
    def no_ledger(self) -> Unknown | None:
        """Why the ledger has no facts about tasks; None where it has."""
        return self.record if isinstance(self.record, Unknown) else None

    @property
    def last_decision(self) -> Known[LastDecision | None]:
        return self.no_ledger or self._ledger[1]

    @property
    def tripped(self) -> Known[Tripped | None]:
        if self.no_ledger or not isinstance(self.record, LedgerFacts):
            return self.no_ledger
        freeze = known(self.wiring.unchecked_ledger.freeze)
        return freeze if freeze is None or isinstance(freeze, Unknown) else Tripped(freeze.reason, freeze.at)

    # -- what decides about a grant --------------------------------------------------------------------

    @cached_property
    def policies(self) -> PolicySet:
        try:
            found = self.wiring.policies(self.settings.policies)
        except InvalidInput as error:
            return PolicySet(why=str(error))
        return PolicySet(found.digest, len(found.rules), tuple(found.idle))

    @cached_property
    def templates(self) -> Known[Templates]:
        return known(lambda: self.wiring.templates)

    @property
    def template_states(self) -> Known[Sequence[TemplateState]]:
        look = partial(vault_facts.template_states, whole=self.privileged is not None)
        return self._of_templates(self.any_client, look)

    @property
    def is_own_published(self) -> Known[bool]:
        return self._of_templates(
            self.worker_client, lambda vault, templates, _: vault_facts.is_published(vault, templates)
        )

    @property
    def probes(self) -> Known[Sequence[tuple[str, Known[ProbeLogin]]]]:
        return self._of_templates(self.privileged, vault_facts.probes)

    @property
    def targets(self) -> Known[Sequence[Target]]:
        return self._of_templates(self.privileged, target_facts.targets)

    @property
    def agent_logins(self) -> Known[AgentLogins]:
        admin = self.admin
        return self.away or NO_ADMIN if admin is None else known(lambda: target_facts.agent_logins(admin))

    @property
    def logins_by_certificate(self) -> Known[Mapping[str, Sequence[str]]]:
        if self.admin is None:
            return self.away or NO_ADMIN
        return self._of_templates(self.admin, target_facts.logins_by_certificate)

    def _of_templates(self, vault: Vault | None, look: Callable[[Vault, Templates, Engines], T]) -> Known[T]:
        templates = self.templates
        if isinstance(templates, Unknown):
            return templates
        if vault is None:
            return self.away or self.no_worker or _NO_IDENTITY
        return known(lambda: look(vault, templates, self.wiring.engines))


def _provisioned(facts: _Facts) -> Iterable[Check]:
    """Yield the checks of what `init` made.

    Without the administrator's identity only some of them can be made.
    """
    if facts.admin is None:
        none = facts.away or _NO_IDENTITY
        vault = facts.any_client
        parts = vault_facts.parts_seen_by(vault, facts.access_policies) if vault else dict.fromkeys(KINDS, none)
        return provisioned.judge(parts, facts.away or NO_ADMIN)
    if isinstance(facts.templates, Unknown):
        return provisioned.judge(dict.fromkeys(KINDS, facts.templates), facts.templates)
    per_second = facts.settings.tasks_per_second
    want = Want(facts.templates, facts.wiring.engines, shipped.vault_policies(), tasks_per_second=per_second)
    try:
        found = plan(facts.admin, want)
    except (WrongState, InvalidInput) as error:
        return [provisioned.PLAN.fail(str(error), error.hint)]
    except JitvaultError as error:
        none = Unknown(str(error), error.hint)
        return provisioned.judge(dict.fromkeys(KINDS, none), none)
    return provisioned.judge(vault_facts.parts_of(found), found.missing)


def _templates(facts: _Facts) -> Iterable[Check]:
    if isinstance(facts.templates, Unknown):
        return [rules.TEMPLATES.fail(facts.templates.why, facts.templates.mend)]
    return [
        *rules.judge_templates(facts.template_states, facts.now),
        *rules.judge_published(facts.is_own_published),
    ]


@contextmanager
def _worker_for_checks(facts: _Facts) -> Iterator[Known[WorkerContext]]:
    """Yield the worker.

    A ledger, policies or templates that cannot be used are replaced for these checks. That is safe because nothing is
    decided here, and the audit stream can be judged without what was read before.
    """
    if facts.no_worker or not facts.settings.audit_file:
        yield facts.no_worker or Unknown("JITVAULT_AUDIT_FILE is not set", stream.NAME_FILE)
        return
    with TemporaryDirectory(prefix="jitvault-doctor-", ignore_cleanup_errors=True) as directory:
        replacements: dict[str, Any] = {}
        if not isinstance(facts.record, LedgerFacts):
            replacements["ledger"] = SecretStr(f"{directory}/ledger.db")
        if facts.policies.why:
            replacements["policies"] = shipped.policies_dir() / "cedar"
        if isinstance(facts.templates, Unknown):
            replacements["templates"] = shipped.templates_dir()
        wiring = Wiring(facts.settings.model_copy(update=replacements)) if replacements else facts.wiring
        if "ledger" in replacements:
            wiring.make_ledger()
        yield known(lambda: wiring.worker)


def _with_worker(worker: Known[WorkerContext], look: Callable[[WorkerContext], T]) -> Known[T]:
    return worker if isinstance(worker, Unknown) else known(lambda: look(worker))
