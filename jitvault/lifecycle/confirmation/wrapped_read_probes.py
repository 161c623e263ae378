"""Ask the targets what became of credentials that a task had wrapped: `domain.unseen` finds such reads.

The engine names what its target still has of a path; what the audit stream shows as issued to somebody is taken off,
and the rest has to be gone. Where the target cannot tell, the task stays unproven.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jitvault.context import WorkerContext
from jitvault.engines.interface import ProbeResult
from jitvault.errors import InvalidInput, NotConfirmed, UsageError
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.confirmation.evidence import Evidence, tokens_of
from jitvault.lifecycle.confirmation.rounds import refused_by_target
from jitvault.lifecycle.confirmation.wrapped_reads import NOBODY, WrappedRead, asked_of_target, written_since
from jitvault.lifecycle.record.receipt import rung_of
from jitvault.model.proof_check import LASTING
from jitvault.model.revision import Revision
from jitvault.policy.decision import ProofLevel

_WITHOUT_TARGET = "its lease never showed, and its template does not have the target asked what became of it"


def ask_about(worker: WorkerContext, found: Evidence, reads: Sequence[WrappedRead]) -> dict[str, ProbeResult]:
    """Return what the targets say of each read, by the digest of its line."""
    revision = Revision.of(found.file.revision.body)
    answers: dict[str, ProbeResult] = {}
    for path in sorted({read.path for read in reads}):
        own = [read for read in reads if read.path == path]
        entry = revision.template_of(path) or {}
        if rung_of(found.file, entry) != ProofLevel.TARGET:
            # one whose lease showed after all is proven by that
            answers |= {read.line: _not_known(read, _WITHOUT_TARGET) for read in own if not read.lease_id}
            continue
        try:
            answers |= _ask(worker, found, entry, own)
        except (NotConfirmed, UsageError, InvalidInput) as error:
            answers |= {read.line: _not_known(read, str(error)) for read in own}
    return answers


def _not_known(read: WrappedRead, why: str) -> ProbeResult:
    return ProbeResult(refused=False, open_sessions=None, evidence=f"{read}: {why}", seen=False)


def _ask(
    worker: WorkerContext, found: Evidence, entry: Mapping[str, Any], reads: Sequence[WrappedRead]
) -> dict[str, ProbeResult]:
    """Ask the target of one path. Raises NotConfirmed where it cannot be asked or cannot tell."""
    engine, mount, path = worker.engines[entry["engine"]], str(entry["mount"]), str(entry["path"])
    written = written_since(tokens_of(found.file), found.trail, mount=mount, path=path, newest=found.newest)
    if written is not None:
        raise NotConfirmed(f"{written} can have changed what its credential is called: {LASTING}")
    inside = path.removeprefix(f"{mount}/")
    where = where_of(worker, entry["probe"])
    config = engine.snapshot(worker.reader.read, mount, inside)
    made = engine.made_since(where, config, inside, min(read.begun for read in reads))
    known = worker.ledger.known_targets(sorted(made))
    unknown = {name: at for name, at in made.items() if name not in known}
    # what a gap may hide is only looked for: it can be what another task holds, whose line fell into the same gap
    seen = [read for read in reads if not read.in_gap]
    own = [name for name, at in unknown.items() if any(read.may_have_made(at) for read in seen)]
    # one that is gone can have left a session open, and nobody knows its name
    probed = engine.probe(where, [*sorted(own), NOBODY])
    return {read.line: asked_of_target(read, unknown, probed) for read in reads}


def where_of(worker: WorkerContext, probe: str) -> Mapping[str, Any]:
    """How the probe reaches its target, from Vault: the one standing credential that jitvault has."""
    document = worker.documents.get(f"probes/{probe}")
    if not document or "dsn" not in document:
        raise NotConfirmed(f"there is no probe {probe} in jitvault/probes/")
    return document


def asked_before(file: TaskRecord) -> dict[str, ProbeResult]:
    """Return what the targets said of wrapped reads when the task was confirmed last, as its chain has it.

    They are not asked again: what they said is about a moment that is over, and a read that came later is not in it.
    """
    evidence = "the target was asked when the task was confirmed"
    refused = ProbeResult(refused=True, open_sessions=None, evidence=evidence)
    return dict.fromkeys(refused_by_target(file.events), refused)
