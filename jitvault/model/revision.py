"""A revision: all that is decided about, in one document, one digest.

Approvers sign the digest, so the document contains whatever changes what would be granted: the spec, the
templates, the resolved paths, the ACL policies and the engine's configuration. Times that depend on the moment of
the grant are left out, so that equal specs give equal digests. The document is in canonical form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import Any

import msgspec
from msgspec import Struct, field

from jitvault.errors import CorruptRecord, InvalidInput
from jitvault.formats.canonical_json import canonical_bytes, digest_of, sha256_hex
from jitvault.formats.conversion import converter
from jitvault.formats.time_window import Window
from jitvault.model.connection import ConnectionFacts, CredentialUse, uses_of_access
from jitvault.model.spec import TaskSpec
from jitvault.model.template import AccessTemplate
from jitvault.model.ttl import requested_ttl
from jitvault.model.vault_access import AccessPolicy, Capability, Fetch
from jitvault.policy.decision import Seconds, highest


class Party(Struct, frozen=True, forbid_unknown_fields=True):
    """A Vault entity with a part in the task, and the name that Vault had for it."""

    entity: str
    name: str

    def as_json(self) -> dict[str, str]:
        return {"entity": self.entity, "name": self.name}


@dataclass(frozen=True, slots=True)
class Resolved:
    """One access of the spec, resolved against what Vault has.

    `engine` is the snapshot of the engine's configuration, and `capability` is what its paths take.
    """

    template: AccessTemplate
    with_: Mapping[str, str]
    path: str
    policy: AccessPolicy
    engine: Mapping[str, Any]
    capability: Capability = "read"

    def as_json(self) -> dict[str, Any]:
        body = self.template.spec
        found: dict[str, Any] = {
            "template": self.template.name,
            "template_digest": f"sha256:{self.template.digest()}",
            "description": self.template.metadata.description,
            "with": dict(self.with_),
            "engine": body.engine,
            "mount": body.mount,
            "path": self.path,
            "capability": self.capability,
            "data": body.fill_data(self.with_),
            "template_owner": self.template.metadata.owner,
            "tier": body.tier,
            "data_domains": list(body.data_domains),
            "ttl_s": body.ttl // timedelta(seconds=1),
            "max_window_s": body.max_window // timedelta(seconds=1),
            "wrap_ttl_s": body.wrap_ttl // timedelta(seconds=1),
            "lease_budget": body.lease_budget,
            "confirm": body.confirm,
            "probe": body.probe,
            "confirm_why": body.confirm_why,
            "policy": self.policy.name,
            "policy_sha256": self.policy.sha256,
            "engine_config": digest_of(self.engine),
            # left out when empty: revisions from before there were verifiers keep their digest
            **({"verifiers": list(body.verifiers)} if body.verifiers else {}),
        }
        if body.accepted_after_end is not None:
            found["accepted_after_end_s"] = body.accepted_after_end // timedelta(seconds=1)
        connection = body.fill_connection(self.with_)
        if connection is not None:
            # left out when absent, as the verifiers are
            found["connection"] = connection.as_json()
        return found


class _Link(Struct, frozen=True):
    task: str
    digest: str
    requester: Party
    agent: Party
    owner: Party


class _Access(Struct, frozen=True):
    template: str
    description: str
    engine: str
    path: str
    capability: str
    data: dict[str, Any]
    tier: str
    ttl_s: Seconds
    wrap_ttl_s: Seconds
    lease_budget: int
    confirm: str
    with_: dict[str, str] = field(name="with")
    confirm_why: str | None = None
    accepted_after_end_s: Seconds | None = None
    max_window_s: Seconds | None = None
    verifiers: list[str] = []
    connection: ConnectionFacts | None = None


class _SpecBody(Struct, frozen=True):
    intent: str
    parent: str | None = None


class _Spec(Struct, frozen=True):
    spec: _SpecBody


class _Content(Struct, frozen=True):
    """The form of a revision's content, as far as anyone reads it."""

    installation: str
    task: str
    revision: int
    requester: Party
    agent: Party
    owner: Party
    risk: str
    spec: _Spec
    access: list[_Access]
    cidrs: list[str]
    delegation: list[_Link] = []


_content = converter(_Content)


def _corrupt(error: Exception) -> CorruptRecord:
    return CorruptRecord(f"a revision is not one that jitvault wrote ({type(error).__name__})")


