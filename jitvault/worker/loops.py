"""What the worker does repeatedly, each in a loop of its own.

The loops only find out which tasks need work and why; the threads of `pool` advance the tasks. The loops about the
audit stream are in `stream_loops.py`, those that find tasks in `work_loops.py`, and the rest is here.

    sources    starts a loop for each audit source that appears, and looks whether untrusted ones show a canary
    observe    ingests the lines of one source
    intake     documents that people wrote, as the stream shows them
    backlog    documents in Vault that were not handled, every now and then; however many, new work does not wait
    quota      authors who write more than their quota
    due        tasks whose time has come by the ledger
    tripwires  tasks that touched a tripwire
    canary     whether the stream is trusted
    rights     whether the worker's token may do what its work needs
    alarms     findings and freezes, which the log and the metrics tell
    targets    whether each target lets its probe in, and can be reached while one of its logins locks everyone out
    upkeep     what engines publish and has to renew, such as lists of revoked certificates
    sweep      whether Vault, ledger and stream agree; reported, and mended only where that was asked for
    templates  whether the templates that agents see are those that a worker published
    retention  removes the published documents of tasks that were sealed long ago
    notices    sends notices to people
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from jitvault.context import WorkerContext
from jitvault.errors import InvalidInput, NotConfirmed, ProbeUnusable, VaultRefused, WrongState
from jitvault.ledger.unchanged import Unchanged
from jitvault.lifecycle.confirmation.probe_sessions import Probe, ProbeSessions
from jitvault.lifecycle.renewal.upkeep import PublishedListRenewals
from jitvault.lifecycle.requests.publish_templates import Found, TemplateWatch
from jitvault.lifecycle.requests.retention import Removals
from jitvault.model.vault_access import WORKER_RIGHTS_MEND
from jitvault.provision.worker_rights import lacking_rights
from jitvault.sweep.report import outcome
from jitvault.sweep.sweep import sweep
from jitvault.worker.alarms import Alarms
from jitvault.worker.stream_loops import StreamLoops
from jitvault.worker.work_loops import WorkLoops

_STAND_BY_S = 0.5
# sooner than a client that reconnects can have taken every lock again
_THROW_OUT_S = 0.02


@dataclass
class Loops(StreamLoops, WorkLoops):
    """The loops of one worker."""

    def start(self) -> None:
        """Start all loops.

        Each gets its connections here, so that nothing begins where Vault does not answer.
        """
        loops = [self.sources, self.intake, self.backlog, self.quota, self.due, self.tripwires, self.canary]
        loops += [self.targets, self.rights, self.alarms, self.upkeep, self.templates]
        loops += [self.sweep] if self.pace.sweep_s else []
        loops += [self.retention] if self.keep is not None else []
        for run in loops:
            self.supervisor.start(run.__name__, partial(run, self.hire()))
        self.supervisor.start("notices", self.notices)
        if (listener := self.hire().ledger.listener()) is not None:
            self.supervisor.start("others", partial(self.others, listener))

    def targets(self, worker: WorkerContext) -> None:
        """Start two loops for each probe.

        A target that hangs then does not delay the others.
        """
        stand_by = ProbeSessions(worker)
        known = set[Probe]()

        def look() -> None:
            for probe in stand_by.probes():
                if probe not in known:
                    known.add(probe)
                    self.supervisor.start(f"target {probe[1]}", partial(self._stand_by, stand_by, probe))
                    self.supervisor.start(f"probe {probe[1]}", partial(self._log_in, stand_by, probe))

        self.every("targets", self.pace.targets_s, look)

    def rights(self, worker: WorkerContext) -> None:
        """Try the worker's rights, before a revocation needs one that is gone.

        They are tried every hour, and every minute while one is missing or Vault does not say.
        """
        tried_at: float | None = None

        def look() -> None:
            nonlocal tried_at
            if tried_at is not None and time.monotonic() - tried_at < self.pace.rights_s:
                return
            try:
                lacking = lacking_rights(worker.reader, worker.templates, worker.engines)
            except (VaultRefused, InvalidInput) as error:
                raise WrongState(f"the worker's rights cannot be tried: {error}", hint=error.hint) from None
            if lacking and lacking != self.health.lacking:
                self.log.error("the worker lacks rights at Vault", rights=", ".join(lacking), hint=WORKER_RIGHTS_MEND)
            elif self.health.lacking and not lacking:
                self.log.info("the worker has its rights again")
            self.health.lacking = lacking
            self.health.set("rights_lacking", len(lacking))
            tried_at = None if lacking else time.monotonic()

        self.every("rights", self.pace.list_s, look)

    def alarms(self, worker: WorkerContext) -> None:
        """Tell the log and the metrics of findings and freezes."""
        alarms = Alarms(worker.ledger, self.health, self.log)
        unchanged = Unchanged(worker.ledger.mark)

        def look() -> None:
            if not unchanged.is_so():
                alarms.look()
                unchanged.looked()

        self.every("alarms", self.pace.tell_s, look)

    def _stand_by(self, stand_by: ProbeSessions, probe: Probe) -> None:
        """Keep one target reachable."""
        logged = set[str]()

        def look() -> None:
            try:
                locking_logins = stand_by.look(probe)
            except NotConfirmed as error:
                raise WrongState(f"a target cannot be asked: {error}", hint=error.hint) from None
            for name in set(locking_logins) - logged:
                self.log.warning("a login locked everybody out of its target; its sessions are ended", login=name)
            logged.update(locking_logins)
            self.supervisor.stopping.wait(_THROW_OUT_S if locking_logins else _STAND_BY_S)

        self.every(f"target {probe[1]}", 0, look)

    def _log_in(self, stand_by: ProbeSessions, probe: Probe) -> None:
        """See that a probe is let in.

        A session that is open says nothing of a password that was changed. This is no part of keeping that session,
        which must not wait for a login that hangs.
        """
        failure = ""

        def look() -> None:
            nonlocal failure
            try:
                stand_by.log_in(probe)
            except NotConfirmed as error:
                self.health.count("probe_failures", probe=probe[1])
                if str(error) != failure and not self.supervisor.stopping.is_set():
                    failure = str(error)
                    # a target that is down comes back by itself, a login that is refused does not
                    is_refused = isinstance(error, ProbeUnusable)
                    tell = self.log.error if is_refused else self.log.warning
                    more = {"hint": error.hint} if is_refused else {}
                    tell("a probe cannot ask its target", probe=probe[1], why=failure, **more)
                return
            if failure:
                failure = ""
                self.log.info("a probe can ask its target again", probe=probe[1])

        self.every(f"probe {probe[1]}", self.pace.targets_s, look)

    def upkeep(self, worker: WorkerContext) -> None:
        """Renew what engines publish."""
        renewals = PublishedListRenewals(worker)

        def look() -> None:
            self.health.count("renewed", renewals.renew_due())

        self.every("upkeep", self.pace.upkeep_s, look)

    def sweep(self, worker: WorkerContext) -> None:
        """Run the sweep, and log what remains."""

        def look() -> None:
            result = sweep(worker, fix=self.fix)
            self.health.set("sweep_remaining", len(result.remaining))
            failure = outcome(result)
            if failure is not None:
                self.log.warning("sweep", found=str(failure), hint=failure.hint)

        self.every("sweep", self.pace.sweep_s, look, at_once=False)

    def templates(self, worker: WorkerContext) -> None:
        """Put the published templates back where nobody meant to change them.

        Where another worker published others, that is logged once: agents are then offered those of the worker that
        started last, and each worker decides by its own.
        """
        watch = TemplateWatch(worker)
        before = Found.OWN

        def look() -> None:
            nonlocal before
            try:
                found = watch.look()
            except VaultRefused as error:
                # the policy that `init` wrote last can lack the right, and no access depends on it
                raise WrongState(f"the templates cannot be published: {error}", hint=error.hint) from None
            if found is Found.RESTORED:
                self.log.warning("the published templates were no worker's; put back", templates=len(worker.templates))
            if found is Found.OTHERS and before is not found:
                self.log.warning(
                    "another worker published other templates for agents than this one decides by",
                    hint="Give all workers the same files, then send each SIGHUP.",
                )
            before = found

        self.every("templates", self.pace.templates_s, look, at_once=False)

    def retention(self, worker: WorkerContext) -> None:
        """Remove published documents of tasks that were sealed long ago."""
        removals = Removals(worker, self.keep or timedelta.max)

        def look() -> None:
            try:
                removed = removals.some()
            except VaultRefused as error:
                # the policy that `init` wrote last can lack the right, and no access depends on it
                raise WrongState(f"published documents cannot be deleted: {error}", hint=error.hint) from None
            self.health.count("removed", removed)
            if removed:
                self.log.info("removed what was published of sealed tasks", tasks=removed)

        self.every("retention", self.pace.remove_s, look)

    def notices(self) -> None:
        """Send notices, and log when channels fail or recover."""
        known = ""

        def tell() -> None:
            nonlocal known
            whys: list[str] = []
            arrived = self.teller.tell(whys.append, stopped=self.supervisor.stopping.is_set)
            self.health.count("notices", arrived)
            if whys and whys[-1] != known:
                known = whys[-1]
                self.log.warning("notices are not delivered and will be retried for a day", why=known)
            elif known and arrived and not whys:
                known = ""
                self.log.info("notices are delivered again")

        self.every("notices", self.pace.tell_s, tell)
