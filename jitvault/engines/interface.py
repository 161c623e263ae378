"""What a new secrets engine has to write: an `Engine`, and if it can, a `Probe` and a `Trial`.

`Engine` is what any engine has. A `Probe` asks the engine's target, so that an end is proven there and not by Vault's
word alone. A `Trial` is what a template check tries with a live credential. Both are optional, and every method that is
not abstract may stay as it is. docs/engines.md walks through a whole engine.

An engine says nothing about audit lines. A line whose answer has a lease is an issue, and any other line of the task's
token is a use. A write to `config`, `roles`, `reset` or `rotate-…` below a mount, or to an issuer, is a hazard
(`audit/hazard_paths.py`): what `snapshot` reads has to be among these.

The entry points are in the group `jitvault.engines`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Protocol

from jitvault.errors import InvalidInput, NotConfirmed
from jitvault.model.evidence import SignedForm
from jitvault.model.template import AccessTemplate, TemplateBody
from jitvault.model.vault_access import Capability
from jitvault.model.verifiers import NO_VERIFIERS, Verifiers

Read = Callable[[str], Mapping[str, Any] | None]


class Engine(ABC):
    """What any engine has: what decides about a credential in Vault, and what may be asked for."""

    name: str
    """The name that templates give as `engine`."""

    capability: Capability = "read"
    """What a task token needs on the issuing paths: `read`, or `update` if data are sent."""

    probe: Probe | None = None
    """How the engine's target is asked. Without it a template says `confirm: audit`."""

    trial: Trial | None = None
    """What a template check tries with a credential; it needs a probe."""

    @property
    def mount_type(self) -> str:
        """Return the type that Vault gives the engine's mounts.

        It is the engine's name unless the engine says otherwise. Two engines can share a type, such as `database`.
        """
        return self.name

    @abstractmethod
    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        """Return the configuration that decides about a path's credentials.

        It decides what a credential can do and how it is revoked. The credential is one of `mount/path`. The result
        is JSON data without secrets; a change of it is drift. Raises InvalidInput if there is no such role.
        """

    @abstractmethod
    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        """Return the paths that `snapshot` and `upkeep` read: the worker gets the right to."""

    def check_template(self, spec: TemplateBody, snapshot: Mapping[str, Any] | None = None) -> None:  # noqa: B027
        """Raise InvalidInput for a template that issues more than it says.

        A longer life is more, too. The template is judged by itself, and by a `snapshot` if there is one.
        """

    def limits(self, spec: TemplateBody) -> Limits | None:
        """Return what a template bounds in its mount's configuration by its `accepted_after_end`, or None."""
        return None

    def upkeep(self, read: Read, mount: str) -> Upkeep | None:
        """Return what a worker reads to keep the mount's public answers valid, or None if it needs nothing."""
        return None


