"""`jitvault worker`: one process that runs the lifecycle unattended.

It acts on the state in the ledger, so it does not matter which worker ran before or how that one ended. On SIGTERM
nothing new is begun, acts under way are finished or left as unknown in the ledger, and the process ends within 10 s. A
second SIGTERM ends it at once. On SIGHUP templates and policies are read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError, LedgerUnavailable
from jitvault.lifecycle.keeping.keep import ANSWER_S
from jitvault.lifecycle.requests.publish_templates import publish_templates
from jitvault.settings import Settings
from jitvault.wiring import Wiring
from jitvault.worker.author_rate import AuthorRate
from jitvault.worker.health import Health, serve, served
from jitvault.worker.logs import Log
from jitvault.worker.loop_base import Pace
from jitvault.worker.loops import Loops
from jitvault.worker.pool import Pool
from jitvault.worker.processes import Link
from jitvault.worker.renewals import Renewals
from jitvault.worker.signals import handled
from jitvault.worker.supervisor import Supervisor
from jitvault.worker.task_queue import Job, TaskQueue, Urgency

GRACE_S = 6.0
"""How long loops may take to end, in seconds.

A thread that hangs longer in a request is abandoned: its act is in the ledger as intended.
"""
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """How a worker runs.

    `hands` tasks are handled at once, and `may_hang` more that take long. `health` is the address of the health
    endpoint. `link` is to the keeper of this process, if it is one of several.
    """

    hands: int = 4
    may_hang: int = 4
    health: str | None = None
    pace: Pace = field(default_factory=Pace)
    fix: bool = False
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A worker whose loops run."""

    wiring: Wiring
    worker: WorkerContext
    pool: Pool
    loops: Loops
    log: Log

    def close(self) -> None:
        """Give up tasks that were claimed and not begun, and end the login.

        Other workers can then claim these tasks at once.
        """
        with suppress(LedgerUnavailable):
            self.worker.ledger.give_all_back()
        self.wiring.close()

    def left(self) -> int:
        """Return how many tasks and documents wait for their turn, or are worked on."""
        held_back = self.loops.gate.waiting(time.monotonic(), longer_than_s=0)
        renewed_with_others = len(self.worker.kept.due_here(self.worker.now()))
        waiting = self.pool.left() + sum(held_back.values()) + int(self.loops.health.value("backlog"))
        return waiting + renewed_with_others

    def publish_templates(self) -> None:
        """Publish the templates for agents.

        Where that fails agents can still ask by their own files.
        """
        try:
            if publish_templates(self.worker):
                self.log.info("published the templates", templates=len(self.wiring.templates))
        except JitvaultError as error:
            self.log.warning("the templates are not published for agents", why=str(error))

    def reload(self) -> None:
        """Read policies and templates again, each set as a whole.

        A set that does not validate is logged, and the last valid one stays in use.
        """
        for what, current in (("policies", self.wiring.authorizer), ("templates", self.wiring.templates.current)):
            if current.reload():
                self.log.info("read again", what=what, policies=self.wiring.authorizer.digest)
            else:
                self.log.error("not reloaded: the last valid set stays in use", what=what, why=current.refused)
        self.publish_templates()
        # decisions may be different now, and held tasks may have to end
        for task_id in (*self.worker.ledger.live_tasks(), *self.worker.ledger.ungranted()):
            self.pool.want(Job(task_id, Urgency.DUE), news=True)


def start(settings: Settings, supervisor: Supervisor, plan: Plan, log: Log) -> Started:
    """Start all loops.

    Raises JitvaultError before the first loop where Vault, the ledger or the settings do not allow it.
    """
    health = Health(supervisor)
    endpoint = served(lambda: {"": health.state()}, plan.health) if plan.health else None
    wiring = Wiring(settings, supervisor.stopping.is_set)
    # without the worker's identity nothing is made: an empty ledger would be found by every later command
    _ = wiring.login
    is_new = wiring.make_ledger()
    wiring.unchecked_ledger.check_login()
    # registered first, so that a worker that Vault or the ledger refuses fails before anything begins
    worker = wiring.worker
    new_context = context_factory(wiring)
    pool = Pool(
        supervisor,
        new_context,
        TaskQueue(plan.hands, plan.may_hang),
        health,
        log,
        worker.ledger.give_back,
        lambda: worker.kept.late_s(worker.now()),
    )
    gate = AuthorRate(settings.requests_per_minute)
    notifier = wiring.teller
    loops = Loops(supervisor, new_context, pool, health, log, notifier, plan.pace, plan.fix, settings.retention, gate)
    if plan.link is not None:
        loops.is_reader = plan.link.is_reader
    if endpoint is not None:
        supervisor.start("health", lambda: serve(endpoint, supervisor))
    pool.start()
    Renewals(supervisor, context_factory(wiring, ANSWER_S), health, log).start()
    loops.start()
    if is_new:
        log.warning("made a new ledger", ledger=wiring.ledger_place)
    log.info(
        "working",
        vault=settings.vault_addr,
        installation=worker.installation,
        ledger=wiring.ledger_place,
        policies=wiring.authorizer.digest,
    )
    started = Started(wiring, worker, pool, loops, log)
    started.publish_templates()
    return started


def work(settings: Settings, plan: Plan, log: Log, goes_on: Callable[[Started], bool] = lambda _: True) -> None:
    """Run until SIGTERM or SIGINT, or until `goes_on` returns False.

    Raises JitvaultError when a loop dies, with its reason.
    """
    supervisor = Supervisor()
    with handled(supervisor.stopping) as reload:
        if plan.link is not None:
            plan.link.watch(supervisor.stopping)
        started = start(settings, supervisor, plan, log)
        while goes_on(started) and not supervisor.stopping.wait(_POLL_S):
            if reload.is_set():
                reload.clear()
                started.reload()
            if plan.link is not None:
                plan.link.report(started.loops.health.state)
        supervisor.stopping.set()
        log.info("ending")
        unfinished = supervisor.join(GRACE_S)
        started.close()
    if unfinished:
        log.warning("left in the middle of a request; what it did is in the ledger as intended", threads=unfinished)
    if supervisor.death is not None:
        raise supervisor.death.as_error()
    log.info("ended")


def context_factory(wiring: Wiring, answer_s: int | None = None) -> Callable[[], WorkerContext]:
    """Return a function that makes a worker context for one thread.

    Each has its own connections; login, active node and facts are shared. No answer of Vault is waited for longer than
    `answer_s`, in seconds.
    """

    def hire() -> WorkerContext:
        worker = wiring.for_thread(answer_s).worker_without_session
        return replace(worker, mode=replace(worker.mode, is_daemon=True))

    return hire
