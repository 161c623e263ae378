"""The interface of a secrets engine.

Entry points are in the group `jitvault.engines`.
"""

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
    """A probe's own identity at its target.

    `rights` are what it may do there, and `excess` are those of them that no probe needs.
    """

    role: str
    rights: tuple[str, ...]
    excess: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TargetFinding:
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


class Resisting(Protocol):
    """A credential whose holder resists its end, while a template is checked."""

    seen: str
    """What the holder did, or what the target did not let it do."""

    def remaining(self) -> str:
        """Return what remains of the credential; empty if nothing does."""
        ...


@dataclass(frozen=True, slots=True)
class After:
    """What a revoked credential can still do, while a template is checked.

    `works` says that it can do more than it may, and `stays` that people have to end it then. `seen` says what was
    looked at and what was not, `mend` what to do if it works. An administrator has to read what is `told` even if
    nothing is wrong.
    """

    works: bool
    seen: str
    mend: str = ""
    told: bool = False
    stays: bool = True


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


class Engine(Protocol):
    name: str

    capability: Capability
    """What a task token needs on the issuing paths: `read`, or `update` if data are sent."""

    non_hmac_response_keys: tuple[str, ...]
    """Response keys that the mount shows in plain in the audit stream, so that a probe knows what to look for.

    The first of them names a credential at its target.
    """

    remedies: Mapping[str, str]
    """What to do if a step of the template check fails, by the step's name."""

    def snapshot(self, read: Read, mount: str, path: str) -> dict[str, Any]:
        """Return the configuration that decides about a path's credentials.

        It decides what a credential can do and how it is revoked. The credential is one of `mount/path`. The result
        is JSON data without secrets; a change of it is drift. Raises InvalidInput if there is no such role.
        """
        ...

    def check_template(self, spec: TemplateBody, snapshot: Mapping[str, Any] | None = None) -> None:
        """Raise InvalidInput for a template that issues more than it says.

        A longer life is more, too. The template is judged by itself, and by a `snapshot` if there is one.
        """
        ...

    def why_no_credential(self, path: str, snapshot: Mapping[str, Any]) -> str | None:
        """Return what to correct where Vault gives no credential of `path`.

        `path` is below the mount. None if the `snapshot` shows no reason.
        """
        ...

    def clear_by_hand(self, mount: str, name: str) -> tuple[str, ...]:
        """Return the commands by which an administrator ends a credential.

        They are for one that Vault could not revoke. `name` is its name at the target.
        """
        ...

    def limits(self, spec: TemplateBody) -> Limits | None:
        """Return what a template bounds in its mount's configuration, or None."""
        ...

    def upkeep(self, read: Read, mount: str) -> Upkeep | None:
        """Return what a worker reads to keep the mount's public answers valid.

        The result is None if nothing is needed.
        """
        ...

    def check_issued(
        self, spec: TemplateBody, data: Mapping[str, str], snapshot: Mapping[str, Any], issued: Mapping[str, Any]
    ) -> str:
        """Describe in a sentence what was issued when `data` was sent.

        `issued` is Vault's answer, with the secret. Raises NotConfirmed if more was issued than was requested. Only
        an administrator's check calls this.
        """
        ...

    def worker_paths(self, mount: str, path: str) -> tuple[str, ...]:
        """Return the paths that `snapshot` and `upkeep` read."""
        ...

    def probe(
        self, where: Mapping[str, Any], names: Sequence[str], *, look_only: bool = False
    ) -> Mapping[str, ProbeResult]:
        """Ask the target about each credential, and end what is still open.

        `names` are the target's names of the credentials. For a name that the target does not know, any open
        session without a known owner may be its own. With `look_only` nothing is ended: for a credential that may
        still be in use. `where` is the probe's document below `jitvault/probes/`; its `dsn` says how to reach the
        target. Raises NotConfirmed if the target cannot be asked, UsageError if this machine lacks something for
        it.
        """
        ...

    def stand_by(self, where: Mapping[str, Any]) -> Sequence[str]:
        """Stay able to ask the target even when it lets nobody in.

        A worker calls this again and again. Return the credentials that kept everybody out. While a credential is
        in the result, its sessions are ended at each call. It can be used again later, unless its task is ended.
        Raises NotConfirmed if the target cannot be asked now.
        """
        ...

    def close(self) -> None:
        """Close what `stand_by` keeps open."""
        ...

    def made_since(
        self, where: Mapping[str, Any], config: Mapping[str, Any], path: str, since: datetime
    ) -> Mapping[str, datetime]:
        """Return the target's credentials that a task's token may have got.

        The token got them from `path`. They were made at `since` or later. The result maps the target's name of
        each to the second in which Vault made it, by Vault's clock. Older ones may be among them, and those of
        others. `config` is what `snapshot` returned for the path. Raises NotConfirmed if the target cannot be asked
        or cannot tell.
        """
        ...

    def missing_rights(self, where: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the rights that the probe lacks at the target.

        It needs them to look and to end sessions.

        Raises ProbeUnusable if a server refuses the probe's login or the document is not valid, and NotConfirmed if a
        server does not answer.
        """
        ...

    def standing(self, where: Mapping[str, Any]) -> Login | None:
        """Return the probe's own identity at the target, or None.

        Raises JitvaultError.
        """
        ...

    def inspect(
        self, where: Mapping[str, Any], snapshot: Mapping[str, Any], name: str | None
    ) -> Sequence[TargetFinding]:
        """Return what lets a credential escape its end.

        Only what the probe can see is found. That is at the target, or in Vault's connection. `snapshot` is the
        engine's configuration. `name` is a credential that is alive; without it, what every credential of that
        connection can be given is looked at. Raises NotConfirmed if the target cannot be asked.
        """
        ...

    finds_unnamed: bool
    """Whether `made_since` can find credentials whose names are unknown."""
    resistances: Mapping[str, str]
    """The ways in which the holder of a credential can resist its end: the step of a check, and what is tried."""

    def resist(
        self, step: str, where: Mapping[str, Any], issued: Mapping[str, Any], other: Mapping[str, Any] | None
    ) -> AbstractContextManager[Resisting]:
        """Resist the end of a checked credential in the way of `step`.

        `other` is a credential of the same path, which helps and is revoked later. Leaving the context undoes what is
        still there. Entering raises NotConfirmed if the credential cannot be used at all.
        """
        ...

    def use(
        self, where: Mapping[str, Any], issued: Mapping[str, Any], verifiers: Verifiers = NO_VERIFIERS
    ) -> AbstractContextManager[CredentialInUse]:
        """Use a credential where the probe looks, and show it to verifiers.

        Those are the servers that the template names. `issued` is the data of Vault's answer, with the secret in
        it. Entering raises NotConfirmed if the target does not take the credential. Only an administrator's check
        calls this.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The target's own answer about a credential.

    `refused` says that the credential is refused, and `open_sessions` how many of its sessions were still open;
    None if nobody looked for sessions: then nothing is known of them. `seen` is False if the target did not answer:
    a target that cannot be asked neither refuses nor lets in.
    """

    refused: bool
    open_sessions: int | None
    evidence: str
    seen: bool = True

    @property
    def is_over(self) -> bool:
        """Whether the credential is refused, and no session of it was found open."""
        return self.refused and not self.open_sessions
