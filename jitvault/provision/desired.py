"""The desired state of Vault: items, in the order in which they are created.

It is computed from templates, engines, networks, signers and policy files. The mount `jitvault/` comes first because
its marker shows that the token roles are jitvault's; a role has no field for a marker of its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from string import Template

from jitvault.documents.paths import INBOX_MOUNT
from jitvault.documents.signed import RECEIPT_KEY, signer_key
from jitvault.engines.interface import Engine, check_template
from jitvault.errors import InvalidInput
from jitvault.model.read_limit import TASKS_PER_SECOND, quotas
from jitvault.model.template import MAX_CHOICES, RESERVED, AccessTemplate
from jitvault.model.vault_access import CAPS, AccessPolicy, access_policy, role_name
from jitvault.provision.item import Item
from jitvault.provision.items import (
    AuditedHeader,
    Group,
    InboxLife,
    Installation,
    MarkedPolicy,
    Mount,
    NetworksDocument,
    RemovedRole,
    SigningKey,
    TaskPolicy,
    TokenRole,
)
from jitvault.provision.mounts import ReadLimit, plain_keys, shortened
from jitvault.provision.names import AUDITED_HEADER, GROUPS, KV_MOUNT, MARKER_LINE, ROLES, TRANSIT_MOUNT
from jitvault.provision.worker_login import WorkerLogin

_NETWORK = re.compile(r"[a-z0-9-]{1,32}")
# The characters of a template's path: no wildcard, no template expression, no quote that would end an HCL string.
_ACCESS_PATH = re.compile(r"[A-Za-z0-9._@:-]+(/[A-Za-z0-9._@:-]+)+")


@dataclass(frozen=True, slots=True)
class Access:
    """One Vault path that a template grants, with its policy.

    `worker_paths` are what the worker reads to detect drift.
    """

    path: str
    policy: AccessPolicy
    worker_paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Want:
    """What to provision Vault for.

    `policies` maps the file names of `policies/vault` to their texts. `networks` maps the names of networks to add or
    to change to their CIDRs, and `removed_networks` names those to remove; all others stay. `worker_login` is the
    worker's AppRole, None where none is wanted. `tasks_per_second` is how many tasks behind one client address may
    begin to read within a second; 0 sets no limit.
    """

    templates: Mapping[str, AccessTemplate]
    engines: Mapping[str, Engine]
    policies: Mapping[str, str]
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    removed_networks: Collection[str] = ()
    worker_login: WorkerLogin | None = None
    tasks_per_second: int = TASKS_PER_SECOND


def desired(
    want: Want,
    *,
    networks: Mapping[str, Sequence[str]],
    signers: Iterable[str],
    removed_roles: Iterable[str] = (),
) -> tuple[Item, ...]:
    """Return everything that jitvault needs in Vault, in order of creation.

    `networks` maps names to CIDRs, with those that stay. `signers` are entity ids. `removed_roles` are token roles to
    delete, which comes after the worker has lost its rights on them. Raises InvalidInput for a template, a network or a
    policy file that cannot be used.
    """
    templates = want.templates
    engines = want.engines
    policies = want.policies
    roles = token_roles(networks)
    granted = tuple(accesses(templates, engines))
    return (
        Mount(KV_MOUNT, "kv", (("version", "2"),)),
        Mount(INBOX_MOUNT, "kv", (("version", "2"),)),
        Mount(TRANSIT_MOUNT, "transit"),
        InboxLife(),
        Installation(),
        NetworksDocument(tuple((name, _network(name, cidrs)) for name, cidrs in sorted(networks.items()))),
        AuditedHeader(AUDITED_HEADER),
        *{access.policy.name: TaskPolicy(access.policy) for access in granted}.values(),
        MarkedPolicy("jitvault-worker", worker_policy(policies, roles, granted)),
        *(MarkedPolicy(f"jitvault-{role}", _policy_file(policies, f"{role}.hcl")) for role in ROLES),
        *roles,
        *(RemovedRole(name) for name in removed_roles),
        *(Group(name, policy) for name, policy in GROUPS.items()),
        SigningKey(RECEIPT_KEY),
        *(SigningKey(signer_key(entity_id)) for entity_id in sorted(set(signers))),
        *plain_keys(templates, engines),
        *shortened(templates, engines),
        *map(ReadLimit, quotas(templates.values(), want.tasks_per_second)),
        *((want.worker_login,) if want.worker_login else ()),
    )


def token_roles(networks: Mapping[str, Sequence[str]]) -> tuple[TokenRole, ...]:
    """Return a role for each cap, for no network and each named network.

    Raises InvalidInput.
    """
    places: dict[str | None, tuple[str, ...]] = {None: ()}
    for name, cidrs in sorted(networks.items()):
        places[name] = _network(name, cidrs)
    return tuple(
        TokenRole(role_name(cap, name), int(length.total_seconds()), cidrs)
        for name, cidrs in places.items()
        for cap, length in CAPS.items()
    )


def worker_policy(policies: Mapping[str, str], roles: Iterable[TokenRole], granted: Iterable[Access]) -> str:
    """Return the worker's policy.

    It is its file, then a stanza for each role, access path and engine configuration.
    """
    granted = tuple(granted)
    paths = sorted({access.path for access in granted})
    reads = sorted({path for access in granted for path in access.worker_paths})
    return "".join(
        (
            _policy_file(policies, "worker.hcl"),
            *(_stanza(policies, "worker-token-role.hcl", role=role.name) for role in roles),
            *(_stanza(policies, "worker-access-path.hcl", path=path) for path in paths),
            *(_stanza(policies, "worker-read-path.hcl", path=path) for path in reads),
        )
    )


def checked_access_path(path: str, template: str) -> str:
    """Return `path` if a task token may be granted it. Raises InvalidInput.

    The template's model refuses most bad paths already. They are checked again here because this is where the policy is
    made that would grant the access.
    """
    if not _ACCESS_PATH.fullmatch(path) or ".." in path:
        raise InvalidInput(
            f"template {template}: {path!r:.200} is no path for an access policy; expected a mount and "
            "a path below it, without wildcards, expressions or `..`"
        )
    first = path.partition("/")[0]
    if first in RESERVED or first == TRANSIT_MOUNT:
        raise InvalidInput(
            f"template {template}: {path} is below {first}/, which is Vault's own or jitvault's; a "
            "path there can change who may do what"
        )
    return path


def accesses(templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine]) -> Iterator[Access]:
    """Yield each access policy once, ordered by path.

    One path can have several policies that allow different data.
    """
    found: dict[tuple[str, str], Access] = {}
    for name, template in sorted(templates.items()):
        engine = _engine(template, engines)
        _check(template, engine)
        for number, choices in enumerate(template.all_choices(), start=1):
            if number > MAX_CHOICES:
                raise InvalidInput(f"template {name}: expected at most {MAX_CHOICES} combinations of choices")
            path = checked_access_path(template.resolve(choices), name)
            mount = template.spec.mount
            reads = tuple(engine.worker_paths(mount, path.removeprefix(f"{mount}/")))
            policy = _policy(template, engine, path, choices)
            found[path, policy.name] = Access(path, policy, _below(mount, reads, engine.name))
    yield from (found[key] for key in sorted(found))


def _check(template: AccessTemplate, engine: Engine) -> None:
    try:
        check_template(engine, template.spec)
    except InvalidInput as error:
        raise InvalidInput(f"template {template.name}: {error}", hint=error.hint) from None


def _policy(template: AccessTemplate, engine: Engine, path: str, choices: Mapping[str, str]) -> AccessPolicy:
    try:
        return access_policy(path, engine.capability, template.spec.fill_data(choices))
    except InvalidInput as error:
        raise InvalidInput(f"template {template.name}: {error}") from None


def _below(mount: str, paths: tuple[str, ...], engine: str) -> tuple[str, ...]:
    """Return `paths` if all are below the engine's own mount.

    The mount's tuning is allowed as well. Raises InvalidInput.
    """
    for path in paths:
        if path == f"sys/mounts/{mount}/tune":
            continue
        bare = path.removesuffix("/*")
        if not _ACCESS_PATH.fullmatch(bare) or ".." in bare or not path.startswith(f"{mount}/"):
            raise InvalidInput(f"engine {engine}: the worker shall read {path!r:.200}, expected paths below {mount}/")
    return paths


def _engine(template: AccessTemplate, engines: Mapping[str, Engine]) -> Engine:
    found = engines.get(template.spec.engine)
    if found is None:
        known = ", ".join(sorted(engines)) or "none"
        raise InvalidInput(
            f"template {template.name}: jitvault knows no engine {template.spec.engine}; it knows {known}",
            hint="Install the package that brings this engine, or correct spec.engine.",
        )
    return found


def _network(name: str, cidrs: Sequence[str]) -> tuple[str, ...]:
    """Return the network's CIDRs in normal form, sorted. Raises InvalidInput."""
    if not _NETWORK.fullmatch(name):
        raise InvalidInput(f"network {name!r:.80}: expected a name of 1 to 32 of a-z 0-9 -")
    if isinstance(cidrs, str) or not cidrs:
        # Vault reads an empty list as "from anywhere"
        raise InvalidInput(f"network {name}: expected a list of at least one CIDR, such as 10.0.0.0/8")
    try:
        return tuple(sorted({str(ip_network(cidr)) for cidr in cidrs}))
    except ValueError as error:
        raise InvalidInput(f"network {name}: {error}; expected a CIDR such as 10.0.0.0/8") from None


def _policy_file(policies: Mapping[str, str], name: str) -> str:
    text = _file(policies, name)
    if text.partition("\n")[0] != MARKER_LINE:
        raise InvalidInput(
            f"policies/vault/{name}: the first line has to be `{MARKER_LINE}`",
            hint="Add that line: without it the next init would not recognise the policy as jitvault's.",
        )
    return text


def _stanza(policies: Mapping[str, str], name: str, **values: str) -> str:
    try:
        return Template(_file(policies, name)).substitute(values)
    except (KeyError, ValueError) as error:
        expected = " and ".join(f"${key}" for key in values)
        raise InvalidInput(f"policies/vault/{name}: expected no placeholder but {expected} ({error})") from None


def _file(policies: Mapping[str, str], name: str) -> str:
    try:
        return policies[name]
    except KeyError:
        raise InvalidInput(f"policies/vault/{name} is missing", hint="Install jitvault again.") from None
