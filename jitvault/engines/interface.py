"""What jitvault has to know of a secrets engine. One file per engine; entry points `jitvault.engines`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from jitvault.model.template import TemplateBody
from jitvault.model.vault_access import Capability
from jitvault.model.verifiers import NO_VERIFIERS, Verifiers

Read = Callable[[str], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Login:
    """A probe's own identity at its target: what it may do there, and what of that no probe needs."""

    role: str
    rights: tuple[str, ...]
    excess: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TargetFinding:
    """Something at a target, or in Vault's connection to it, that lets a credential escape its end.

    `step` is the step of a template's check that it belongs to, `about` names it in a few words, `seen` says what is
    there and `mend` what to do. Where it is not `certain` it does no harm by itself, or may be meant.
    """

    step: str
    about: str
    seen: str
    mend: str
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """Durations in an engine's configuration that a template bounds: the longest one of each field of a Vault path.

    `init` shortens those that are longer, and reads the path `renew`, so that what was published before is replaced.
    `effect` says what comes of that.
    """

    path: str
    longest: Mapping[str, timedelta]
    renew: str
    effect: str


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What keeps fresh what an engine publishes: a Vault path that is read again and again."""

    path: str
    every: timedelta


class Resisting(Protocol):
    """A credential whose holder resists its end, while a template is checked."""

    seen: str
    """What the holder did, or what the target did not let it do."""

    def left(self) -> str:
        """What of it is still there, empty where nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class After:
    """What a credential can still do once it was revoked, while a template is checked.

    `works` where it can do more than it may, and `stays` where people have to end it then. `seen` says what was looked
    at and what was not, `mend` what to do where it works. An administrator has to read what is `told` also where
    nothing is wrong.
    """

    works: bool
    seen: str
    mend: str = ""
    told: bool = False
    stays: bool = True


class CredentialInUse(Protocol):
    """A credential in use at its target, while a template is checked. Each method raises NotConfirmed where the target
    does not say, and may do so where the sentence tells more than that it still works.
    """

    sessions: int | None
    """How many sessions it has open where the probe looks; None where the probe sees none."""

    seen: str
    """Where it was used, in words."""

    def still_works(self) -> After:
        """What became of what was opened with it. Of a certificate: what the CRL says, and what became of sessions at
        the servers that the template names.
        """
        ...

    def works_anew(self) -> After:
        """Whether the target lets it in once more. Of a certificate: what OCSP says, and what those servers do."""
        ...


