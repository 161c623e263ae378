"""`jitvault doctor`: who is asked for which fact, and what the facts say.

The judgements are in the pure modules beside. It works with whatever identities there are, and while Vault is down:
what cannot be looked at is skipped, with the reason. Nothing is changed; only the audit stream is read on, as by every
command of the worker's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pydantic import SecretStr

from jitvault import resources as shipped
from jitvault.audit.files.configured import form_problem, is_unmarked, last_lines, why_unreadable
from jitvault.context import WorkerContext
from jitvault.doctor import identity, server, stream, targets
from jitvault.doctor import ledger as record
from jitvault.doctor import policies as rules
from jitvault.doctor import provisioning as provisioned
from jitvault.doctor import target_facts as doctor_targets
from jitvault.doctor import vault_facts as doctor
from jitvault.doctor.check import Check, Known, Unknown
from jitvault.doctor.identity import NO_WORKER, Holder, Refused
from jitvault.doctor.ledger import NoneYet, Unusable
from jitvault.doctor.policies import PolicySet, Standing, TemplateState
from jitvault.doctor.provisioning import KINDS, NO_ADMIN, Device
from jitvault.doctor.server import AWAY, Server
from jitvault.doctor.stream import File, Tripped
from jitvault.doctor.targets import AgentLogins, Target
from jitvault.doctor.vault_facts import known
from jitvault.doctor.vault_health import server_at, takes_large
from jitvault.doctor.worker_facts import outliving, stream_of
from jitvault.errors import InvalidInput, JitvaultError, LedgerUnavailable, WrongState
from jitvault.formats.product import Product, commands_of, product_by_lines, with_commands
from jitvault.formats.secret import Secret
from jitvault.ledger.inspection import condition, room_for
from jitvault.lifecycle.requests.freeze_documents import freezes
from jitvault.model.ledger_facts import LastDecision, LedgerFacts
from jitvault.model.template import AccessTemplate
from jitvault.provision.init import Want
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents
from jitvault.vault.login import Login
from jitvault.wiring import Wiring

T = TypeVar("T")

_NO_TOKEN = Unknown("there is no token of a person", "`bao login`, or set VAULT_TOKEN.")
_NOBODY = Unknown("there is no token that Vault takes", "Log in to Vault (`bao login`) first.")
_NO_LEDGER = Unknown("there is no ledger here", "Run it where the worker runs, with its JITVAULT_LEDGER.")
_FOREIGN = Unusable(
    "this ledger belongs to another installation of jitvault", "JITVAULT_LEDGER and VAULT_ADDR do not belong together."
)


def all_checks(wiring: Wiring) -> Iterator[Check]:
    """Every check, in the order in which one thing rests on another: what fails first is what to mend first."""
    look = _Look(wiring)
    before = look.record.product if isinstance(look.record, LedgerFacts) else None
    commands = commands_of(look.product or before, shutil.which)
    return (replace(check, mend=with_commands(check.mend, commands)) for check in _checks(look))


def _checks(look: _Look) -> Iterator[Check]:
    wiring = look.wiring
    yield from server.judge(look.server)
    if wiring.settings.vault_namespace:
        yield from server.judge_namespace(look.server, wiring.settings.vault_namespace)
    yield server.judge_requests(look.takes_large)
    yield identity.judge_person(look.person)
    yield identity.judge_people(wiring.settings.person_key)
    yield from identity.judge_worker(look.worker)
    yield targets.judge_agents(look.agent_logins)
    yield from _provisioned(look)
    yield from record.judge_ledger(look.record)
    yield from record.judge_server(look.record, look.product)
    yield from provisioned.judge_devices(look.devices, wiring.settings.audit_device)
    yield stream.judge_files(
        [
            File(str(path), why_unreadable(path), form_problem(path), is_unmarked(path))
            for path in wiring.settings.audit_file
        ]
    )
    with _acting(look) as worker:
        yield from stream.judge_stream(_by(worker, stream_of))
        yield from stream.judge_freezes(look.tripped, _by(worker, freezes))
        outlive = _by(worker, outliving)
    yield from rules.judge_policies(look.policies, look.last_decision)
    yield from _templates(look)
    yield from rules.judge_probes(look.probes, look.now)
    yield from targets.judge_targets(look.targets)
    yield targets.judge_logins(look.logins_by_certificate)
    yield from record.judge_tasks(look.record, look.now)
    yield record.judge_outliving(outlive if look.no_ledger is None else look.no_ledger)


class _Look:
    """The facts. Each is read once, when it is asked for; what depends on Vault is `Unknown` while Vault is away."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.settings = wiring.settings
        self.now = wiring.clock.now()

    # -- who can be asked ------------------------------------------------------------------------------

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
        return self._as(self.settings.person, _NO_TOKEN, doctor.holder)

    @cached_property
    def worker(self) -> Known[Holder | Refused]:
        return self._as(self.wiring.login_if_any, NO_WORKER, doctor.holder)

    @property
    def no_worker(self) -> Unknown | None:
        """Why nothing can be asked as the worker."""
        if isinstance(self.worker, Refused):
            return Unknown(self.worker.why, identity.LOG_IN)
        return self.worker if isinstance(self.worker, Unknown) else None

    @cached_property
    def devices(self) -> Known[Sequence[Device]]:
        return self._as(self.settings.admin, NO_ADMIN, doctor.devices)

    def _as(self, token: Secret | Login | None, nobody: Unknown, look: Callable[[Vault], T]) -> Known[T]:
        if token is None or self.away is not None:
            return nobody if token is None else self.away or AWAY
        return known(lambda: look(self.wiring.vault(token)))

    @cached_property
    def admin(self) -> Vault | None:
        """Whoever may see the audit devices may see all the rest."""
        return None if isinstance(self.devices, Unknown) else self.wiring.vault(self.settings.admin)

    @cached_property
    def deputy(self) -> Vault | None:
        """Who sees what a template's check and a probe rest on."""
        return self.admin or (None if self.no_worker else self.wiring.vault(self.wiring.login))

    @cached_property
    def anybody(self) -> Vault | None:
        return self.deputy or (self.wiring.vault(self.settings.person) if isinstance(self.person, Holder) else None)

    # -- the ledger ------------------------------------------------------------------------------------

    @cached_property
    def _ledger(self) -> tuple[Known[LedgerFacts | Unusable | NoneYet], Known[LastDecision | None]]:
        if not self.wiring.has_ledger:
            return self._none_yet(), None
        try:
            found, last = condition(self.settings.ledger.get_secret_value(), self.now)
        except LedgerUnavailable as error:
            return Unusable(str(error), error.hint), Unknown(str(error), error.hint)
        if self._is_foreign(found):
            return _FOREIGN, Unknown(_FOREIGN.why, _FOREIGN.mend)
        return found, last

    def _is_foreign(self, found: LedgerFacts) -> bool:
        """Whether the ledger belongs to another Vault, as far as this one lets itself be asked."""
        vault = self.anybody
        here = known(lambda: Documents(vault).get("installation")) if vault else None
        known_here = here.get("id") if isinstance(here, dict) else None
        return None not in (known_here, found.installation) and known_here != found.installation

    def _none_yet(self) -> Known[NoneYet]:
        if self.no_worker:
            return _NO_LEDGER if not self.settings.has_worker else self.no_worker
        tasks = known(lambda: Documents(self.wiring.vault(self.wiring.login)).names("tasks/"))
        return (
            tasks
            if isinstance(tasks, Unknown)
            else NoneYet(len(tasks), room_for(self.settings.ledger.get_secret_value()))
        )

    @property
    def record(self) -> Known[LedgerFacts | Unusable | NoneYet]:
        return self._ledger[0]

    @property
    def no_ledger(self) -> Unknown | None:
        """Why the ledger says nothing of tasks."""
        if isinstance(self.record, Unusable):
            return Unknown(self.record.why, self.record.mend)
        return self.record if isinstance(self.record, Unknown) else None

    @property
    def last_decision(self) -> Known[LastDecision | None]:
        return self.no_ledger or self._ledger[1]

    @property
    def tripped(self) -> Known[Tripped | None]:
        if self.no_ledger or not isinstance(self.record, LedgerFacts):
            return self.no_ledger
        freeze = known(self.wiring.ledger.freeze)
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
    def templates(self) -> Known[Mapping[str, AccessTemplate]]:
        return known(lambda: self.wiring.templates)

    @property
    def template_states(self) -> Known[Sequence[TemplateState]]:
        return self._of_templates(
            self.anybody,
            lambda vault, templates: doctor.template_states(
                vault, templates, self.wiring.engines, whole=self.deputy is not None
            ),
        )

    @property
    def probes(self) -> Known[Sequence[tuple[str, Known[Standing]]]]:
        return self._of_templates(
            self.deputy, lambda vault, templates: doctor.probes(vault, templates, self.wiring.engines)
        )

    @property
    def targets(self) -> Known[Sequence[Target]]:
        return self._of_templates(
            self.deputy, lambda vault, templates: doctor_targets.targets(vault, templates, self.wiring.engines)
        )

    @property
    def agent_logins(self) -> Known[AgentLogins]:
        admin = self.admin
        return self.away or NO_ADMIN if admin is None else known(lambda: doctor_targets.agent_logins(admin))

    @property
    def logins_by_certificate(self) -> Known[Mapping[str, Sequence[str]]]:
        if self.admin is None:
            return self.away or NO_ADMIN
        return self._of_templates(
            self.admin,
            lambda vault, templates: doctor_targets.logins_by_certificate(vault, templates, self.wiring.engines),
        )

    def _of_templates(self, vault: Vault | None, look: Callable[[Vault, Mapping[str, AccessTemplate]], T]) -> Known[T]:
        templates = self.templates
        if isinstance(templates, Unknown):
            return templates
        return (self.away or self.no_worker or _NOBODY) if vault is None else known(lambda: look(vault, templates))


