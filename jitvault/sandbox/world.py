"""Set up a small company on the sandbox's servers.

It has a database, a CA and people, and jitvault is provisioned. Everything is done as an administrator would do it,
with `init` and the check of each template. Passwords are random and are not kept after the logins; only the tokens in
`World` remain.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from jitvault import shipped_files as shipped
from jitvault.documents.paths import INSTALLATION
from jitvault.engines.installed import installed_engines
from jitvault.errors import InvalidInput, NotConfirmed, OutcomeUnknown, VaultRefused, WrongState
from jitvault.formats.secret import Secret
from jitvault.model.template import load_templates, parse_template
from jitvault.provision import approvers, init
from jitvault.provision.template_check.record import check_template
from jitvault.sandbox import authority, target
from jitvault.sandbox.servers import Servers
from jitvault.vault.client import Connection, Vault
from jitvault.vault.documents import Documents

T = TypeVar("T")
_TRIES = 5

# The members of jitvault's groups. The data owner is responsible for templates and has no login.
MEMBERS = {
    "jitvault-operators": ("operator", "operator-2"),
    "jitvault-agents": ("research-agent",),
    "jitvault-auditors": ("auditor",),
}
APPROVERS = {
    "approver-1": ("jitvault-approvers",),
    "approver-2": ("jitvault-approvers", "jitvault-security"),
}
LOGINS = (*dict.fromkeys(name for names in MEMBERS.values() for name in names), *APPROVERS, "worker")
ENTITIES = (*LOGINS, "data-owner")
NETWORKS = {"loopback": ["127.0.0.0/8"]}
# all agents share one address here, and the benchmarks read as fast as they can
TASKS_PER_SECOND = 10_000
TOKEN_TTL = "8h"  # noqa: S105 - a duration


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """Why a template did not pass its check, and what to do about it.

    `mend` is whole sentences, or empty. `file` has the template.
    """

    why: str
    mend: str
    file: Path


@dataclass(frozen=True, slots=True)
class World:
    """A provisioned sandbox with a token for each person, agent and worker.

    `target_dsn` is the superuser's, for the database `app`; `entity_ids` maps names to Vault's ids. `templates_dir` has
    the templates in use, the shipped ones unless others were given. Whatever they say of their connection, an agent
    connects to this world's PostgreSQL (`connections`).
    """

    servers: Servers
    address: str
    admin_token: Secret
    worker_token: Secret
    operator_token: Secret
    operator_2_token: Secret
    approver_1_token: Secret
    approver_2_token: Secret
    agent_token: Secret
    auditor_token: Secret
    target_dsn: str = field(repr=False)
    audit_file: Path
    templates_dir: Path
    entity_ids: Mapping[str, str]
    installation: str
    failed_checks: Mapping[str, FailedCheck] = field(default_factory=dict)
    """The templates of one's own that did not pass their check, by name."""
    templates: frozenset[str] = frozenset()
    """The names of the templates that `init` provisioned."""


