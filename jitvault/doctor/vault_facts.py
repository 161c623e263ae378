"""Read facts from Vault for `jitvault doctor`; nothing is written.

The facts are about identities, provisioning, templates and probes. A fact that Vault does not show to the identity at
hand is `Unknown`, with what it takes to read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from jitvault.doctor.check import Known, Unknown
from jitvault.doctor.identity import Holder, Refused
from jitvault.doctor.policies import ProbeLogin, TemplateState
from jitvault.doctor.provisioning import KINDS, NO_ADMIN, Device, Part
from jitvault.documents.paths import TEMPLATES
from jitvault.documents.signed import RECEIPT_KEY, signer_key
from jitvault.documents.template_check import as_recorded, read_record, remarks_of
from jitvault.engines.interface import Engine, probe_of
from jitvault.errors import JitvaultError, VaultRefused, VaultRejected, WorkerRefused
from jitvault.model.template import AccessTemplate
from jitvault.model.vault_access import AccessPolicy
from jitvault.provision.desired import token_roles
from jitvault.provision.init import Plan
from jitvault.provision.item import changed
from jitvault.provision.items import TokenRole
from jitvault.provision.live import Live, normal_role
from jitvault.provision.names import GROUPS, INSTALLATION, TRANSIT_MOUNT
from jitvault.provision.template_check.record import Unchecked, recorded, why_unchecked
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents
from jitvault.vault.published_templates import published_form

T = TypeVar("T")


def holder(vault: Vault) -> Holder | Refused:
    """Return what Vault says of this client's own token.

    Raises VaultUnavailable.
    """
    try:
        data = (vault.read("auth/token/lookup-self") or {}).get("data") or {}
    except VaultRejected:
        raise
    except VaultRefused as error:
        return Refused(str(error))
    entity = str(data.get("entity_id") or "")
    found = _entity(vault, entity) if entity else None
    shown = str(data.get("display_name") or "a token without a name")
    return Holder(
        name=shown,
        entity_name=str((found or {}).get("name") or shown),
        entity_id=entity,
        policies=frozenset({*(data.get("policies") or ()), *(data.get("identity_policies") or ())}),
        ttl=timedelta(seconds=int(data.get("ttl") or 0)) if data.get("expire_time") else None,
        renewable=bool(data.get("renewable")),
        enabled=None if found is None else not found.get("disabled"),
    )


def has_signing_key(vault: Vault, entity: str) -> bool:
    """Return whether there is a key that the entity signs with.

    Raises VaultRefused for whoever may not look.
    """
    return vault.read(f"{TRANSIT_MOUNT}/keys/{signer_key(entity)}") is not None


def _entity(vault: Vault, entity: str) -> Mapping[str, Any] | None:
    """Return the entity's record.

    None where this identity may not read it or there is none.
    """
    try:
        answer = vault.read(f"identity/entity/id/{entity}")
    except VaultRefused:
        return None
    return answer["data"] if answer else None


def parts_of(found: Plan) -> dict[str, Known[Sequence[Part]]]:
    """Return the steps of a plan by kind."""
    parts = [Part(step.kind, step.name, step.action, step.detail) for step in found.steps]
    return {kind: [part for part in parts if part.kind == kind] for kind in KINDS}


def parts_seen_by(vault: Vault, policies: Known[Sequence[AccessPolicy]]) -> dict[str, Known[Sequence[Part]]]:
    """Return the parts that this identity may read.

    The kinds that only administrators see are `Unknown`. `policies` are those of the templates' paths.
    """
    unknown: dict[str, Known[Sequence[Part]]] = dict.fromkeys(KINDS, NO_ADMIN)
    return unknown | {
        "document": known(lambda: _there(vault, "document", INSTALLATION)),
        "access policy": policies if isinstance(policies, Unknown) else known(lambda: _policies(vault, policies)),
        "token role": known(lambda: _roles(vault)),
        "group": known(lambda: _groups(vault)),
        "signing key": known(lambda: _there(vault, "signing key", f"{TRANSIT_MOUNT}/keys/{RECEIPT_KEY}")),
    }


def _there(vault: Vault, kind: str, path: str) -> list[Part]:
    return [Part(kind, path, "keep" if vault.read(path) else "create")]


def _policies(vault: Vault, policies: Sequence[AccessPolicy]) -> list[Part]:
    def action(policy: AccessPolicy) -> str:
        found = vault.read(f"sys/policies/acl/{policy.name}")
        if found is None:
            return "create"
        return "keep" if found["data"]["policy"] == policy.text else "update"

    return [Part("access policy", policy.name, action(policy)) for policy in policies]


def _groups(vault: Vault) -> list[Part]:
    def action(name: str, policy: str) -> str:
        found = vault.read(f"identity/group/name/{name}")
        if found is None:
            return "create"
        return "keep" if policy in (found["data"].get("policies") or ()) else "update"

    return [Part("group", name, action(name, policy)) for name, policy in GROUPS.items()]


def _roles(vault: Vault) -> list[Part]:
    wanted = token_roles({})
    found = {role.name: vault.read(f"auth/token/roles/{role.name}") for role in wanted}
    return [_role(role, found[role.name]) for role in wanted]


def _role(wanted: TokenRole, answer: Mapping[str, Any] | None) -> Part:
    if answer is None:
        return Part("token role", wanted.name, "create")
    other = tuple(changed(normal_role(dict(answer["data"])), normal_role(wanted.body)))
    return Part("token role", wanted.name, "update" if other else "keep", other)


def devices(vault: Vault) -> list[Device]:
    """Return the audit devices.

    Raises VaultRefused for an identity that may not list them.
    """
    return [
        Device(name, str(table.get("type")), str((table.get("options") or {}).get("log_raw")).lower() == "true")
        for name, table in sorted(Live(vault).audit_devices.items())
    ]


def template_states(
    vault: Vault, templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine], *, whole: bool
) -> list[TemplateState]:
    """Return the state of each template. Raises VaultRefused.

    `whole` says that this identity may read what a check depends on; without it only the check's record is read.
    """
    return [_state(vault, template, engines, whole=whole) for _, template in sorted(templates.items())]


def _state(vault: Vault, template: AccessTemplate, engines: Mapping[str, Engine], *, whole: bool) -> TemplateState:
    document = recorded(vault, template.name)
    state = as_recorded(document, template)
    record = read_record(document)
    exempt = state == "exempt"
    if whole:
        why = why_unchecked(vault, engines, template)
    else:
        why = None if exempt or state == "passed" else Unchecked(f"its check is {state}")
    return TemplateState(
        name=template.name,
        why_not=why.said if why else None,
        mend=why.mend if why else "",
        remarks=remarks_of(document),
        failed=state == "failed",
        exempt=exempt,
        checked_at=min((result.at for result in record.paths.values()), default=None) if record else None,
        seen=whole,
    )


def is_published(vault: Vault, templates: Mapping[str, AccessTemplate]) -> bool:
    """Return whether agents see these templates, or none are published yet."""
    return Documents(vault).get(TEMPLATES) in (None, published_form(templates))


def probes(
    vault: Vault, templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine]
) -> list[tuple[str, Known[ProbeLogin]]]:
    """Return the standing credential of each probe that templates name.

    A probe without one is left out. Raises VaultRefused for an identity that may not read the probes.
    """
    users: dict[tuple[str, str], list[str]] = {}
    for _, template in sorted(templates.items()):
        if template.spec.probe:
            mounts = users.setdefault((template.spec.probe, template.spec.engine), [])
            mounts += [template.spec.mount] if template.spec.mount not in mounts else []
    return list(_standing(vault, engines, users))


def _standing(
    vault: Vault, engines: Mapping[str, Engine], users: Mapping[tuple[str, str], Sequence[str]]
) -> Iterator[tuple[str, Known[ProbeLogin]]]:
    for (name, engine), mounts in users.items():
        stored = Documents(vault).read(f"probes/{name}")
        if stored is None or engine not in engines:
            yield name, Unknown("there is no such probe", f"Write jitvault/probes/{name}: docs/reference.md.")
            continue
        try:
            probe = probe_of(engines[engine])
            login = probe.standing(stored.document)
            lacking = probe.missing_rights(stored.document)
        except JitvaultError as error:
            yield (
                name,
                Unknown(f"the target could not be asked: {error}", "Correct the probe's document or its target."),
            )
        except (KeyError, ValueError, TypeError) as error:
            # never the error's text: it may contain a part of the document
            why = f"its document is not valid ({type(error).__name__})"
            yield name, Unknown(why, f"Write jitvault/probes/{name} again.")
        else:
            if login is not None:
                seen = (login.role, login.rights, login.excess, lacking)
                yield name, ProbeLogin(name, mounts, *seen, written_at=stored.written_at)


def known(look: Callable[[], T]) -> Known[T]:
    """Return the result of `look`, or why it could not be read."""
    try:
        return look()
    except (VaultRejected, WorkerRefused) as error:
        return Unknown(str(error), error.hint)
    except VaultRefused as error:
        return Unknown(f"Vault does not let this identity read it ({error})", NO_ADMIN.mend)
    except JitvaultError as error:
        return Unknown(str(error), error.hint)
