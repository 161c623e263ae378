"""Check that a task's record agrees with itself and with Vault.

The ledger is a cache and a record, never an authority.

Someone who can write the database can change rows and chain, but not what Vault holds: the signed documents from which
every decision is made, the worker's published state with the head of the chain at that time, and the signed receipt.
What was not published yet is protected by the audit stream alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jitvault.audit.observation import issued
from jitvault.audit.trail import AuditTrail, derived_tokens, linked
from jitvault.context import WorkerContext
from jitvault.documents.paths import PUBLISHED, is_stale, published_path, request_path
from jitvault.documents.published_task import (
    IllegibleDocument,
    PublishedDocument,
    PublishedRefusal,
    PublishedTask,
    read_published,
)
from jitvault.documents.receipt import statement_in
from jitvault.documents.signed import RECEIPT_KEY
from jitvault.errors import CorruptRecord, SecurityFinding
from jitvault.ledger.model import TaskRecord
from jitvault.ledger.row_digests import edited_rows
from jitvault.lifecycle.record.history import decisions_digest, last_decision
from jitvault.lifecycle.record.lookups import BACK, is_any_live, proven_before
from jitvault.model.event_bodies import Recovered, Sealed, Unverified, ledger_part, said
from jitvault.model.event_chain import Event, chain_problems
from jitvault.model.kinds import EventKind
from jitvault.model.states import BEFORE_GRANT, EDGES, RECOVERED_TO, State
from jitvault.vault.interface import Documents

_NOT_THE_SAME = (
    "The ledger was edited or restored, or somebody with the worker's token wrote that. Nothing is granted or proven "
    "from this ledger; what it knows of the task is revoked where the task has to end."
)
MENDED = "Where it was restored, `jitvault ledger recover` corrects it."
_NO_EVENT = (0, "")
"""The number and hash of an event that no ledger holds."""


def published(worker: WorkerContext, task_id: str) -> PublishedDocument | None:
    """Return what the worker last published of the task.

    The result is None where it did not publish the task yet.
    """
    stored = worker.documents.read(published_path(task_id))
    return read_published(task_id, stored.document, stored.written_at) if stored is not None else None


def is_published(said: PublishedDocument | None, record: TaskRecord) -> bool:
    """Return whether the published copy shows the task's last event."""
    return isinstance(said, PublishedTask) and (said.chain.seq, said.chain.head) == (record.task.seq, record.task.head)


@dataclass(frozen=True, slots=True)
class VerifiedTask:
    """A task's record, which agrees with itself and with Vault's copy.

    `published` is what was published of it when it was verified.
    """

    record: TaskRecord
    published: PublishedDocument | None


def verify(worker: WorkerContext, task_id: str, claim: int | None = None) -> VerifiedTask:
    """Read a task, and refuse it unless all its records agree.

    The records are the ledger's rows, the event chain and the published copy. This comes before anything is done for a
    task. The stream has its own checks: of the leases that it shows at each judgement (`is_complete`), and of its trust
    (`jitvault.stream`).

    1. The ledger holds the event that was published last, and a task that was granted is not before its grant again.
    2. A task that may still be granted is published, or its request is young.
    3. The task's rows are as its event chain says that they were written, and the chain agrees with its head.
    4. Vault has no credential of a task that is closed by the ledger and not by what was published.

    Raises SecurityFinding, and records the finding. Raises WrongState where `claim` is lost.
    """
    # read before the ledger, so an honest ledger has at least as much
    published_copy = published(worker, task_id)
    record = worker.record(task_id)
    _check_anchor(worker, record, published_copy, claim)
    _check_not_removed(worker, record, published_copy)
    check_integrity(worker, record)
    _check_not_back(worker, record, published_copy)
    return VerifiedTask(record, published_copy)


def verify_again(worker: WorkerContext, task_id: str, known: TaskRecord | None) -> TaskRecord:
    """Read a verified task again.

    It is refused where its rows do not agree any more. `known` is its record from before, if the caller has it. Where
    nothing changed since, nothing is checked again: the stream enters lines of a task while a process works on it.
    """
    current = worker.ledger.refreshed(known) if known else worker.record(task_id)
    if known is None or current.task != known.task:
        check_integrity(worker, current)
    return current


