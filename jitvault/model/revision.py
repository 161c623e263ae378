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

from jitvault.errors import CorruptRecord, InvalidInput
from jitvault.formats.canonical_json import canonical_bytes, digest_of, sha256_hex
from jitvault.formats.time_window import Window
from jitvault.model.connection import CredentialUse
from jitvault.model.revision_content import Access, Link, Party, RevisionContent
from jitvault.model.spec import TaskSpec
from jitvault.model.template import AccessTemplate
from jitvault.model.ttl import requested_ttl
from jitvault.model.vault_access import AccessPolicy, Capability, Fetch
from jitvault.policy.decision import highest

_SECOND = timedelta(seconds=1)


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

    def approved(self) -> Access:
        """Return what of it approvers sign."""
        body = self.template.spec
        after = body.accepted_after_end
        return Access(
            template=self.template.name,
            template_digest=f"sha256:{self.template.digest()}",
            description=self.template.metadata.description,
            with_=dict(self.with_),
            engine=body.engine,
            mount=body.mount,
            path=self.path,
            capability=self.capability,
            data=body.fill_data(self.with_),
            template_owner=self.template.metadata.owner,
            tier=body.tier,
            data_domains=list(body.data_domains),
            ttl_s=body.ttl // _SECOND,
            max_window_s=body.max_window // _SECOND,
            wrap_ttl_s=body.wrap_ttl // _SECOND,
            lease_budget=body.lease_budget,
            confirm=body.confirm,
            probe=body.probe,
            confirm_why=body.confirm_why,
            policy=self.policy.name,
            policy_sha256=self.policy.sha256,
            engine_config=digest_of(self.engine),
            verifiers=list(body.verifiers),
            accepted_after_end_s=None if after is None else after // _SECOND,
            connection=body.fill_connection(self.with_),
        )


_content = msgspec.json.Decoder(RevisionContent)


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
    def content(self) -> RevisionContent:
        """Return what the bytes say.

        Raises CorruptRecord unless a revision has this form.
        """
        try:
            return _content.decode(self.body)
        except (ValueError, RecursionError) as error:
            raise _corrupt(error) from None

    @cached_property
    def spec(self) -> TaskSpec:
        """The task's spec. Raises CorruptRecord."""
        try:
            return TaskSpec.from_data(self.content.spec, "the approved spec")
        except InvalidInput as error:
            raise _corrupt(error) from None

    def check_form(self) -> Revision:
        """Return the revision itself. Raises CorruptRecord where its content or its spec cannot be read."""
        _ = self.content, self.spec
        return self

    @property
    def recipient(self) -> Party:
        """Whose inbox the wrapping token goes to."""
        return self.content.agent if self.spec.spec.deliver == "agent" else self.content.requester

    @property
    def access(self) -> list[Access]:
        return self.content.access

    @property
    def lease_budget(self) -> int:
        """How many leases one token of the task may get, by all templates."""
        return sum(entry.lease_budget for entry in self.access)

    @property
    def fetches(self) -> list[Fetch]:
        """The requests by which the agent gets its credentials."""
        return [Fetch(e.template, e.path, e.capability, e.data) for e in self.access]

    @property
    def uses(self) -> list[CredentialUse]:
        """Where each credential is used, as far as its template says it."""
        return [
            CredentialUse(template=e.template, path=e.path, choices=e.with_, connection=e.connection)
            for e in self.access
        ]

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
    def delegation(self) -> list[Link]:
        """The tasks that handed the access on, from the first one to the parent.

        The list is empty without delegation.
        """
        return self.content.delegation

    def involved(self) -> dict[str, str]:
        """Return the entities that cannot approve the revision.

        Each has its part in the task, or in an ancestor that handed access on. Policy may let an owner approve, so that
        another part of the same entity, wherever it is, goes before that; and a part in the task before one above.
        """
        held = [*((link, f" of {link.task}") for link in self.delegation), (self.content, "")]
        ranked = (("owner",), ("agent", "requester"))
        return {getattr(task, part).entity: part + of for parts in ranked for task, of in held for part in parts}

    def access_at(self, path: str) -> Access | None:
        """Return the access whose credentials Vault gives at this path."""
        return next((entry for entry in self.access if entry.path == path), None)

    def template_at(self, path: str) -> str | None:
        """Return the name of its template."""
        return next((entry.template for entry in self.access if entry.path == path), None)


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
    delegation: Sequence[Link] = (),
) -> Revision:
    """Return revision `number` of a task; equal arguments give equal bytes.

    `delegation` has the form of `Revision.delegation`. Raises InvalidInput if two of the accesses would send
    different data to one path.
    """
    _refuse_mixed(access)
    tiers = [entry.template.spec.tier for entry in access]
    content = RevisionContent(
        api_version="jitvault.dev/v1",
        kind="Revision",
        installation=installation,
        task=spec.id,
        revision=number,
        requester=requester,
        agent=agent,
        owner=owner,
        risk=highest([*tiers, spec.spec.criticality]).value,
        spec=spec.canonical(),
        access=[entry.approved() for entry in access],
        cidrs=sorted(cidrs),
        delegation=list(delegation),
    )
    return Revision.of(canonical_bytes(msgspec.to_builtins(content)))


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
