"""Make the ledger know again what Vault and the audit files still know, and end what it cannot keep.

The story: a mark that keeps everything from being granted; take stock; take each task in; read the files; close every
door; end what is nobody's; prove. Whatever stops this process, the mark stays, and the next run goes on: what was
taken in says so in its chain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.errors import InvalidInput, JitvaultError, LedgerUnavailable, NotFound, VaultUnavailable
from jitvault.ledger.model import LEDGER_REBUILT, READ_FROM_START, TaskRecord
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.revocation.cascade import with_task_claim
from jitvault.lifecycle.revocation.revoke import revoke_tokens
from jitvault.model.kinds import EventKind
from jitvault.model.states import State
from jitvault.recovery.import_task import import_task
from jitvault.recovery.outcomes import RecoveryAction
from jitvault.recovery.survey import Files, RecoveryCase, RecoverySurvey, take_stock
from jitvault.stream.reading import canary, observe
from jitvault.sweep.sweep import SweepResult, sweep

_PAUSE_S = 1.0
# for one task: what hangs must not keep the doors of others open
_DOOR_S = 5.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a run found and did. `left` are tasks that are not taken in, `failed` those whose turn went wrong, each with
    why; `states` has every task that was taken in and what it is now. `swept` is None where only a plan was wanted.
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
        return [case for case in self.stock.cases if case.fate is RecoveryAction.CONTRADICTS]

    @property
    def unproven(self) -> list[str]:
        """The tasks that were taken in and whose end is not proven yet."""
        return sorted(task_id for task_id, state in self.states.items() if state is State.ENDING)

    @property
    def waiting(self) -> int:
        """How many credentials nobody explains that are too young to be judged."""
        return sum(1 for one in self.swept.waiting if one.task_id is None) if self.swept else 0


def plan(worker: WorkerContext) -> Rebuilt:
    """What `recover_ledger` would take in, and from where; no task is changed and nothing is ended."""
    stock = take_stock(worker)
    return Rebuilt(stock, worker.ledger.recovering(), _left(stock), {}, {}, None, finished=False)


def recover_ledger(worker: WorkerContext, *, wait_s: float, tell: Tell) -> Rebuilt:
    """Do it; `tell` hears how far it is. What is too young to be judged, or not proven, is tried for `wait_s` seconds.

    Raises AuditUntrusted where the stream cannot be trusted, after the tasks were taken in: the mark stays.
    """
    deadline = worker.clock.monotonic() + wait_s
    with worker.ledger.claim_sweep() as claim:
        since = worker.ledger.begin_recovery(worker.now())
        tell("nothing is granted from now on; looking through Vault and the audit files")
        stock = take_stock(worker)
        worker.ledger.extend_sweep(claim)
        _learn_sessions(worker, stock.files)
        refused, failed = _take_all_in(worker, claim, stock)
        tell(f"tasks that Vault knows of: {len(stock.cases)}; reading the audit files into the ledger")
        _read(worker, claim, stock.files)
    mine = _taken_in(worker)
    tell(f"tasks to be ended and proven: {len(mine)}")
    for task_id in mine:
        # all doors before the rest of each; each is seen alive before, and what fails is done again below
        with suppress(JitvaultError):
            with_task_claim(replace(worker, deadline=worker.clock.monotonic() + _DOOR_S), task_id, revoke_tokens)
    swept = _sweep(worker, deadline)
    for task_id in mine:
        try:
            advance(worker, task_id, deadline=max(deadline, worker.clock.monotonic()))
        except (LedgerUnavailable, VaultUnavailable):
            raise
        except JitvaultError as error:
            failed[task_id] = error
    found = Rebuilt(stock, since, {**_left(stock), **refused}, failed, _states(worker, stock, mine), swept, False)
    return _finished(worker, found)


def _left(stock: RecoverySurvey) -> dict[str, str]:
    return dict(stock.unusable) | {
        case.said.task_id: case.why for case in stock.cases if case.fate is RecoveryAction.LEFT
    }


def _learn_sessions(worker: WorkerContext, files: Files) -> None:
    """Whose acts were the worker's is known by its sessions, and those of before are lost as well."""
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
            refused[case.said.task_id] = str(error)
        except JitvaultError as error:
            # one that cannot be taken in must not keep the others alive
            failed[case.said.task_id] = error
            worker.ledger.finding(case.said.task_id, "not_recovered", str(error), worker.now())
    for case in stock.cases:
        if case.fate is RecoveryAction.CONTRADICTS:
            worker.ledger.finding(case.said.task_id, "ledger_contradicts", case.why, worker.now())
    return refused, failed