def _check_anchor(worker: WorkerContext, record: TaskRecord, said: PublishedDocument | None, claim: int | None) -> None:
    """Check 1: raise SecurityFinding when the ledger lacks what is published.

    Such a ledger was restored or rewritten. `said` is the published copy and was read before `record`, so an honest
    ledger has at least as much. Raises WrongState where `claim` is lost.
    """
    if said is None or isinstance(said, PublishedRefusal) or _holds(record, said):
        return
    message = f"Vault says that task {record.task.task_id} is {said.state}, which the ledger does not hold"
    if claim is not None:
        worker.ledger.extend(record.task.task_id, claim)
    worker.ledger.finding(record.task.task_id, "ledger_rolled_back", message, worker.now())
    raise SecurityFinding(message, hint=f"{_NOT_THE_SAME} {MENDED}")


def _holds(record: TaskRecord, said: PublishedTask | IllegibleDocument) -> bool:
    """Return whether the ledger has at least what was published of the task."""
    if isinstance(said, IllegibleDocument):
        return False
    held = {event.seq: event.hash for event in record.events}
    # a task that was granted or cancelled never returns to a state before its grant
    is_back = record.task.state in BEFORE_GRANT and said.state not in BEFORE_GRANT
    return held.get(said.chain.seq) == said.chain.head and not is_back


def _check_not_removed(worker: WorkerContext, record: TaskRecord, published_copy: PublishedDocument | None) -> None:
    """Check 2: raise SecurityFinding for a task that may be over already.

    Its published document may have been deleted. By the ledger the task may still be granted, but nothing is published
    of it and its request is old: the ledger or Vault was restored. The finding is recorded as well.
    """
    task = record.task
    if published_copy is not None or task.state not in BEFORE_GRANT:
        return
    stored = worker.documents.read(request_path(task.requester, task.task_id, "submit"))
    if stored is None or not is_stale(stored.written_at, worker.now()):
        # the request was admitted just now, and is published at the end of this call
        return
    message = f"Vault says nothing of task {task.task_id}, whose request is old: the ledger or Vault was restored"
    worker.ledger.finding(task.task_id, "ledger_rolled_back", message, worker.now())
    raise SecurityFinding(
        message,
        hint="Nothing is granted for a task that may be over. If access is still needed, submit a task with another "
        "id.",
    )


def _check_not_back(worker: WorkerContext, record: TaskRecord, published_copy: PublishedDocument | None) -> None:
    """Check 4: raise SecurityFinding when a closed task has a credential.

    Vault has the credential again. After a restore of Vault, the task's published copy says what it said before the
    task was closed. It also does after a crash, but then Vault has no credential of the task. The finding is recorded
    as well.
    """
    closed = record.task.state in (State.SEALED, State.UNVERIFIED)
    if not closed or (published_copy is not None and published_copy.state == record.task.state):
        return
    if not is_any_live(worker, proven_before(record)):
        return
    message = f"{BACK}: task {record.task.task_id} is {record.task.state}, and Vault was restored since"
    worker.ledger.finding(record.task.task_id, "back_after_seal", message, worker.now())
    raise SecurityFinding(message, hint="`jitvault sweep --fix` ends what is there, and proves it.")


def check_integrity(worker: WorkerContext, record: TaskRecord) -> None:
    """Check 3: raise SecurityFinding when rows and chain do not agree.

    The rows are the task's. The finding is recorded as well. A difference in the rows of decisions is recorded but not
    raised: nothing is decided by these rows, and they are written anew from Vault.
    """
    if problems := problems_of(worker, record):
        raise _edited(worker, record, "; ".join(problems))
    if last_decision(record).votes != decisions_digest(record.decisions):
        _edited(worker, record, "the decisions are not the ones that were counted")


def is_edited(worker: WorkerContext, record: TaskRecord) -> bool:
    """Return whether the task's rows disagree with its chain.

    If they do, that is recorded. For a caller that is working on another task.
    """
    if problems := problems_of(worker, record):
        _edited(worker, record, "; ".join(problems))
        return True
    return False


def problems_of(worker: WorkerContext, record: TaskRecord) -> list[str]:
    """Return in words where the task's rows do not agree with its chain."""
    problems = chain_problems(record.events, head=record.task.head)
    try:
        return problems + _problems(worker, record)
    except CorruptRecord as error:
        return [*problems, f"its rows cannot be read: {error}"]


def _problems(worker: WorkerContext, record: TaskRecord) -> list[str]:
    task = record.task
    problems = edited_rows(record) + _moved(record) + _receipt(worker, record)
    if not record.events or task.seq != record.events[-1].seq:
        problems.append(f"the task says that it has {task.seq} events")
    return problems


