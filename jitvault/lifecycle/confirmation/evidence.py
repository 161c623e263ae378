"""Collect the evidence for a judgement.

This includes a lease listing where one is needed. The evidence is the stream up to a canary sent now, and the task's
record after it.

The stream alone may not show a lease: a gap can hide it, a wrapped read that was never unwrapped has a lease that no
line shows, and a request that never got an answer may have made one. Then every lease is listed that Vault has below a
task's paths now. Each that was made while the task's token lived has to belong to some task.

Wrapped reads of other tasks leave leases below the same path that no line shows, too; an agent can make thousands of
them. A lease counts as another task's where a wrapped read of that task can have made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from jitvault.audit.observation import Kind, Observation, is_token_lease
from jitvault.audit.trail import AuditTrail, Canary, done
from jitvault.context import WorkerContext
from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.model import Change, OpState, TaskRecord
from jitvault.lifecycle.confirmation.quiet_rules import OpenQuestions, listing_covers_all, open_questions
from jitvault.lifecycle.confirmation.wrapped_reads import unexplained, wrapped_reads
from jitvault.lifecycle.decision.drift import drift_besides_request
from jitvault.lifecycle.decision.template_gate import leases_under_check
from jitvault.lifecycle.record.history import proof_level_of
from jitvault.lifecycle.record.reopenings import ACCOUNTED
from jitvault.model.event_bodies import Listed, ListingIntended, said
from jitvault.model.evidence import Missing
from jitvault.model.kinds import EventKind, OperationKind
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Access
from jitvault.operations import new_operation, record_answer
from jitvault.policy.decision import ProofLevel
from jitvault.stream.reading import canary


@dataclass(frozen=True, slots=True)
class Evidence:
    """A task's record and its audit lines, as of one canary.

    `newest` is the canary up to which the stream was read. `interrupted` says that lines of the task's tokens are in
    another segment than the one that is read now.
    """

    record: TaskRecord
    trail: AuditTrail
    newest: Canary
    interrupted: bool

    def open_questions(self, worker: WorkerContext) -> OpenQuestions:
        """Return what the lines alone leave open about the task's leases."""
        return open_questions(
            tokens_of(self.record),
            self.trail,
            leased=frozenset(entry.path for entry in Revision.of(self.record.revision.body).access),
            settle=worker.settle_window,
            newest=self.newest,
            interrupted=self.interrupted,
            nameable=self._nameable(worker),
            by_target=frozenset(entry.path for entry in self._by_target()),
        )

    def _by_target(self) -> list[Access]:
        """Return the task's access entries that need proof from their target."""
        access = Revision.of(self.record.revision.body).access
        return [entry for entry in access if proof_level_of(self.record, entry) == ProofLevel.TARGET]

    def _nameable(self, worker: WorkerContext) -> frozenset[str]:
        """Return the paths whose targets can name credentials that no line shows."""
        asked = ((entry.path, worker.engines[entry.engine].probe) for entry in self._by_target())
        return frozenset(path for path, probe in asked if probe is not None and probe.finds_unnamed)

    def unnamed_tokens(self) -> list[Observation]:
        """Return the lines of tokens that the task's grants do not name.

        They were made under one of its intents. A request to create a token that went astray on its way, or that
        somebody repeated, can make a second token, or one after the intent was given up. No one asks Vault about such a
        token but for its line. A second audit device that writes into the same log shows a token of ours once more, by
        other HMACs and with the same request.
        """
        intents, named = {grant.create_op for grant in self.record.grants}, tokens_of(self.record)
        made = [o for o in self.trail.observations if o.kind is Kind.TOKEN_CREATED and done(o) and o.op in intents]
        own = {o.request_id for o in made if o.actor in self.trail.worker_accessors}
        ours = [
            o
            for o in made
            if o.actor in self.trail.worker_accessors or ("worker" in o.detail and o.request_id not in own)
        ]
        return list({o.subject: o for o in ours if o.subject and o.subject not in named}.values())

    def listing_covers_all(self) -> bool:
        """Return whether a listing settles what the lines leave open."""
        return listing_covers_all(tokens_of(self.record), self.trail, good_listings(self.record), at=self.newest.place)


def collect_evidence(worker: WorkerContext, record: TaskRecord) -> Evidence:
    """Read the stream up to a canary, and then what is new of the task, which was as in `record`.

    Raises AuditUntrusted.
    """
    # the canary comes first: leases that are read on the way to it have to be in the task's record
    newest = canary(worker)
    record = worker.ledger.refreshed(record)
    return Evidence(record, worker.ledger.trail(record), newest, worker.ledger.interrupted(record))


def tokens_of(record: TaskRecord) -> frozenset[str]:
    """Return the accessor HMACs of all tokens that the task ever had."""
    return frozenset(grant.accessor_hmac for grant in record.grants if grant.accessor_hmac)


def good_listings(record: TaskRecord) -> frozenset[str]:
    """Return the ids of lease listings that left no lease unaccounted for."""
    return frozenset(
        op.op_id for op in record.operations if op.kind == OperationKind.LIST_LEASES and op.answer == ACCOUNTED
    )


_PATIENCE_S = 10.0
"""How long one turn looks up leases that belong to no task; a claim lasts for 30 s. The rest counts as unaccounted."""


