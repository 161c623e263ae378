"""Keep every target reachable for its probe.

A target stays reachable even while one of its logins locks all others out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jitvault.context import WorkerContext
from jitvault.engines.interface import probe_of
from jitvault.errors import JitvaultError, NotConfirmed, ProbeUnusable, VaultUnavailable
from jitvault.lifecycle.confirmation.wrapped_read_probes import probe_target

RULE = "target_locked"
Probe = tuple[str, str]
"""The name of an engine, and the name of a probe's document."""


@contextmanager
def _as_unasked() -> Iterator[None]:
    """Raise NotConfirmed for whatever keeps a probe from asking."""
    try:
        yield
    except NotConfirmed:
        raise
    except JitvaultError as error:
        raise NotConfirmed(str(error), hint=error.hint) from None


class ProbeSessions:
    """Holds the probes of the templates and watches their targets.

    Each probe is watched by a thread of its own.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._where: dict[Probe, Mapping[str, Any]] = {}
        self._recorded: set[str] = set()

    def probes(self) -> Sequence[Probe]:
        """Read the probes' documents from Vault.

        Returns the probes that have a document. Each document costs Vault a request. Raises VaultUnavailable where
        Vault does not answer; the probes that were read before stay in use.
        """
        declared = {(t.spec.engine, t.spec.probe) for t in self._worker.templates.values() if t.spec.probe}
        found: dict[Probe, Mapping[str, Any]] = {}
        for engine, probe in declared:
            known = self._worker.engines.get(engine)
            if known is None or known.probe is None or probe is None:
                continue
            try:
                found[engine, probe] = probe_target(self._worker, probe)
            except VaultUnavailable:
                raise
            except JitvaultError:
                # a proof that needs this probe will say so
                continue
        self._where = found
        return tuple(found)

    def look(self, probe: Probe) -> Sequence[str]:
        """Check one target once, and return the logins that lock others out now.

        The engine ends the sessions of such a login, and each login is recorded as a finding once. Raises NotConfirmed
        where the target could not be asked.
        """
        where = self._where.get(probe)
        if where is None:
            return ()
        with _as_unasked():
            kept_out = probe_of(self._worker.engines[probe[0]]).stand_by(where)
        for name in kept_out:
            if name not in self._recorded:
                self._recorded.add(name)
                self._record(name)
        return kept_out

    def log_in(self, probe: Probe) -> None:
        """Log in anew, as the probe does when it asks a target.

        Raises NotConfirmed, and ProbeUnusable where the target refuses the probe or gives it too few rights.
        """
        where = self._where.get(probe)
        if where is None:
            return
        with _as_unasked():
            lacking = probe_of(self._worker.engines[probe[0]]).missing_rights(where)
        if lacking:
            raise ProbeUnusable(f"the probe lacks {', '.join(lacking)} at its target")

    def _record(self, name: str) -> None:
        message = f"the login {name} kept everybody out of its target by its locks; what it had open was ended"
        self._worker.ledger.finding(self._worker.ledger.task_of_target(name), RULE, message, self._worker.now())