class Probe(ABC):
    """Asks an engine's target about credentials, and ends what is still open there.

    `where` is always the probe's document below `jitvault/probes/`, whose `dsn` says how to reach the target. Each
    method raises NotConfirmed if the target cannot be asked.
    """

    credential_key: str
    """The field of Vault's answer that names a credential at its target, one of `audit.entry.TARGET_NAMES`.

    The mount shows it in plain in the audit stream.
    """

    finds_unnamed: bool = False
    """Whether `made_since` can find credentials whose names are unknown."""

    @abstractmethod
    def ask(
        self, where: Mapping[str, Any], names: Sequence[str], *, look_only: bool = False
    ) -> Mapping[str, ProbeResult]:
        """Ask the target about each credential, and end what is still open.

        `names` are the target's names of the credentials. For a name that the target does not know, any open
        session without a known owner may be its own. With `look_only` nothing is ended: for a credential that may
        still be in use. Raises UsageError if this machine lacks something for it.
        """

    @abstractmethod
    def missing_rights(self, where: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the rights that the probe needs at the target, to look and to end sessions, and lacks.

        Raises ProbeUnusable if a server refuses the probe's login or the document is not valid.
        """

    def standing(self, where: Mapping[str, Any]) -> Login | None:
        """Return the probe's own identity at the target, or None if it needs none."""
        return None

    def made_since(
        self, where: Mapping[str, Any], config: Mapping[str, Any], path: str, since: datetime
    ) -> Mapping[str, datetime]:
        """Return the target's credentials that a task's token may have got from `path` at `since` or later.

        The result maps the target's name of each to the second in which Vault made it, by Vault's clock. Older ones
        may be among them, and those of others. `config` is what `snapshot` returned for the path. Raises NotConfirmed
        also if the target cannot tell.
        """
        raise NotConfirmed("the target does not say which of its credentials were made when")

    def stand_by(self, where: Mapping[str, Any]) -> Sequence[str]:
        """Stay able to ask the target even when it lets nobody in.

        A worker calls this again and again. Return the credentials that kept everybody out. While a credential is
        in the result, its sessions are ended at each call. It can be used again later, unless its task is ended.
        """
        return ()

    def close(self) -> None:  # noqa: B027
        """Close what `stand_by` keeps open."""


class Trial(ABC):
    """What an administrator's template check tries at the target with a live credential."""

    remedies: Mapping[str, str] = MappingProxyType({})
    """What to do if a step of the template check fails, by the step's name."""

    resistances: Mapping[str, str] = MappingProxyType({})
    """The ways in which the holder of a credential can resist its end: the step of a check, and what is tried."""

    @abstractmethod
    def use(
        self, where: Mapping[str, Any], issued: Mapping[str, Any], verifiers: Verifiers = NO_VERIFIERS
    ) -> AbstractContextManager[CredentialInUse]:
        """Use a credential where the probe looks, and show it to the servers that the template names.

        `issued` is the data of Vault's answer, with the secret in it. Entering raises NotConfirmed if the target
        does not take the credential.
        """

    @abstractmethod
    def clear_by_hand(self, mount: str, name: str) -> tuple[str, ...]:
        """Return the commands by which an administrator ends a credential that Vault could not revoke.

        `name` is its name at the target.
        """

    def why_no_credential(self, path: str, snapshot: Mapping[str, Any]) -> str | None:
        """Return what to correct where Vault gives no credential of `path`, which is below the mount.

        None if the `snapshot` shows no reason.
        """
        return None

    def check_issued(
        self, spec: TemplateBody, data: Mapping[str, str], snapshot: Mapping[str, Any], issued: Mapping[str, Any]
    ) -> str:
        """Describe in a sentence what was issued when `data` was sent.

        `issued` is Vault's answer, with the secret. Raises NotConfirmed if more was issued than was requested.
        """
        return "a credential is what its role makes: nothing is asked for"

    def inspect(self, where: Mapping[str, Any], snapshot: Mapping[str, Any], name: str | None) -> Sequence[Finding]:
        """Return what lets a credential escape its end, at the target or in Vault's connection.

        Only what the probe can see is found. `name` is a credential that is alive; without it, what every credential
        of that connection can be given is looked at. Raises NotConfirmed if the target cannot be asked.
        """
        return ()

    def resist(
        self, step: str, where: Mapping[str, Any], issued: Mapping[str, Any], other: Mapping[str, Any] | None
    ) -> AbstractContextManager[Resisting]:
        """Resist the end of a checked credential in the way of `step`, one of `resistances`.

        `other` is a credential of the same path, which helps and is revoked later. Leaving the context undoes what is
        still there. Entering raises NotConfirmed if the credential cannot be used at all.
        """
        raise NotConfirmed(f"nothing resists by {step}")


def check_template(engine: Engine, spec: TemplateBody, snapshot: Mapping[str, Any] | None = None) -> None:
    """Raise InvalidInput for a template that promises what its engine cannot keep.

    One that issues more than it says is refused as well.
    """
    if spec.probe is not None and engine.probe is None:
        raise InvalidInput(
            f"the engine {engine.name} has no probe: nothing asks its target",
            hint="Remove spec.probe, set confirm: audit, and say in confirm_why why the target is not asked.",
        )
    if spec.accepted_after_end is not None and engine.limits(spec) is None:
        raise InvalidInput(
            f"a {engine.name} template has no accepted_after_end: nothing accepts a credential that is gone",
            hint="Remove spec.accepted_after_end.",
        )
    engine.check_template(spec, snapshot)


def engine_of(engines: Mapping[str, Engine], template: AccessTemplate) -> Engine:
    """Return a template's engine. Raises InvalidInput for one that is not installed."""
    found = engines.get(template.spec.engine)
    if found is None:
        raise InvalidInput(f"template {template.name}: unknown engine {template.spec.engine}")
    return found


def probe_of(engine: Engine) -> Probe:
    """Return the engine's probe. Raises NotConfirmed if it has none."""
    if engine.probe is None:
        raise NotConfirmed(f"not probed: the engine {engine.name} has no probe")
    return engine.probe


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The target's own answer about a credential.

    `refused` says that the credential is refused, and `open_sessions` how many of its sessions were still open;
    None if nobody looked for sessions: then nothing is known of them. `seen` is False if the target did not answer:
    a target that cannot be asked neither refuses nor lets in. `signed` is what the target signed of it, if it signs.
    """

    refused: bool
    open_sessions: int | None
    evidence: str
    seen: bool = True
    signed: tuple[SignedForm, bytes] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the credential is refused, and no session of it was found open."""
        return self.refused and not self.open_sessions


@dataclass(frozen=True, slots=True)
class Login:
    """A probe's own identity at its target.

    `rights` are what it may do there, and `excess` are those of them that no probe needs.
    """

    role: str
    rights: tuple[str, ...]
    excess: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that lets a credential escape its end.

    It is at a target, or in Vault's connection to it. `step` is the step of a template check that it belongs to,
    `about` names it in a few words, `seen` says what is there and `mend` what to do. If it is not `certain`, it
    does no harm by itself, or may be intended.
    """

    step: str
    about: str
    seen: str
    mend: str
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """The durations in an engine's configuration that a template bounds.

    `longest` has the longest duration of each field of the Vault path `path`. `init` shortens longer ones and reads
    the path `renew`, so that what was published before is replaced. `effect` says what follows from that.
    """

    path: str
    longest: Mapping[str, timedelta]
    renew: str
    effect: str


@dataclass(frozen=True, slots=True)
class Upkeep:
    """A Vault path that is read regularly to keep published data fresh.

    An engine publishes those data, such as a revocation list.
    """

    path: str
    every: timedelta


class CredentialInUse(Protocol):
    """A credential in use at its target, while a template is checked.

    Each method raises NotConfirmed if the target does not answer. It may raise that also where the sentence says
    more than that the credential still works.
    """

    sessions: int | None
    """How many sessions it has open where the probe looks; None if the probe sees none."""

    seen: str
    """Where it was used, in words."""

    def still_works(self) -> After:
        """Return what became of the sessions that were opened with the credential.

        For a certificate: what the CRL says, and what became of sessions at the servers that the template names.
        """
        ...

    def works_anew(self) -> After:
        """Return whether the target lets the credential in once more.

        For a certificate: what OCSP says, and what the servers of the template do.
        """
        ...


@dataclass(frozen=True, slots=True)
class After:
    """What a revoked credential can still do, while a template is checked.

    `works` says that it can do more than it may, and `stays` that people have to end it then. `seen` says what was
    looked at and what was not, `mend` what to do if it works. `is_remark` says that an administrator has to read `seen`
    even if nothing is wrong.
    """

    works: bool
    seen: str
    mend: str = ""
    is_remark: bool = False
    stays: bool = True


class Resisting(Protocol):
    """A credential whose holder resists its end, while a template is checked."""

    seen: str
    """What the holder did, or what the target did not let it do."""

    def remaining(self) -> str:
        """Return what remains of the credential; empty if nothing does."""
        ...
