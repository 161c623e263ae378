"""Steps of a template's check in which a credential resists revocation.

It does so as its holder could. All credentials are issued first, then revoked one after the other, then probed
together, so that the probe's waiting time is spent only once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from jitvault.engines.interface import Probe, ProbeResult, Resisting, Trial
from jitvault.errors import JitvaultError, VaultUnavailable
from jitvault.provision.template_check.steps import Found, LeftBehind
from jitvault.vault.client import Vault

_PAUSES_S = (0.0, 0.1, 0.4, 1.5)


@dataclass(slots=True)
class _Credential:
    """A credential that resists.

    It has a lease, a name at the target, and what failed in its revocation.
    """

    lease_id: str = ""
    name: str = ""
    resisting: Resisting | None = None
    failure: str = ""
    mend: str = ""
    revoked: bool = False
    ms: int = 0


@dataclass(repr=False)
class Resistance:
    """The trial of several ways to resist.

    Each has a credential from the path under check. `_issue` reads a fresh one, and `_announce` gets all leases each
    time that one more is known.
    """

    _vault: Vault
    _probe: Probe
    _trial: Trial
    _where: Mapping[str, Any]
    _issue: Callable[[], Mapping[str, Any]]
    _announce: Callable[[tuple[str, ...]], None]
    _credentials: dict[str, _Credential] = field(default_factory=dict)
    _dead: frozenset[str] = frozenset()
    _first: Mapping[str, Any] | None = None

    @property
    def leases(self) -> tuple[str, ...]:
        return tuple(credential.lease_id for credential in self._credentials.values() if credential.lease_id)

    def run(self, steps: Sequence[str]) -> Mapping[str, Found]:
        """Try `steps`, and return the result of each by name."""
        with ExitStack() as stack:
            for step in steps:
                self._begin(step, stack)
            # the first one helps the others, so it has to outlive them
            for credential in reversed(self._credentials.values()):
                if credential.lease_id:
                    self._revoke(credential)
            probed = self._ask()
            return {step: self._judged(credential, probed) for step, credential in self._credentials.items()}

    def _begin(self, step: str, stack: ExitStack) -> None:
        credential = self._credentials[step] = _Credential()
        try:
            answer = self._issue()
            credential.lease_id = str(answer.get("lease_id") or "")
            self._announce(self.leases)
            data: Mapping[str, Any] = answer.get("data") or {}
            credential.name = str(data.get(self._probe.credential_key) or "")
            first, self._first = self._first, self._first or data
            credential.resisting = stack.enter_context(self._trial.resist(step, self._where, data, first))
        except JitvaultError as error:
            credential.failure = f"it could not be tried: {error}"
            credential.mend = error.hint

    def _revoke(self, credential: _Credential) -> None:
        begun = time.monotonic()
        try:
            self._vault.write(f"sys/leases/revoke/{credential.lease_id}", {"sync": True})
            credential.revoked = True
        except JitvaultError as error:
            credential.failure = credential.failure or f"Vault could not revoke the lease: {error}"
        credential.ms = round((time.monotonic() - begun) * 1000)

    def _ask(self) -> Mapping[str, ProbeResult]:
        names = [credential.name for credential in self._credentials.values() if credential.name]
        try:
            found = self._probe.ask(self._where, names)
        except JitvaultError as error:
            return {
                name: ProbeResult(refused=False, open_sessions=None, evidence=str(error), seen=False) for name in names
            }
        self._dead = frozenset(name for name in names if found[name].is_over)
        return found

    def _judged(self, credential: _Credential, probed: Mapping[str, ProbeResult]) -> Found:
        if credential.resisting is None:
            return Found(False, credential.failure or "it could not be tried", credential.mend)
        remaining = credential.resisting.remaining()
        seen = probed[credential.name]
        revocation = credential.failure or f"revoked in {credential.ms} ms"
        evidence = [credential.resisting.seen, revocation, remaining, seen.evidence]
        ok = not credential.failure and not remaining and credential.name in self._dead
        return Found(ok, "; ".join(filter(None, evidence)))

    def clean_up(self, by_hand: Callable[[str], tuple[str, ...]]) -> list[LeftBehind]:
        """Revoke what is still there, and return what could not be revoked.

        Nothing resists any more at this time. `by_hand` gives the commands that end a credential at its target.
        """
        left_behind = []
        for credential in reversed(self._credentials.values()):
            lease_id = credential.lease_id
            if lease_id and not credential.revoked and not retry_revocation(self._vault, lease_id):
                left_behind.append(LeftBehind.lease(lease_id))
        names = [each.name for each in self._credentials.values() if each.name and each.name not in self._dead]
        if names:
            probed = self._ask()
            alive = [name for name in names if probed[name].seen and not probed[name].refused]
            left_behind += [LeftBehind(f"{name} at the target", by_hand(name)) for name in alive]
        return left_behind


def retry_revocation(vault: Vault, lease_id: str) -> bool:
    """Return whether Vault revoked a lease, after some tries.

    A session may stay open at the target for a moment after use.
    """
    for pause_s in _PAUSES_S:
        time.sleep(pause_s)
        try:
            vault.write(f"sys/leases/revoke/{lease_id}", {"sync": True})
        except VaultUnavailable:
            return False
        except JitvaultError:
            continue
        return True
    return False
