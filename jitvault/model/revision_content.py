"""The fields of a revision: who asks for what, resolved against what Vault has.

Who reads a revision decodes its bytes as a `RevisionContent`. The bytes themselves are what is signed, and they are
never made again from these fields.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from jitvault.model.connection import ConnectionFacts
from jitvault.model.vault_access import Capability
from jitvault.policy.decision import Seconds


class Party(Struct, frozen=True, forbid_unknown_fields=True):
    """A Vault entity with a part in the task, and the name that Vault had for it."""

    entity: str
    name: str


class Parties(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The entities with a part in a task."""

    requester: Party
    agent: Party
    owner: Party

    @property
    def names(self) -> dict[str, str]:
        """Their names, by entity."""
        return {party.entity: party.name for party in (self.requester, self.agent, self.owner)}


class Link(Parties, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A task above that handed its access on; `digest` is that of its revision."""

    task: str
    digest: str


class TemplateFacts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What policy asks of a template."""

    template: str
    template_owner: str
    tier: str
    data_domains: list[str]
    lease_budget: int


class Access(TemplateFacts, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One access of a task. Fields with a default are left out of the bytes where they are empty."""

    template_digest: str
    description: str
    with_: dict[str, str] = field(name="with")
    engine: str
    mount: str
    path: str
    capability: Capability
    data: dict[str, str]
    ttl_s: Seconds
    max_window_s: Seconds
    wrap_ttl_s: Seconds
    confirm: str
    probe: str | None
    confirm_why: str | None
    policy: str
    policy_sha256: str
    engine_config: str
    verifiers: list[str] = []
    accepted_after_end_s: Seconds | None = None
    connection: ConnectionFacts | None = None

    @property
    def chosen(self) -> str:
        """The template, with the chosen parameters as `a=b, c=d` where it has any."""
        choices = ", ".join(f"{name}={value}" for name, value in sorted(self.with_.items()))
        return " with ".join(filter(None, (self.template, choices)))


class RevisionContent(Parties, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """All of a revision. `spec` is the canonical spec, which `Revision.spec` reads."""

    api_version: Literal["jitvault.dev/v1"] = field(name="apiVersion")
    kind: Literal["Revision"]
    installation: str
    task: str
    revision: int
    risk: str
    spec: dict[str, Any]
    access: list[Access]
    cidrs: list[str]
    delegation: list[Link] = []