def _provisioned(look: _Look) -> Iterable[Check]:
    """What `init` made, by the administrator, or as much of it as somebody else sees."""
    if look.admin is None:
        none = look.away or _NOBODY
        parts = doctor.parts_seen_by(look.anybody) if look.anybody else dict.fromkeys(KINDS, none)
        return provisioned.judge(parts, look.away or NO_ADMIN)
    if isinstance(look.templates, Unknown):
        return provisioned.judge(dict.fromkeys(KINDS, look.templates), look.templates)
    per_second = look.settings.tasks_per_second
    want = Want(look.templates, look.wiring.engines, shipped.vault_policies(), tasks_per_second=per_second)
    try:
        plan = doctor.drift(look.admin, want)
    except (WrongState, InvalidInput) as error:
        return [provisioned.PLAN.fail(str(error), error.hint)]
    except JitvaultError as error:
        none = Unknown(str(error), error.hint)
        return provisioned.judge(dict.fromkeys(KINDS, none), none)
    return provisioned.judge(doctor.parts_of(plan), plan.missing)


def _templates(look: _Look) -> Iterable[Check]:
    if isinstance(look.templates, Unknown):
        return [rules.TEMPLATES.fail(look.templates.why, look.templates.mend)]
    return rules.judge_templates(look.template_states, look.now)


@contextmanager
def _acting(look: _Look) -> Iterator[Known[WorkerContext]]:
    """The worker; where its ledger, policies or templates cannot be used, with others that stand in for this look.

    Nothing is decided here, and the audit stream can be judged without what was read of it before.
    """
    if look.no_worker or not look.settings.audit_file:
        yield look.no_worker or Unknown("JITVAULT_AUDIT_FILE is not set", stream.NAME_FILE)
        return
    with TemporaryDirectory(prefix="jitvault-doctor-", ignore_cleanup_errors=True) as directory:
        stand_ins: dict[str, Any] = {}
        if not isinstance(look.record, LedgerFacts):
            stand_ins["ledger"] = SecretStr(f"{directory}/ledger.db")
        if look.policies.why:
            stand_ins["policies"] = shipped.policies_dir() / "cedar"
        if isinstance(look.templates, Unknown):
            stand_ins["templates"] = shipped.templates_dir()
        wiring = Wiring(look.settings.model_copy(update=stand_ins)) if stand_ins else look.wiring
        yield known(lambda: wiring.worker)


def _by(worker: Known[WorkerContext], look: Callable[[WorkerContext], T]) -> Known[T]:
    return worker if isinstance(worker, Unknown) else known(lambda: look(worker))