@dataclass(frozen=True)
class Revision:
    """One revision as bytes, with its content parsed once.

    The digest covers the bytes and nothing else.
    """

    body: bytes
    digest: str

    @staticmethod
    def of(body: bytes) -> Revision:
        """Return the cached revision of these bytes.

        Callers must not change its content.
        """
        return _revision_of(body)

    @cached_property
    def content(self) -> dict[str, Any]:
        """Return what the bytes say.

        Raises CorruptRecord unless a revision has this form.
        """
        try:
            found: dict[str, Any] = msgspec.json.decode(self.body)
            _content(found)
        except (ValueError, RecursionError) as error:
            raise _corrupt(error) from None
        return found

    @cached_property
    def spec(self) -> TaskSpec:
        """The task's spec. Raises CorruptRecord."""
        try:
            return TaskSpec.from_data(self.content["spec"], "the approved spec")
        except InvalidInput as error:
            raise _corrupt(error) from None

    @property
    def access(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.content["access"]
        return found

    @property
    def lease_budget(self) -> int:
        """How many leases one token of the task may get, by all templates."""
        return sum(entry["lease_budget"] for entry in self.access)

    @property
    def fetches(self) -> list[Fetch]:
        """The requests by which the agent gets its credentials."""
        return [Fetch(e["template"], e["path"], e["capability"], e["data"]) for e in self.access]

    @property
    def uses(self) -> list[CredentialUse]:
        """Where each credential is used, as far as its template says it."""
        return uses_of_access(self.access)

    @property
    def window(self) -> Window:
        return self.spec.window

    @property
    def requested_ttl_s(self) -> int:
        """How long a credential may live without a renewal, in seconds.

        This is what the spec requests, or the default of its criticality.
        """
        body = self.spec.spec
        return requested_ttl(body.window.ttl, body.criticality) // timedelta(seconds=1)

    @property
    def delegation(self) -> list[dict[str, Any]]:
        """The tasks that handed the access on, from the first one to the parent.

        The list is empty without delegation.
        """
        found: list[dict[str, Any]] = self.content.get("delegation", [])
        return found

    def involved(self) -> dict[str, str]:
        """Return the entities that cannot approve the revision.

        Each has its part in the task, or in an ancestor that handed access on. Policy may let an owner approve, so that
        another part of the same entity, wherever it is, goes before that; and a part in the task before one above.
        """
        held = [*((link, f" of {link['task']}") for link in self.delegation), (self.content, "")]
        ranked = (("owner",), ("agent", "requester"))
        return {task[part]["entity"]: part + of for parts in ranked for task, of in held for part in parts}

    def template_of(self, path: str) -> dict[str, Any] | None:
        return next((entry for entry in self.access if entry["path"] == path), None)


@lru_cache(maxsize=256)
def _revision_of(body: bytes) -> Revision:
    # Each look at a task reads many fields of one revision.
    return Revision(body, "sha256:" + sha256_hex(body))


def build(
    *,
    installation: str,
    number: int,
    spec: TaskSpec,
    requester: Party,
    agent: Party,
    owner: Party,
    access: Sequence[Resolved],
    cidrs: Sequence[str],
    delegation: Sequence[Mapping[str, Any]] = (),
) -> Revision:
    """Return revision `number` of a task; equal arguments give equal bytes.

    `delegation` has the form of `Revision.delegation`. Raises InvalidInput if two of the accesses would send
    different data to one path.
    """
    _refuse_mixed(access)
    tiers = [entry.template.spec.tier for entry in access]
    content = {
        "apiVersion": "jitvault.dev/v1",
        "kind": "Revision",
        "installation": installation,
        "task": spec.id,
        "revision": number,
        "requester": requester.as_json(),
        "agent": agent.as_json(),
        "owner": owner.as_json(),
        "risk": highest([*tiers, spec.spec.criticality]).value,
        "spec": spec.canonical(),
        "access": [entry.as_json() for entry in access],
        "cidrs": sorted(cidrs),
    }
    if delegation:
        content["delegation"] = [dict(link) for link in delegation]
    return Revision.of(canonical_bytes(content))


def _refuse_mixed(access: Sequence[Resolved]) -> None:
    """Raise InvalidInput if two accesses send different data to one path.

    Vault combines the policies of a token: with two of them on one path, a request could take a name from one and a
    TTL from the other. Besides, a lease would not say which access it belongs to.
    """
    policies: dict[str, str] = {}
    for entry in access:
        if policies.setdefault(entry.path, entry.policy.name) != entry.policy.name:
            raise InvalidInput(
                f"spec.access: two entries send different data to {entry.path}; a task can have one of them",
                hint="Make a task of its own for each.",
            )


def names_in(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the entities with a part in a revision, by id."""
    return {content[part]["entity"]: content[part]["name"] for part in ("requester", "agent", "owner")}
