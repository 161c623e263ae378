"""The steps of a template's check in which a credential resists its end as its holder could.

All of them are made first, then revoked one after the other, then looked for at once: whatever the probe waits for, it
waits for once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from jitvault.engines.interface import Engine, ProbeResult, Resisting
from jitvault.errors import JitvaultError
from jitvault.vault.client import Vault


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one way to resist. `mend` is what helps where it could not even be tried."""

    ok: bool
    evidence: str
    mend: str = ""


@dataclass(slots=True)
class _Credential:
    """A credential that resists: its lease, its name at the target, and what went wrong with its revocation."""

    lease_id: str = ""
    name: str = ""
    resisting: Resisting | None = None
    failure: str = ""
    mend: str = ""
    revoked: bool = False
    ms: int = 0


class Resistance:
    """One credential for each way to resist, from the path under check."""

    def __init__(
        self,
        vault: Vault,
        engine: Engine,
        where: Mapping[str, Any],
        *,
        issue: Callable[[], Mapping[str, Any]],
        announce: Callable[[tuple[str, ...]], None],
    ) -> None:
        """`issue` reads a fresh credential; `announce` is told of all leases each time that one more is known."""
        self._vault, self._engine, self._where = vault, engine, where
        self._issue, self._announce = issue, announce
        self._credentials: dict[str, _Credential] = {}
        self._dead: frozenset[str] = frozenset()

    @property
    def leases(self) -> tuple[str, ...]:
        return tuple(one.lease_id for one in self._credentials.values() if one.lease_id)

    def run(self, steps: Sequence[str]) -> Mapping[str, Result]:
        """Try `steps` and say what was seen of each."""
        with ExitStack() as stack:
            for step in steps:
                self._begin(step, stack)
            for one in self._credentials.values():
                if one.lease_id:
                    self._revoke(one)
            probed = self._probe()
            return {step: self._judged(one, probed) for step, one in self._credentials.items()}

    def _begin(self, step: str, stack: ExitStack) -> None:
        one = self._credentials[step] = _Credential()
        try:
            answer = self._issue()
            one.lease_id = str(answer.get("lease_id") or "")
            self._announce(self.leases)
            data: Mapping[str, Any] = answer.get("data") or {}
            one.name = str(data.get(self._engine.non_hmac_response_keys[0]) or "")
            one.resisting = stack.enter_context(self._engine.resist(step, self._where, data))
        except JitvaultError as error:
            one.failure, one.mend = f"it could not be tried: {error}", error.hint

    def _revoke(self, one: _Credential) -> None:
        begun = time.monotonic()
        try:
            self._vault.write(f"sys/leases/revoke/{one.lease_id}", {"sync": True})
            one.revoked = True
        except JitvaultError as error:
            one.failure = one.failure or f"Vault could not revoke the lease: {error}"
        one.ms = round((time.monotonic() - begun) * 1000)

    def _probe(self) -> Mapping[str, ProbeResult]:
        names = [one.name for one in self._credentials.values() if one.name]
        try:
            found = self._engine.probe(self._where, names)
        except JitvaultError as error:
            return {
                name: ProbeResult(refused=False, open_sessions=None, evidence=str(error), seen=False) for name in names
            }
        self._dead = frozenset(name for name in names if found[name].is_over)
        return found

    def _judged(self, one: _Credential, probed: Mapping[str, ProbeResult]) -> Result:
        if one.resisting is None:
            return Result(False, one.failure or "it could not be tried", one.mend)
        left = one.resisting.left()
        seen = probed[one.name]
        said = [one.resisting.seen, one.failure or f"revoked in {one.ms} ms", left, seen.evidence]
        ok = not one.failure and not left and one.name in self._dead
        return Result(ok, "; ".join(filter(None, said)))

    def clean_up(self, pauses_s: Sequence[float]) -> list[str]:
        """End what is still there now that nothing resists any more; what could not be ended."""
        left = []
        for one in self._credentials.values():
            if one.lease_id and not one.revoked and not self._take_back(one, pauses_s):
                left.append(f"lease {one.lease_id}")
        names = [one.name for one in self._credentials.values() if one.name and one.name not in self._dead]
        if names:
            probed = self._probe()
            left += [f"{name} at the target" for name in names if probed[name].seen and not probed[name].refused]
        return left

    def _take_back(self, one: _Credential, pauses_s: Sequence[float]) -> bool:
        for pause_s in pauses_s:
            time.sleep(pause_s)
            self._revoke(one)
            if one.revoked:
                return True
        return False