def provisioned(servers: Servers, templates: Path | None = None) -> World:
    """Provision running, empty servers.

    `templates` is a directory of access templates, instead of the shipped ones: one of them that fails its check is in
    `failed_checks`. Raises JitvaultError when a server refuses a request, and InvalidInput for a wrong template.
    """
    directory = templates or shipped.templates_dir()
    want = want_of(directory)
    address = servers.vault.address
    admin_token = Secret(servers.vault.root_token)
    admin = Vault(Connection(address), admin_token)
    passwords = {name: secrets.token_urlsafe(24) for name in LOGINS}
    with ThreadPoolExecutor(max_workers=4) as pool:
        database = pool.submit(target.create, servers.postgres)
        admin.write("sys/auth/userpass", {"type": "userpass"}, method="post")
        # slow, because the server hashes each password with bcrypt
        users = [pool.submit(_create_user, address, admin_token, *user) for user in passwords.items()]
        entity_ids = _create_entities(admin)
        logins = database.result()
        target.connect(admin, servers.postgres, logins)
        certificate = authority.create(admin)
        _run_init(admin, want, entity_ids)
        target.store_probe(admin, servers.postgres, logins)
        authority.store_probe(admin, certificate)
        checks = {name: pool.submit(_why_unchecked, address, admin_token, want, name) for name in want.templates}
        for user in users:
            user.result()
        tokens = dict(zip(LOGINS, pool.map(partial(_login, address), passwords.items()), strict=True))
        found = {name: check.result() for name, check in checks.items()}
    files = template_files(directory)
    failed = {name: FailedCheck(*words, files[name]) for name, words in found.items() if words is not None}
    if failed and templates is None:
        raise NotConfirmed(f"the sandbox's own {', '.join(check.why for check in failed.values())}")
    installation = str((Documents(admin).get(INSTALLATION) or {})["id"])
    admin.close()
    return World(
        servers=servers,
        address=address,
        admin_token=admin_token,
        worker_token=tokens["worker"],
        operator_token=tokens["operator"],
        operator_2_token=tokens["operator-2"],
        approver_1_token=tokens["approver-1"],
        approver_2_token=tokens["approver-2"],
        agent_token=tokens["research-agent"],
        auditor_token=tokens["auditor"],
        target_dsn=servers.postgres.dsn(target.DATABASE),
        audit_file=servers.vault.audit_file,
        templates_dir=directory,
        entity_ids=entity_ids,
        installation=installation,
        failed_checks=failed,
        templates=frozenset(want.templates),
    )


def env(world: World, ledger_url: str, spec: Path) -> dict[str, str]:
    """Return the environment variables with which the CLI works in `world`.

    They contain all tokens in plain text.
    """
    return {
        "VAULT_ADDR": world.address,
        "JITVAULT_LEDGER": ledger_url,
        "JITVAULT_AUDIT_FILE": str(world.audit_file),
        "JITVAULT_TEMPLATES": str(world.templates_dir.resolve()),
        "JITVAULT_SANDBOX_TARGET": f"{world.servers.postgres.host}:{world.servers.postgres.port}",
        # the sandbox's server ends requests after 2 s, so no lease can appear later
        "JITVAULT_SETTLE_WINDOW": "2s",
        # everyone is on this machine, so an unwrap from the worker's address is no sign of a stolen token
        "JITVAULT_SHARED_HOSTS": "127.0.0.0/8",
        "JITVAULT_TASKS_PER_SECOND": str(TASKS_PER_SECOND),
        "JITVAULT_ADMIN_TOKEN": world.admin_token.reveal(),
        "JITVAULT_WORKER_TOKEN": world.worker_token.reveal(),
        "JITVAULT_OPERATOR_TOKEN": world.operator_token.reveal(),
        "JITVAULT_APPROVER_1_TOKEN": world.approver_1_token.reveal(),
        "JITVAULT_APPROVER_2_TOKEN": world.approver_2_token.reveal(),
        "JITVAULT_AGENT_TOKEN": world.agent_token.reveal(),
        "JITVAULT_AUDITOR_TOKEN": world.auditor_token.reveal(),
        "JITVAULT_TARGET_DSN": world.target_dsn,
        "JITVAULT_EXAMPLE_SPEC": str(spec),
    }


def shipped_want() -> init.Want:
    """Return what `init` provisions in the sandbox.

    These are the shipped templates and policies, and one network.
    """
    return want_of(shipped.templates_dir())


def want_of(directory: Path) -> init.Want:
    """Return what `init` provisions with the templates of a directory.

    Raises InvalidInput.
    """
    templates = load_templates(_template_files(directory))
    files = shipped.files(shipped.policies_dir() / "vault", ".hcl")
    policies = {Path(path).name: text.decode() for path, text in files.items()}
    return init.Want(templates, installed_engines(), policies, NETWORKS, tasks_per_second=TASKS_PER_SECOND)