def collect_reconciled(worker: WorkerContext, record: TaskRecord, claim: int) -> Evidence:
    """Collect the task's evidence, with a lease listing where one is needed.

    Raises AuditUntrusted.
    """
    found = collect_evidence(worker, record)
    questions = found.open_questions(worker)
    # a request that has no answer yet is waited for first
    if not questions.why_list or questions.pending or found.listing_covers_all():
        return found
    _list_leases(worker, found.record, claim, questions.why_list)
    return collect_evidence(worker, found.record)


def _list_leases(worker: WorkerContext, record: TaskRecord, claim: int, why: Missing) -> None:
    """List the leases below the task's paths.

    Whether all are known is recorded.
    """
    task_id = record.task.task_id
    paths = sorted({entry.path for entry in Revision.of(record.revision.body).access})
    ops = [new_operation(worker, OperationKind.LIST_LEASES, path, task_id=task_id) for path in paths]
    intent = Change(EventKind.LISTING_INTENDED, ListingIntended(why=why), rows=ops)
    worker.ledger.apply(task_id, intent, claim=claim, at=worker.now())
    listed = [lease for op in ops for lease in worker.leases.list(op.subject, op=op.op_id)]
    # leases that were issued to other tasks just now are known once the stream was read up to here
    canary(worker)
    unknown = unaccounted_leases(worker, record, listed, until=_latest_issue(worker, record))
    drifted = drift_besides_request(worker, record)
    answer = ACCOUNTED if not unknown and drifted is None else "not accounted for"
    lasting = _listed_before(record) & set(unknown)
    # until a lost ledger is rebuilt, leases of its tasks belong to none
    if lasting and worker.ledger.recovering() is None:
        message = f"{len(lasting)} leases that belong to no task were made while its token lived: {min(lasting)}"
        worker.ledger.finding(task_id, "unaccounted_lease", message, worker.now())
    answered = [record_answer(worker, op, OpState.ANSWERED, answer) for op in ops]
    change = Change(
        EventKind.LISTED, Listed(answer=answer, suspects=tuple(unknown[:100]), drift=drifted), rows=answered
    )
    worker.ledger.apply(task_id, change, claim=claim, at=worker.now())


def _latest_issue(worker: WorkerContext, record: TaskRecord) -> datetime:
    """Return the latest time at which the task's tokens can have got a lease.

    A lease that was made later is not the task's.
    """
    gone = [grant.dead_at for grant in record.grants if grant.dead_at]
    return max(gone) + worker.settle_window + MAX_SKEW if gone else worker.now()


def _listed_before(record: TaskRecord) -> set[str]:
    """Return the leases that the previous listing left unaccounted for.

    Vault ends the leases of a revoked token within a moment, so a lease becomes a finding only when it is listed twice.
    """
    listings = (body.suspects for _, body in said(reversed(record.events), Listed))
    return set(next(listings, ()))


def unaccounted_leases(worker: WorkerContext, record: TaskRecord, listed: list[str], *, until: datetime) -> list[str]:
    """Return the listed leases that belong to no task and may be this task's.

    These were made, by Vault's clock, between the issue of the task's first token and `until`, and no wrapped read of
    another task can have made them. The caller has read the stream up to a canary after the listing, so that leases
    which were just issued to others are known.
    """
    known = worker.ledger.known_leases(listed)
    unknown = [lease_id for lease_id in listed if lease_id not in known and not is_token_lease(lease_id)]
    begun = min((grant.issued_at for grant in record.grants if grant.issued_at), default=record.task.created_at)
    dated: dict[str, datetime] = {}
    found: list[str] = []
    patience = worker.clock.monotonic() + _PATIENCE_S
    for n, lease_id in enumerate(unknown):
        if worker.clock.monotonic() > patience:
            # there was no time to look these up: they count as unaccounted for, like a lease without an issue time
            found += unknown[n:]
            break
        in_vault = worker.leases.lookup(lease_id)
        if in_vault is not None and in_vault.issued_at is None:
            found.append(lease_id)
        elif in_vault is not None and in_vault.issued_at is not None and begun <= in_vault.issued_at <= until:
            dated[lease_id] = in_vault.issued_at
    found += _not_of_other_tasks(worker, record, dated)
    # a template check by an administrator makes a lease below the same path for a moment
    return sorted(set(found) - leases_under_check(worker)) if found else []


def _not_of_other_tasks(worker: WorkerContext, record: TaskRecord, made: Mapping[str, datetime]) -> list[str]:
    """Return the leases that no wrapped read of another task can have made.

    `made` has the issue time of each lease. A read belongs to the task of its token's accessor, whatever became of that
    task since.
    """
    if not made:
        return []
    by_path: dict[str, dict[str, datetime]] = {}
    for lease_id, at in made.items():
        by_path.setdefault(lease_id.rpartition("/")[0], {})[lease_id] = at
    settle = worker.settle_window
    lines = worker.ledger.uses_without_lease(sorted(by_path), since=min(made.values()) - settle)
    others = frozenset(line.actor for line in lines if line.kind is Kind.USED) - tokens_of(record)
    reads = wrapped_reads(others, AuditTrail(lines, (), frozenset()), leased=frozenset(by_path), settle=settle)
    # a read whose lease a later unwrap showed made that lease, which is known already
    hidden = [read for read in reads if not read.lease_id]
    return [
        lease_id
        for path, leases in by_path.items()
        for lease_id in unexplained(leases, [read for read in hidden if read.path == path])
    ]