def is_complete(worker: WorkerContext, record: TaskRecord, trail: AuditTrail) -> bool:
    """Return whether `record` has every lease that `trail` shows.

    It may lack one where another process has read the stream in between. Raises SecurityFinding when the ledger itself
    lacks one, since the ledger also keeps the lines.
    """
    tokens = {grant.accessor_hmac: grant for grant in record.grants if grant.accessor_hmac}
    lines = linked(trail.observations, tokens, derived_tokens(trail.observations))
    leases = [lease for _, line in lines if (lease := issued(line))]
    shown = {(lease.lease_id, lease.path, lease.target_name) for lease in leases}
    if shown == _named(record):
        return True
    # read after the trail, so an honest ledger holds at least as much
    newest = worker.ledger.record(record.task.task_id)
    if newest is None or not shown <= _named(newest) or not _named(record) <= shown:
        raise _edited(worker, record, "the task's leases are not the ones that the audit stream showed")
    return False


def _named(record: TaskRecord) -> set[tuple[str, str, str | None]]:
    return {(lease.lease_id, lease.path, lease.target_name) for lease in record.leases}


def check_issuable(worker: WorkerContext, record: TaskRecord, claim: int) -> None:
    """Raise SecurityFinding when Vault says that the task was issued already.

    Also raises it when another revision is published. Raises WrongState where the claim is lost: the process that took
    the task over may have issued it since `record` was read.
    """
    said = published(worker, record.task.task_id)
    if not isinstance(said, PublishedTask) or said.state not in BEFORE_GRANT | {State.ISSUING}:
        worker.ledger.extend(record.task.task_id, claim)
        state = said.state if said is not None else "unknown"
        message = f"Vault says that task {record.task.task_id} is {state}, the ledger says {record.task.state}"
        worker.ledger.finding(record.task.task_id, "ledger_rolled_back", message, worker.now())
        raise SecurityFinding(message, hint=f"The ledger was edited or restored: nothing is issued from it. {MENDED}")
    if said.digest != record.task.digest:
        worker.ledger.extend(record.task.task_id, claim)
        raise SecurityFinding(f"the published digest of task {record.task.task_id} is not the ledger's")


def _moved(record: TaskRecord) -> list[str]:
    """Check that each move from one state to the next is one that a task can make."""
    states = [ledger_part(event).state for event in record.events]
    moves = zip(record.events[1:], states, states[1:], strict=False)
    jumped = any(before != after and not _moves(event, before, after) for event, before, after in moves)
    return ["the task's state was set by hand"] if jumped else []


def _moves(event: Event, before: str, after: str) -> bool:
    """Return whether an event can have moved its task so.

    An observation moves none.
    """
    if event.kind == EventKind.OBSERVED or before not in EDGES:
        return False
    return after in (RECOVERED_TO if event.kind == EventKind.RECOVERED else EDGES[State(before)])


def _receipt(worker: WorkerContext, record: TaskRecord) -> list[str]:
    """Check that a closed task has a receipt which Vault's key signed."""
    if record.task.state not in (State.SEALED, State.UNVERIFIED):
        return []
    keys = worker.signer.public_keys(RECEIPT_KEY)
    try:
        receipt = statement_in(record.task.receipt, keys).predicate
    except SecurityFinding:
        return ["the task was never sealed: its receipt is not signed"]
    heads = {body.sealed_head for _, body in said(record.events, Recovered)}
    heads |= {body.head for _, body in said(record.events, Sealed)} | {
        b.head for _, b in said(record.events, Unverified)
    }
    if receipt.task != record.task.task_id or receipt.chain.head not in heads:
        return ["the task's receipt is another one's"]
    return []


def _edited(worker: WorkerContext, record: TaskRecord, what: str) -> SecurityFinding:
    worker.ledger.finding(record.task.task_id, "ledger_edited", what, worker.now())
    return SecurityFinding(f"the ledger's record of task {record.task.task_id} was changed: {what}")


def published_heads(documents: Documents) -> Mapping[str, tuple[int, str]]:
    """Return the number and hash of each task's last published event.

    Of a document that no worker wrote, they are those of an event that no ledger holds. Raises VaultRefused,
    VaultUnavailable.
    """
    found: dict[str, tuple[int, str]] = {}
    for name in documents.names(PUBLISHED):
        stored = documents.read(published_path(name))
        said = read_published(name, stored.document, stored.written_at) if stored is not None else None
        if isinstance(said, PublishedTask):
            found[name] = (said.chain.seq, said.chain.head)
        elif isinstance(said, IllegibleDocument):
            found[name] = _NO_EVENT
    return found