def template_files(directory: Path) -> dict[str, Path]:
    """Return the file of each template of a directory, by its name.

    Raises InvalidInput.
    """
    return {parse_template(data, path).name: Path(path) for path, data in _template_files(directory).items()}


def _template_files(directory: Path) -> dict[str, bytes]:
    return shipped.files(directory, ".yaml", ".yml", ".json")


def _run_init(admin: Vault, want: init.Want, entity_ids: Mapping[str, str]) -> None:
    """Run `init` twice.

    The first run creates the groups, the second the signing keys of their members.
    """
    init.apply(admin, init.plan(admin, want))
    for group, names in MEMBERS.items():
        members = [entity_ids[name] for name in names]
        admin.write(f"identity/group/name/{group}", {"member_entity_ids": members})
    for name, groups in APPROVERS.items():
        approvers.register(admin, name, person=name, groups=groups)
    init.apply(admin, init.plan(admin, want))


def _why_unchecked(address: str, admin_token: Secret, want: init.Want, name: str) -> tuple[str, str] | None:
    """Run a template's check, without which no task is granted by it.

    Returns why it did not pass and the remedy, None where it passed. Raises VaultUnavailable.
    """
    admin = Vault(Connection(address), admin_token)
    template = want.templates[name]
    try:
        outcomes = check_template(admin, want.engines, template, template.all_choices())
        failed = [outcome for outcome in outcomes if not outcome.passed]
    except (InvalidInput, NotConfirmed, VaultRefused, WrongState) as error:
        return f"its check cannot be run: {error}", error.hint or ""
    finally:
        admin.close()
    if not failed:
        return None
    why = "; ".join(f"{each.path} does not pass its check: {', '.join(each.failed)}" for each in failed)
    # several paths of one template fail for one reason, as a rule
    return why, " ".join(dict.fromkeys(step.mend for each in failed for step in each.steps if not step.ok))


def _create_entities(admin: Vault) -> dict[str, str]:
    mounts = admin.read("sys/auth") or {}
    accessor = mounts["data"]["userpass/"]["accessor"]
    found = {}
    for name in ENTITIES:
        found[name] = str(admin.write("identity/entity", {"name": name})["data"]["id"])
        if name in LOGINS:
            alias = {"name": name, "canonical_id": found[name], "mount_accessor": accessor}
            admin.write("identity/entity-alias", alias)
    return found


def _create_user(address: str, admin_token: Secret, name: str, password: str) -> None:
    """Create a userpass login.

    People and agents get their policies from their groups; the worker has its one policy and no group. The worker and
    the agents do not get Vault's `default` policy, which lets its holder renew any lease.
    """
    body = {"password": password, "token_type": "service", "token_ttl": TOKEN_TTL, "token_max_ttl": TOKEN_TTL}
    if name in ("worker", *MEMBERS["jitvault-agents"]):
        body |= {"token_no_default_policy": "true"}
    if name == "worker":
        body |= {"token_policies": "jitvault-worker"}
    admin = Vault(Connection(address), admin_token)
    _with_retries(lambda: admin.write(f"auth/userpass/users/{name}", body))
    admin.close()


def _login(address: str, login: tuple[str, str]) -> Secret:
    name, password = login
    client = Vault(Connection(address), None)
    answer = _with_retries(lambda: client.write(f"auth/userpass/login/{name}", {"password": password}))
    client.close()
    return Secret(answer["auth"]["client_token"])


def _with_retries(act: Callable[[], T]) -> T:
    """Do what makes the server hash a password, with retries.

    It is tried again where hashing takes longer than a request may run. That happens on a busy machine. Doing it twice
    does no harm. Raises what the last try raises.
    """
    for _ in range(_TRIES - 1):
        try:
            return act()
        except OutcomeUnknown:
            continue
    return act()