class Engine(Protocol):
    name: str

    capability: Capability
    """What a task token needs on the paths that give its credentials: `read`, or `update` where something is sent."""

    non_hmac_response_keys: tuple[str, ...]
    """Response keys that the mount shows in plain in the audit stream, so that a probe knows whom to look for.

    The first of them names a credential at its target.
    """

    remedies: Mapping[str, str]
    """What to mend where a step of the check of a template fails, by the step's name."""

    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        """The configuration that decides what a credential of `mount/path` can do and how it is revoked.

        JSON data without secrets; a change of it is drift. Raises InvalidInput when there is no such role.
        """
        ...

    def check_template(self, spec: TemplateBody, snapshot: Mapping[str, Any] | None = None) -> None:
        """Refuse a template by which more comes, or lives longer, than it says: by itself, and by a `snapshot`.

        Raises InvalidInput.
        """
        ...

    def limits(self, spec: TemplateBody) -> Limits | None:
        """What a template bounds in the configuration of its mount; None where there is no such thing."""
        ...

    def upkeep(self, read: Read, mount: str) -> Upkeep | None:
        """What a worker has to read so that the mount's public answers stay valid; None where nothing is needed."""
        ...

    def check_issued(
        self, spec: TemplateBody, data: Mapping[str, str], snapshot: Mapping[str, Any], issued: Mapping[str, Any]
    ) -> str:
        """Say in a sentence what came when `data` was sent just now; `issued` is Vault's answer, with the secret.

        Raises NotConfirmed for more than was asked for. Only an administrator's check calls this.
        """
        ...

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        """The paths that `snapshot` and `upkeep` read."""
        ...

    def probe(
        self, where: Mapping[str, Any], names: Sequence[str], *, look_only: bool = False
    ) -> Mapping[str, ProbeResult]:
        """Ask the target about each credential, by the name that it knows it by, ending what is still open.

        Of a name that the target does not know, whatever is open and belongs to nobody who is known may be its own.
        With `look_only` nothing is ended: for a credential that may still be in use. `where` is the probe's document
        below `jitvault/probes/`; its `dsn` says how to reach the target. Raises NotConfirmed where it cannot be asked,
        UsageError where this machine lacks something for it.
        """
        ...

    def stand_by(self, where: Mapping[str, Any]) -> Sequence[str]:
        """Stay able to ask the target when it lets nobody in any more; called over and over by a worker.

        Gives the credentials that kept everybody out: while it names one, that one is thrown out as often as it is
        called. They can be used again later, unless somebody ends their tasks. Raises NotConfirmed where the target
        cannot be asked now.
        """
        ...

    def close(self) -> None:
        """End what `stand_by` keeps open."""
        ...

    def made_since(
        self, where: Mapping[str, Any], config: Mapping[str, Any], path: str, since: datetime
    ) -> Mapping[str, datetime]:
        """The credentials that the target has now and that a task's token may have got from `path` at `since` or later.

        By the name that the target knows each by, with the second in which Vault made it, by Vault's clock. Older ones
        may be among them, and those of others. `config` is what `snapshot` gave for the path. Raises NotConfirmed where
        the target cannot be asked or cannot tell.
        """
        ...

    def missing_rights(self, where: Mapping[str, Any]) -> tuple[str, ...]:
        """What the probe's own identity lacks at the target to look and to end what is open. Raises JitvaultError."""
        ...

    def standing(self, where: Mapping[str, Any]) -> Login | None:
        """The probe's own identity at the target; None where it has none. Raises JitvaultError."""
        ...

    def inspect(
        self, where: Mapping[str, Any], snapshot: Mapping[str, Any], name: str | None
    ) -> Sequence[TargetFinding]:
        """What at the target or in Vault's connection lets a credential escape its end, as far as the probe can see.

        `snapshot` is the engine's configuration. `name` is a credential that is alive; without it, what every
        credential of that connection can be given is looked at. Raises NotConfirmed where the target cannot be asked.
        """
        ...

    finds_unnamed: bool
    """Whether `made_since` can tell anything of credentials whose names nobody knows."""
    resistances: Mapping[str, str]
    """The ways in which the holder of a credential can resist its end: the step of a check, and what is tried."""

    def resist(
        self, step: str, where: Mapping[str, Any], issued: Mapping[str, Any]
    ) -> AbstractContextManager[Resisting]:
        """Do with a credential of a check what `step` is about; leaving undoes what is still there.

        Entering raises NotConfirmed where the credential cannot be used at all.
        """
        ...

    def use(
        self, where: Mapping[str, Any], issued: Mapping[str, Any], verifiers: Verifiers = NO_VERIFIERS
    ) -> AbstractContextManager[CredentialInUse]:
        """Use a credential where the probe looks, and show it to the servers that the template names besides.

        `issued` is the data of Vault's answer, with the secret in it.

        Entering raises NotConfirmed when the target does not take it. Only an administrator's check calls this.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the target itself said: is the credential refused, how many of its sessions were still open.

    `open_sessions` is None where nobody looked for any: then nothing is known of them. `seen` is False where the target
    said nothing: what cannot be asked does not refuse, and does not let in either.
    """

    refused: bool
    open_sessions: int | None
    evidence: str
    seen: bool = True

    @property
    def is_over(self) -> bool:
        """Whether it is refused, and no session of it was found open."""
        return self.refused and not self.open_sessions
