"""Collect the evidence for a judgement.

It is the stream up to a canary sent now, and the task's record after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jitvault.audit.trail import AuditTrail, Canary
from jitvault.context import WorkerContext
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.confirmation.quiet_rules import OpenQuestions, listing_covers_all, open_questions
from jitvault.lifecycle.record.history import proof_level_of
from jitvault.lifecycle.record.rounds import ACCOUNTED
from jitvault.model.kinds import OperationKind
from jitvault.model.revision import Revision
from jitvault.policy.decision import ProofLevel
from jitvault.stream.reading import canary


@dataclass(frozen=True, slots=True)
class Evidence:
    """A task's record and its audit lines, as of one canary.

    `newest` is the canary up to which the stream was read. `interrupted` says that lines of the task's tokens are in
    another segment than the one that is read now.
    """

    file: TaskRecord
    trail: AuditTrail
    newest: Canary
    interrupted: bool

    def open_questions(self, worker: WorkerContext) -> OpenQuestions:
        """Return what the lines alone leave open about the task's leases."""
        return open_questions(
            tokens_of(self.file),
            self.trail,
            leased=frozenset(entry["path"] for entry in Revision.of(self.file.revision.body).access),
            settle=worker.settle_window,
            newest=self.newest,
            interrupted=self.interrupted,
            nameable=self._nameable(worker),
            by_target=frozenset(entry["path"] for entry in self._by_target()),
        )

    def _by_target(self) -> list[Mapping[str, Any]]:
        """Return the task's access entries that need proof from their target."""
        access = Revision.of(self.file.revision.body).access
        return [entry for entry in access if proof_level_of(self.file, entry) == ProofLevel.TARGET]

    def _nameable(self, worker: WorkerContext) -> frozenset[str]:
        """Return the paths whose targets can name credentials that no line shows."""
        return frozenset(entry["path"] for entry in self._by_target() if worker.engines[entry["engine"]].finds_unnamed)

    def listing_covers_all(self) -> bool:
        """Return whether a listing settles what the lines leave open."""
        return listing_covers_all(tokens_of(self.file), self.trail, good_listings(self.file), at=self.newest.place)


def collect_evidence(worker: WorkerContext, task_id: str) -> Evidence:
    """Read the stream up to a canary, and then the task. Raises AuditUntrusted."""
    # the canary comes first: leases that are read on the way to it have to be in the task's record
    newest = canary(worker)
    file = worker.file(task_id)
    return Evidence(file, worker.ledger.trail(file), newest, worker.ledger.interrupted(file))


def tokens_of(file: TaskRecord) -> frozenset[str]:
    """Return the accessor HMACs of all tokens that the task ever had."""
    return frozenset(grant.accessor_hmac for grant in file.grants if grant.accessor_hmac)


def good_listings(file: TaskRecord) -> frozenset[str]:
    """Return the ids of lease listings that left no lease unaccounted for."""
    return frozenset(
        op.op_id for op in file.operations if op.kind == OperationKind.LIST_LEASES and op.answer == ACCOUNTED
    )
