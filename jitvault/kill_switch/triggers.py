"""Find the tasks that have to end at once.

They hit a tripwire, a freeze covers them, or their agent revoked its own token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from jitvault.context import WorkerContext
from jitvault.documents.paths import PUBLISHED, Kept
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import CorruptRecord, JitvaultError
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.record.integrity import published
from jitvault.lifecycle.requests.complete_index import rebuild_index
from jitvault.lifecycle.requests.freeze_documents import freezes
from jitvault.lifecycle.unexpected_error import failure_of
from jitvault.model.revision import Revision
from jitvault.model.scope import FreezeStatement
from jitvault.model.states import LIVING
from jitvault.stream.tripwires import watch

Reasons = Mapping[str, str]
"""Task ids, each with why the task has to end."""


def tripped(worker: WorkerContext, seen: dict[str, int], go_on: Callable[[], bool] = lambda: True) -> Reasons:
    """Return the held tasks that hit a tripwire.

    A task whose agent revoked its own token is one of them. While everything is frozen, these are all held tasks.
    `seen` remembers how far each task was checked: only tasks with new lines are checked, and the one that waited
    longest first. `go_on` is called before each task; where it returns False, the next call goes on from there.
    """
    freeze, held = worker.ledger.freeze(), worker.ledger.live_tasks()
    if freeze is not None:
        return dict.fromkeys(held, "everything is frozen")
    for task_id in seen.keys() - held.keys():
        del seen[task_id]
    found: dict[str, str] = {}
    for task_id in [*(held.keys() - seen.keys()), *seen]:
        if seen.get(task_id) == held[task_id]:
            continue
        if not go_on():
            break
        seen.pop(task_id, None)
        seen[task_id] = held[task_id]
        if why := _tripped(worker, task_id):
            found[task_id] = why
    return found


def _tripped(worker: WorkerContext, task_id: str) -> str | None:
    """Return why a held task has to end at once, or None.

    That is the message of the first tripwire that it hit, or that its token was revoked by itself: an agent that is
    killed does that as its last act, without a login to sign the end of the task. None also for a task whose rows
    cannot be read: its own turn records the finding.
    """
    try:
        record = worker.ledger.record(task_id)
        trips = watch(worker, record) if record is not None else ()
        is_given_back = record is not None and not trips and _is_given_back(worker, record)
    except CorruptRecord:
        return None
    except JitvaultError:
        raise
    except Exception as error:  # noqa: BLE001 - a bug must not keep the tripwires of the other tasks from being seen
        failure_of(task_id, error)
        return None
    if trips:
        return trips[0].message
    return "the agent revoked its own token" if is_given_back else None


def _is_given_back(worker: WorkerContext, record: TaskRecord) -> bool:
    token = record.grants[-1].accessor_hmac if record.grants else None
    return token is not None and worker.ledger.self_revoked_at(token) is not None


def covered_by_freeze(worker: WorkerContext, *, list_again: bool = False) -> Reasons:
    """Return the held tasks that operators' freezes cover, with those that the ledger lost.

    `list_again` lists Vault for freezes that no audit line has shown.
    """
    if list_again:
        rebuild_index(worker, Kept.FREEZE, again=worker.is_blind)
    words, found = freezes(worker), dict[str, str]()
    for task_id in worker.ledger.live_tasks() if words else ():
        if (word := next((word for word in words if _covers(worker, word, task_id)), None)) is not None:
            found[task_id] = f"{word.by} froze {word.scope}: {word.reason}"
    if words and worker.ledger.recovering() is not None:
        found |= _lost_and_frozen(worker, words)
    return found


def _lost_and_frozen(worker: WorkerContext, words: Sequence[FreezeStatement]) -> Reasons:
    """Return the tasks that the ledger lost, are published as open, and are covered by a freeze.

    Each is imported before it ends (`jitvault.recovery.lost_task`).
    """
    found = dict[str, str]()
    for task_id in worker.ledger.unknown_tasks(worker.documents.names(PUBLISHED)):
        said = published(worker, task_id)
        if isinstance(said, PublishedTask) and said.state in LIVING:
            for word in words:
                if word.covers(said.full_revision.content):
                    found.setdefault(task_id, f"{word.by} froze {word.scope}: {word.reason}")
    return found


def _covers(worker: WorkerContext, word: FreezeStatement, task_id: str) -> bool:
    """Return whether a freeze covers a task.

    A task of which that is not known counts as covered. Raises JitvaultError where the ledger cannot be read.
    """
    try:
        record = worker.ledger.record(task_id)
        return record is not None and word.covers(Revision.of(record.revision.body).content)
    except CorruptRecord:
        return True
    except JitvaultError:
        raise
    except Exception as error:  # noqa: BLE001 - a bug must not keep the freeze from the other tasks
        failure_of(task_id, error)
        return True


def end_all(worker: WorkerContext, reasons: Reasons, tell: Callable[[str], None]) -> None:
    """End the tasks.

    The tokens of all tasks are revoked first. `tell` is called with the result of each task.
    """
    for task_id in reasons:
        # with this deadline only the tokens are revoked; what fails is done again below, and reported there
        with suppress(JitvaultError):
            advance(worker, task_id, deadline=worker.clock.monotonic())
    for task_id, why in reasons.items():
        try:
            state = advance(worker, task_id).task.state
        except JitvaultError as error:
            tell(f"{task_id}: {why} It could not be ended: {error}")
        else:
            tell(f"{task_id} is {state}: {why} See `jitvault status {task_id}`.")
