"""Ask the targets about credentials that a task read in a wrapping.

The wrapping tokens are revoked. `wrapped_reads.py` finds such reads. The engine names the credentials that its target
still has of a path. Those that the audit stream shows as issued are left out, and the rest has to be gone. Where the
target cannot tell, the task is not confirmed.

A wrapping token outlives the token whose read made it, for as long as that request asked for. Vault lists its lease
below the path that was read, with its issue time, and the read's audit lines say between which times it was made. That
it is revoked proves nothing: whoever unwrapped it before has the secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from jitvault.audit.observation import is_token_lease
from jitvault.context import WorkerContext
from jitvault.engines.interface import probe_of
from jitvault.errors import InvalidInput, JitvaultError, NotConfirmed, ProbeUnusable, UsageError
from jitvault.ledger.model import Change, OperationRow, OpState, TaskRecord
from jitvault.lifecycle.confirmation.evidence import Evidence, tokens_of
from jitvault.lifecycle.confirmation.hazards import in_the_way
from jitvault.lifecycle.confirmation.wrapped_reads import (
    UNNAMED,
    WrappedRead,
    judge_by_target,
    made_by,
    open_read,
    written_since,
)
from jitvault.lifecycle.record.history import proof_level_of
from jitvault.lifecycle.record.reopenings import refused_by_target
from jitvault.model.event_bodies import WrappingsEnded
from jitvault.model.evidence import Lack, TargetAnswer
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.proof_check import TARGET_N, Check
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Access
from jitvault.operations import DONE, new_operation, record_answer
from jitvault.policy.decision import ProofLevel

_WITHOUT_TARGET = "its lease never showed, and its template does not have the target asked what became of it"


def ask_targets(worker: WorkerContext, found: Evidence, reads: Sequence[WrappedRead]) -> dict[str, Check]:
    """Return check 6 of each read by what its target says, by the digest of its line."""
    revision = Revision.of(found.record.revision.body)
    answers: dict[str, Check] = {}
    for path in sorted({read.path for read in reads}):
        own = [read for read in reads if read.path == path]
        entry = revision.access_at(path)
        if entry is None or proof_level_of(found.record, entry) != ProofLevel.TARGET:
            # a read whose lease showed after all is proven by that lease
            answers |= {read.line: open_read(read, _WITHOUT_TARGET) for read in own if not read.lease_id}
            continue
        try:
            answers |= _ask(worker, found, entry, own)
        except (NotConfirmed, UsageError, InvalidInput) as error:
            answers |= {read.line: open_read(read, str(error)) for read in own}
    return answers


def _ask(worker: WorkerContext, found: Evidence, entry: Access, reads: Sequence[WrappedRead]) -> dict[str, Check]:
    """Ask the target of one path about its wrapped reads.

    Raises NotConfirmed where the target cannot be asked or cannot tell.
    """
    engine, mount, path = worker.engines[entry.engine], entry.mount, entry.path
    written = written_since(tokens_of(found.record), found.trail, mount=mount, path=path, newest=found.newest)
    if written is not None:
        renamed = replace(in_the_way(written, for_good=True), lack=Lack.READ_RENAMED)
        return {read.line: Check(TARGET_N, False, replace(renamed, read=read.shown)) for read in reads}
    inside = path.removeprefix(f"{mount}/")
    where = probe_target(worker, entry.probe)
    config = engine.snapshot(worker.reader.read, mount, inside)
    made = probe_of(engine).made_since(where, config, inside, min(read.begun for read in reads))
    known = worker.ledger.known_targets(sorted(made))
    unknown = {name: at for name, at in made.items() if name not in known}
    # A read that only a gap may hide is not probed by name, only looked for among what the target still has: such a
    # credential may be another task's, whose line fell into the same gap.
    seen = [read for read in reads if not read.in_gap]
    own = [name for name, at in unknown.items() if any(read.may_have_made(at) for read in seen)]
    # a credential that is gone may have left a session open, and its name is not known
    probed = probe_of(engine).ask(where, [*sorted(own), UNNAMED])
    return {read.line: judge_by_target(engine.name, read, unknown, probed) for read in reads}


def probe_target(worker: WorkerContext, probe: str | None) -> Mapping[str, Any]:
    """Return how a probe reaches its target, as its document in Vault says.

    The document has the one standing credential that jitvault holds. Raises ProbeUnusable where there is no such
    document.
    """
    document = worker.documents.get(f"probes/{probe}")
    if not document or "dsn" not in document:
        raise ProbeUnusable(f"there is no probe {probe} in jitvault/probes/")
    return document


def answers_at_confirmation(record: TaskRecord) -> dict[str, Check]:
    """Return what the targets said of wrapped reads at the last confirmation.

    The answers come from the task's event chain. The targets are not asked again: an answer is about a moment that is
    over, and a read that came later is not among the answers.
    """
    evidence = TargetAnswer("", "", "the target was asked when the task was confirmed")
    refused = Check(TARGET_N, ok=True, evidence=evidence)
    return dict.fromkeys(refused_by_target(record.events), refused)


_AT_ONCE = 100
_PATIENCE_S = 10.0
"""How long one turn revokes wrapping tokens; the next turn goes on."""


def revoke_wrappings(worker: WorkerContext, found: Evidence, claim: int) -> bool:
    """Revoke the wrapping tokens of the task's reads.

    Return whether there were any.

    What an administrator had wrapped at the path of a read while that read was under way counts as the task's, and the
    administrator has to read it again.
    """
    reads = [read for read in found.open_questions(worker).wrapped if not read.in_gap]
    task_id = found.record.task.task_id
    until = worker.clock.monotonic() + _PATIENCE_S
    ended = False
    for path in sorted({read.path for read in reads}):
        is_own = made_by(read for read in reads if read.path == path)
        listed = [lease_id for lease_id in worker.leases.list(path) if is_token_lease(lease_id)]
        for n in range(0, len(listed), _AT_ONCE):
            if worker.is_late() or worker.clock.monotonic() > until:
                _record_rest(worker, task_id)
                return ended
            own: list[str] = []
            for lease_id in listed[n : n + _AT_ONCE]:
                record = worker.leases.lookup(lease_id)
                if record and record.issued_at and is_own(record.issued_at):
                    own.append(lease_id)
            if own:
                _revoke_all(worker, task_id, claim, own)
                ended = True
    return ended


def _revoke_all(worker: WorkerContext, task_id: str, claim: int, doomed: Sequence[str]) -> None:
    """Commit all intents, revoke, and commit the answers."""
    worker.ledger.extend(task_id, claim)
    ops = [new_operation(worker, OperationKind.REVOKE_WRAPPING, lease_id, task_id=task_id) for lease_id in doomed]
    worker.ledger.apply(task_id, Change(EventKind.WRAPPINGS_INTENDED, rows=ops), claim=claim, at=worker.now())
    answers = [_revoke(worker, op) for op in ops]
    ended = sum(op.answer == DONE for op in answers)
    change = Change(EventKind.WRAPPINGS_ENDED, WrappingsEnded(ended=ended, of=len(answers)), rows=answers)
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _revoke(worker: WorkerContext, op: OperationRow) -> OperationRow:
    """Revoke one wrapping token; return the operation with its answer.

    A failure does not hold up the judgement: the next turn tries again.
    """
    try:
        worker.leases.revoke(op.subject, op=op.op_id)
    except JitvaultError as error:
        return record_answer(worker, op, OpState.ABANDONED, error)
    return record_answer(worker, op, OpState.ANSWERED, DONE)


def _record_rest(worker: WorkerContext, task_id: str) -> None:
    """Record a finding: wrapping tokens are left for the next turns."""
    message = (
        f"more wrappings of what its token read are in Vault than are ended in {_PATIENCE_S:g} s: the rest can be "
        "opened until the next looks at the task have ended them"
    )
    worker.ledger.finding(task_id, "wrappings_left", message, worker.now())
