"""Stay able to ask each target, also while one of its logins keeps everybody out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError, NotConfirmed, VaultUnavailable
from jitvault.lifecycle.confirmation.wrapped_read_probes import where_of

RULE = "target_locked"
Probe = tuple[str, str]
"""An engine, and the name of a probe's document."""


class StandBy:
    """The probes of the templates, and where they lead. Each probe is looked at by a thread of its own."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._where: dict[Probe, Mapping[str, Any]] = {}
        self._told: set[str] = set()

    def probes(self) -> Sequence[Probe]:
        """Read the documents; each reading costs Vault a request. Gives the probes that there are.

        Where Vault does not answer, what is known goes on being asked.
        """
        wanted = {(t.spec.engine, t.spec.probe) for t in self._worker.templates.values() if t.spec.probe}
        found: dict[Probe, Mapping[str, Any]] = {}
        for engine, probe in wanted:
            if engine not in self._worker.engines or probe is None:
                continue
            try:
                found[engine, probe] = where_of(self._worker, probe)
            except VaultUnavailable:
                raise
            except JitvaultError:
                # a proof that needs it says so
                continue
        self._where = found
        return tuple(found)

    def look(self, probe: Probe) -> Sequence[str]:
        """Have the engine look once; gives the credentials that are kept out now.

        Raises NotConfirmed where the target could not be asked.
        """
        where = self._where.get(probe)
        if where is None:
            return ()
        try:
            kept_out = self._worker.engines[probe[0]].stand_by(where)
        except JitvaultError as error:
            raise NotConfirmed(str(error), hint=error.hint) from None
        for name in kept_out:
            if name not in self._told:
                self._told.add(name)
                self._tell(name)
        return kept_out

    def _tell(self, name: str) -> None:
        said = f"the login {name} kept everybody out of its target by its locks; what it had open was ended"
        self._worker.ledger.finding(self._worker.ledger.task_of_target(name), RULE, said, self._worker.now())
