"""Ask the targets about credentials that a task read in a wrapping (`wrapped_reads.py` finds such reads).

The engine names the credentials that its target still has of a path. Those that the audit stream shows as issued are
left out, and the rest has to be gone. Where the target cannot tell, the task is not confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jitvault.context import WorkerContext
from jitvault.engines.interface import ProbeResult
from jitvault.errors import InvalidInput, NotConfirmed, UsageError
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.confirmation.evidence import Evidence, tokens_of
from jitvault.lifecycle.confirmation.wrapped_reads import UNNAMED, WrappedRead, judge_by_target, written_since
from jitvault.lifecycle.record.history import proof_level_of
from jitvault.lifecycle.record.rounds import refused_by_target
from jitvault.model.proof_check import permanent_evidence
from jitvault.model.revision import Revision
from jitvault.policy.decision import ProofLevel

_WITHOUT_TARGET = "its lease never showed, and its template does not have the target asked what became of it"


def ask_targets(worker: WorkerContext, found: Evidence, reads: Sequence[WrappedRead]) -> dict[str, ProbeResult]:
    """Return what the targets say of each read, by the digest of its line."""
    revision = Revision.of(found.file.revision.body)
    answers: dict[str, ProbeResult] = {}
    for path in sorted({read.path for read in reads}):
        own = [read for read in reads if read.path == path]
        entry = revision.template_of(path) or {}
        if proof_level_of(found.file, entry) != ProofLevel.TARGET:
            # a read whose lease showed after all is proven by that lease
            answers |= {read.line: _no_answer(read, _WITHOUT_TARGET) for read in own if not read.lease_id}
            continue
        try:
            answers |= _ask(worker, found, entry, own)
        except (NotConfirmed, UsageError, InvalidInput) as error:
            answers |= {read.line: _no_answer(read, str(error)) for read in own}
    return answers


def _no_answer(read: WrappedRead, why: str) -> ProbeResult:
    """Return the result for a read whose target could not be asked, or cannot tell."""
    return ProbeResult(refused=False, open_sessions=None, evidence=f"{read}: {why}", seen=False)


def _ask(
    worker: WorkerContext, found: Evidence, entry: Mapping[str, Any], reads: Sequence[WrappedRead]
) -> dict[str, ProbeResult]:
    """Ask the target of one path about its wrapped reads.

    Raises NotConfirmed where the target cannot be asked or cannot tell.
    """
    engine, mount, path = worker.engines[entry["engine"]], str(entry["mount"]), str(entry["path"])
    written = written_since(tokens_of(found.file), found.trail, mount=mount, path=path, newest=found.newest)
    if written is not None:
        raise NotConfirmed(permanent_evidence(f"{written} can have changed what its credential is called"))
    inside = path.removeprefix(f"{mount}/")
    where = probe_target(worker, entry["probe"])
    config = engine.snapshot(worker.reader.read, mount, inside)
    made = engine.made_since(where, config, inside, min(read.begun for read in reads))
    known = worker.ledger.known_targets(sorted(made))
    unknown = {name: at for name, at in made.items() if name not in known}
    # A read that only a gap may hide is not probed by name, only looked for among what the target still has: such a
    # credential may be another task's, whose line fell into the same gap.
    seen = [read for read in reads if not read.in_gap]
    own = [name for name, at in unknown.items() if any(read.may_have_made(at) for read in seen)]
    # a credential that is gone may have left a session open, and its name is not known
    probed = engine.probe(where, [*sorted(own), UNNAMED])
    return {read.line: judge_by_target(read, unknown, probed) for read in reads}


def probe_target(worker: WorkerContext, probe: str) -> Mapping[str, Any]:
    """Return how a probe reaches its target, as its document in Vault says.

    The document has the one standing credential that jitvault holds. Raises NotConfirmed where there is no such
    document.
    """
    document = worker.documents.get(f"probes/{probe}")
    if not document or "dsn" not in document:
        raise NotConfirmed(f"there is no probe {probe} in jitvault/probes/")
    return document


def answers_at_confirmation(file: TaskRecord) -> dict[str, ProbeResult]:
    """Return what the targets said of wrapped reads at the last confirmation.

    The answers come from the task's event chain. The targets are not asked again: an answer is about a moment that is
    over, and a read that came later is not among the answers.
    """
    evidence = "the target was asked when the task was confirmed"
    refused = ProbeResult(refused=True, open_sessions=None, evidence=evidence)
    return dict.fromkeys(refused_by_target(file.events), refused)