# -- the audit files ------------------------------------------------------------------------------------------


def _read(worker: WorkerContext, claim: int, files: Files) -> None:
    """Enter what the files say. What no position was known for is read from its beginning, as a stretch of its own."""
    known = worker.ledger.readings()
    for source in worker.sources.present():
        if source.name not in known:
            worker.ledger.begin_in_the_past(source.name, source.beginning(), worker.now())
    _read_up_to_now(worker, claim)
    missed = _missed(worker, files)
    for source in worker.sources.present():
        if source.name in missed:
            # somebody began to read it after the ledger was lost: it is read again, from before that
            worker.ledger.begin_in_the_past(source.name, source.beginning(), worker.now())
    if missed:
        _read_up_to_now(worker, claim)
    if begun := _read_from_the_past(worker):
        worker.ledger.start_segments(LEDGER_REBUILT, worker.now(), only=begun)
        _read_up_to_now(worker, claim)


def _read_up_to_now(worker: WorkerContext, claim: int) -> None:
    canary(worker)
    observe(worker, look_around=False)
    worker.ledger.extend_sweep(claim)


def _missed(worker: WorkerContext, files: Files) -> set[str]:
    """The sources that count and whose lines of tokens that were taken in the ledger does not have."""
    source_of = {one.line: one.source for one in files.made}
    lines = {line for task_id in _taken_in(worker) for line in _lines_of(worker.file(task_id))} & source_of.keys()
    counting = {name for name, reading in worker.ledger.readings().items() if reading.vouched}
    return {source_of[line] for line in worker.ledger.unknown_lines(lines)} & counting


def _lines_of(file: TaskRecord) -> set[str]:
    grants = (grant for event in file.events if event.kind == EventKind.RECOVERED for grant in event.body["grants"])
    return {str(grant["line"]) for grant in grants if grant["line"]}


def _read_from_the_past(worker: WorkerContext) -> list[str]:
    """The sources that count whose past is still in one stretch with what comes now; also after a run that died."""
    past, rebuilt = dict[str, int](), dict[str, int]()
    for gap in worker.ledger.gaps():
        for found, what in ((past, READ_FROM_START), (rebuilt, LEDGER_REBUILT)):
            if gap.what == what:
                found[gap.source] = max(gap.epoch, found.get(gap.source, 0))
    readings = worker.ledger.readings()
    return sorted(name for name in past if past[name] > rebuilt.get(name, 0) and readings[name].vouched)


# -- the end --------------------------------------------------------------------------------------------------


def _taken_in(worker: WorkerContext) -> list[str]:
    """The tasks that end because the ledger was rebuilt; also those of a run that died."""
    ending = [task.task_id for task in worker.ledger.tasks({State.ENDING})]
    return [name for name in ending if any(event.kind == EventKind.RECOVERED for event in worker.file(name).events)]


def _sweep(worker: WorkerContext, deadline: float) -> SweepResult:
    """End what is nobody's; what is too young to be judged is waited for."""
    while True:
        swept = sweep(worker, fix=True)
        left_s = deadline - worker.clock.monotonic()
        if left_s <= 0 or not any(one.task_id is None for one in swept.waiting):
            return swept
        worker.clock.sleep(min(_PAUSE_S, left_s))


def _states(worker: WorkerContext, stock: RecoverySurvey, mine: list[str]) -> dict[str, State]:
    wanted = [
        *(case.said.task_id for case in stock.cases if case.fate not in (RecoveryAction.KEPT, RecoveryAction.LEFT)),
        *mine,
    ]
    rows = (worker.ledger.task(task_id) for task_id in dict.fromkeys(wanted))
    return {row.task_id: row.state for row in rows if row is not None}


def _finished(worker: WorkerContext, found: Rebuilt) -> Rebuilt:
    """Lift the mark where nothing is left that a grant could add to without anybody knowing."""
    swept = found.swept
    tokens = [row for row in swept.remaining if row.kind == "token"] if swept else []
    if swept is None or found.contradictions or found.failed or swept.failure or tokens or found.waiting:
        return found
    worker.ledger.end_recovery(f"{len(found.states)} tasks were taken in", worker.now())
    return Rebuilt(found.stock, None, found.left, found.failed, found.states, swept, finished=True)
