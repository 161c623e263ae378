"""Recover a lost or older ledger from Vault and the audit files.

What cannot be accounted for is revoked. The steps: set a mark that blocks all grants; survey Vault and the audit files;
import each task; read the audit files into the ledger; revoke every imported task's tokens; sweep untracked
credentials; confirm. If this process stops, the mark stays and the next run goes on: the chain of an imported task says
that it was imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.errors import InvalidInput, JitvaultError, LedgerUnavailable, LostTask, NotFound, VaultUnavailable
from jitvault.ledger.model import GapKind, TaskRecord
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.revocation.phases import revoke_task_tokens
from jitvault.model.event_bodies import Recovered, said
from jitvault.model.kinds import EventKind
from jitvault.model.states import State
from jitvault.recovery.import_task import import_task
from jitvault.recovery.outcomes import RecoveryAction
from jitvault.recovery.survey import AuditFiles, RecoveryCase, RecoverySurvey, survey
from jitvault.stream.reading import canary, observe
from jitvault.sweep.sweep import SweepResult, sweep

_PAUSE_S = 1.0
# for one task's tokens: a revocation that hangs must not hold up the others
_REVOKE_TOKENS_S = 5.0
# of the 30 s that a claim lasts
_EXTEND_EVERY_S = 5.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """What a recovery found and did.

    `left` are the tasks that were not imported, and `failed` those whose import or end failed, each with the reason.
    `states` has the present state of every imported task. `swept` is None for a plan.
    """

    stock: RecoverySurvey
    since: datetime | None
    left: Mapping[str, str]
    failed: Mapping[str, JitvaultError]
    states: Mapping[str, State]
    swept: SweepResult | None
    finished: bool

    @property
    def contradictions(self) -> list[RecoveryCase]:
        return [case for case in self.stock.cases if case.action is RecoveryAction.CONTRADICTS]

    @property
    def unproven(self) -> list[str]:
        """Return the imported tasks whose end is not confirmed yet."""
        return sorted(task_id for task_id, state in self.states.items() if state is State.ENDING)

    @property
    def waiting(self) -> int:
        """Return how many untracked credentials are too young to judge."""
        return sum(1 for one in self.swept.waiting if one.task_id is None) if self.swept else 0


def plan(worker: WorkerContext) -> RecoveryResult:
    """Return what `recover_ledger` would import, without any change."""
    stock = survey(worker)
    return RecoveryResult(stock, worker.ledger.recovering(), _left(stock), {}, {}, None, finished=False)


def recover_ledger(worker: WorkerContext, *, wait_s: float, tell: Tell) -> RecoveryResult:
    """Recover the ledger; `tell` is called with the progress.

    Credentials that are too young to judge, and ends that are not proven, are retried for `wait_s` seconds. Raises
    AuditUntrusted where the stream cannot be trusted, after the tasks were imported: the mark stays.
    """
    deadline = worker.clock.monotonic() + wait_s
    with worker.ledger.claim_sweep() as claim:
        since = worker.ledger.begin_recovery(worker.now())
        tell("nothing is granted from now on; looking through Vault and the audit files")
        stock = survey(worker, meanwhile=_keeps(worker, claim))
        worker.ledger.extend_sweep(claim)
        _learn_sessions(worker, stock.files)
        refused, failed = _take_all_in(worker, claim, stock)
        tell(f"tasks that Vault knows of: {len(stock.cases)}; reading the audit files into the ledger")
        _read(worker, claim, stock.files)
    mine = _taken_in(worker)
    tell(f"tasks to be ended and proven: {len(mine)}")
    for task_id in mine:
        # the tokens of all tasks come before the leases of any; what fails here is done again below
        with suppress(JitvaultError):
            until = worker.clock.monotonic() + _REVOKE_TOKENS_S
            revoke_task_tokens(worker.until(until), task_id)
    swept = _sweep(worker, deadline)
    for task_id in mine:
        try:
            advance(worker, task_id, deadline=max(deadline, worker.clock.monotonic()))
        except (LedgerUnavailable, VaultUnavailable):
            raise
        except JitvaultError as error:
            failed[task_id] = error
    left = {**_left(stock), **refused}
    found = RecoveryResult(stock, since, left, failed, _states(worker, stock, mine), swept, finished=False)
    return _finished(worker, found)


def recover_task(worker: WorkerContext, task_id: str) -> None:
    """Import a task that the ledger lost, with what was delegated below it.

    What they may hold is then ended by the task's next turn: its end would not be proven while a task below it has
    access. All other tasks stay as they are, and so does the mark. Raises LostTask for a task that cannot be imported,
    and what kept it from being imported.
    """
    with worker.ledger.claim_sweep() as claim:
        if worker.ledger.task(task_id) is not None:
            # another process was asked for the same
            return
        stock = survey(worker, only=task_id, meanwhile=_keeps(worker, claim))
        worker.ledger.extend_sweep(claim)
        _learn_sessions(worker, stock.files)
        refused, failed = _take_all_in(worker, claim, stock)
        _read(worker, claim, stock.files)
    if task_id in failed:
        raise failed[task_id]
    if why := (_left(stock) | refused).get(task_id):
        raise LostTask(f"task {task_id} is missing in the ledger, and cannot be imported alone: {why}")


def _keeps(worker: WorkerContext, claim: int) -> Callable[[], None]:
    """Return what keeps the claim for as long as a survey takes.

    Others wait to import their tasks: whoever took the claim from this process would lose it to the next one, and none
    would ever come to an end.
    """
    extended = worker.clock.monotonic()

    def keep() -> None:
        nonlocal extended
        if worker.clock.monotonic() - extended >= _EXTEND_EVERY_S:
            extended = worker.clock.monotonic()
            worker.ledger.extend_sweep(claim)

    return keep


def _left(stock: RecoverySurvey) -> dict[str, str]:
    return dict(stock.unusable) | {
        case.published.task_id: case.why for case in stock.cases if case.action is RecoveryAction.LEFT
    }


def _learn_sessions(worker: WorkerContext, files: AuditFiles) -> None:
    """Register the worker's former sessions, which were lost with the ledger.

    By its sessions it is known which lines are the worker's own.
    """
    known = worker.ledger.worker_accessors()
    for accessor, at in files.sessions.items():
        if accessor not in known:
            worker.ledger.record_session(accessor, at)


def _take_all_in(
    worker: WorkerContext, claim: int, stock: RecoverySurvey
) -> tuple[dict[str, str], dict[str, JitvaultError]]:
    refused, failed = dict[str, str](), dict[str, JitvaultError]()
    for case in stock.cases:
        worker.ledger.extend_sweep(claim)
        try:
            import_task(worker, case)
        except (LedgerUnavailable, VaultUnavailable):
            raise
        except (InvalidInput, NotFound) as error:
            refused[case.published.task_id] = str(error)
        except JitvaultError as error:
            # a task that cannot be imported must not keep the others alive
            failed[case.published.task_id] = error
            worker.ledger.finding(case.published.task_id, "not_recovered", str(error), worker.now())
    for case in stock.cases:
        if case.action is RecoveryAction.CONTRADICTS:
            worker.ledger.finding(case.published.task_id, "ledger_contradicts", case.why, worker.now())
    return refused, failed


# -- the audit files ------------------------------------------------------------------------------------------


def _read(worker: WorkerContext, claim: int, files: AuditFiles) -> None:
    """Read the audit files into the ledger.

    A source without a known position is read from its beginning, as a segment of its own.
    """
    known = worker.ledger.readings()
    for source in worker.sources.present():
        if source.name not in known:
            worker.ledger.begin_in_the_past(source.name, source.beginning(), worker.now())
    _read_up_to_now(worker, claim)
    missed = _missed(worker, files)
    for source in worker.sources.present():
        if source.name in missed:
            # reading of this source began only after the ledger was lost: read it again from its beginning
            worker.ledger.begin_in_the_past(source.name, source.beginning(), worker.now())
    if missed:
        _read_up_to_now(worker, claim)
    if begun := _read_from_the_past(worker):
        what = "the ledger was rebuilt: what stands before was not read under trust"
        worker.ledger.start_segments(what, worker.now(), kind=GapKind.LEDGER_REBUILT, only=begun)
        _read_up_to_now(worker, claim)


def _read_up_to_now(worker: WorkerContext, claim: int) -> None:
    canary(worker)
    observe(worker, look_around=False)
    worker.ledger.extend_sweep(claim)


def _missed(worker: WorkerContext, files: AuditFiles) -> set[str]:
    """Return trusted sources that have lines of tokens the ledger lacks.

    The tokens are those of imported tasks.
    """
    source_of = {one.line: one.source for one in files.made}
    lines = {line for task_id in _taken_in(worker) for line in _lines_of(worker.record(task_id))} & source_of.keys()
    counting = {name for name, reading in worker.ledger.readings().items() if reading.vouched}
    return {source_of[line] for line in worker.ledger.unknown_lines(lines)} & counting


def _lines_of(record: TaskRecord) -> set[str]:
    return {grant.line for _, body in said(record.events, Recovered) for grant in body.grants if grant.line}


def _read_from_the_past(worker: WorkerContext) -> list[str]:
    """Return the trusted sources whose past and present are still one segment.

    That is so after a run that died, too.
    """
    past, rebuilt = dict[str, int](), dict[str, int]()
    for gap in worker.ledger.gaps():
        if gap.kind is GapKind.READ_FROM_START:
            past[gap.source] = max(gap.epoch, past.get(gap.source, 0))
        elif gap.kind is GapKind.LEDGER_REBUILT:
            rebuilt[gap.source] = max(gap.epoch, rebuilt.get(gap.source, 0))
    readings = worker.ledger.readings()
    return sorted(name for name in past if past[name] > rebuilt.get(name, 0) and readings[name].vouched)


# -- the end --------------------------------------------------------------------------------------------------


def _taken_in(worker: WorkerContext) -> list[str]:
    """Return the imported tasks that are ending.

    Those of a run that died are included.
    """
    ending = [task.task_id for task in worker.ledger.tasks({State.ENDING})]
    return [name for name in ending if any(event.kind == EventKind.RECOVERED for event in worker.record(name).events)]


def _sweep(worker: WorkerContext, deadline: float) -> SweepResult:
    """Revoke untracked credentials.

    Waits for those that are too young to judge.
    """
    while True:
        swept = sweep(worker, fix=True)
        left_s = deadline - worker.clock.monotonic()
        if left_s <= 0 or not any(one.task_id is None for one in swept.waiting):
            return swept
        worker.clock.sleep(min(_PAUSE_S, left_s))


def _states(worker: WorkerContext, stock: RecoverySurvey, mine: list[str]) -> dict[str, State]:
    """Return the present state of every task that was imported or is ending."""
    untouched = (RecoveryAction.KEPT, RecoveryAction.LEFT)
    imported = [case.published.task_id for case in stock.cases if case.action not in untouched]
    rows = (worker.ledger.task(task_id) for task_id in dict.fromkeys([*imported, *mine]))
    return {row.task_id: row.state for row in rows if row is not None}


def _finished(worker: WorkerContext, found: RecoveryResult) -> RecoveryResult:
    """Lift the mark where nothing is left that a new grant could hide behind."""
    swept = found.swept
    tokens = [row for row in swept.remaining if row.kind == "token"] if swept else []
    if swept is None or found.contradictions or found.failed or swept.failure or tokens or found.waiting:
        return found
    worker.ledger.end_recovery(f"{len(found.states)} tasks were taken in", worker.now())
    return RecoveryResult(found.stock, None, found.left, found.failed, found.states, swept, finished=True)
