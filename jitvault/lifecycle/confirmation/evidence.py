"""What a judgement goes by: the stream up to a canary of now, and all that the ledger has of the task by then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jitvault.audit.trail import AuditTrail, Canary
from jitvault.context import WorkerContext
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.confirmation.quiet import OpenQuestions, doubts, listing_covers_all
from jitvault.lifecycle.confirmation.rounds import ACCOUNTED
from jitvault.lifecycle.record.receipt import rung_of
from jitvault.model.kinds import OperationKind
from jitvault.model.revision import Revision
from jitvault.policy.decision import ProofLevel
from jitvault.stream.reading import canary


@dataclass(frozen=True, slots=True)
class Evidence:
    """`newest`: up to where the stream was read. `interrupted`: whether lines of the task's tokens stand in another
    stretch than the one that is read now.
    """

    file: TaskRecord
    trail: AuditTrail
    newest: Canary
    interrupted: bool

    def doubts(self, worker: WorkerContext) -> OpenQuestions:
        """What the lines leave open about the task's leases."""
        return doubts(
            tokens_of(self.file),
            self.trail,
            leased=frozenset(entry["path"] for entry in Revision.of(self.file.revision.body).access),
            settle=worker.settle_window,
            newest=self.newest,
            interrupted=self.interrupted,
            told=self._told(worker),
            by_target=frozenset(entry["path"] for entry in self._by_target()),
        )

    def _by_target(self) -> list[Mapping[str, Any]]:
        """The task's access whose targets are asked for proof."""
        access = Revision.of(self.file.revision.body).access
        return [entry for entry in access if rung_of(self.file, entry) == ProofLevel.TARGET]

    def _told(self, worker: WorkerContext) -> frozenset[str]:
        """The task's paths whose targets are asked for proof and can name what no line shows."""
        return frozenset(entry["path"] for entry in self._by_target() if worker.engines[entry["engine"]].finds_unnamed)

    def listing_covers_all(self) -> bool:
        """Whether a listing of the task's prefixes settles what the lines leave open."""
        return listing_covers_all(tokens_of(self.file), self.trail, good_listings(self.file), at=self.newest.place)


def collect_evidence(worker: WorkerContext, task_id: str) -> Evidence:
    """Read the stream up to a canary, and then all that there is of the task. Raises AuditUntrusted."""
    # the canary first: the leases that are read on the way to it have to be in the file
    newest = canary(worker)
    file = worker.file(task_id)
    return Evidence(file, worker.ledger.trail(file), newest, worker.ledger.interrupted(file))


def tokens_of(file: TaskRecord) -> frozenset[str]:
    """The accessor HMACs of all tokens that the task ever had."""
    return frozenset(grant.accessor_hmac for grant in file.grants if grant.accessor_hmac)


def good_listings(file: TaskRecord) -> frozenset[str]:
    """The ids of listings of the task's prefixes that left nothing unaccounted for."""
    return frozenset(
        op.op_id for op in file.operations if op.kind == OperationKind.LIST_LEASES and op.answer == ACCOUNTED
    )
