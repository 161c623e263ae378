"""Make check 7 of a task from its evidence.

A task that is not quiet gets the time at which it is due again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.lifecycle.confirmation.evidence import Evidence, tokens_of
from jitvault.lifecycle.confirmation.quiet_rules import QUIET, is_quiet, settles_at
from jitvault.lifecycle.confirmation.wrapped_reads import unproven_read
from jitvault.lifecycle.record.reopenings import (
    MOST_ROUNDS,
    is_going_round,
    times_reopened,
    unsettled_listings,
    why_reopened,
)
from jitvault.lifecycle.revocation.cascade import unproven_below
from jitvault.lifecycle.revocation.results import next_try
from jitvault.model.evidence import MOST_TEXT, Lack, Missing
from jitvault.model.proof_check import QUIET_N, Check


@dataclass(frozen=True, slots=True)
class Quiet:
    """Check 7 of a task, and when a task that is not quiet is due again.

    `soon` says that only a moment is missing, or the answer to a request in flight.
    """

    check: Check
    soon: bool
    due_at: datetime


def check_quiet(
    worker: WorkerContext, evidence: Evidence, *, leases_dead: bool, target_answers: Mapping[str, Check]
) -> Quiet:
    """Make check 7 by the evidence.

    `target_answers` is what the targets said of the task's wrapped reads, by the digest of each read's line.
    """
    record = evidence.record
    now = worker.now()
    check = is_quiet(
        tokens_of(record),
        evidence.trail,
        leases_dead=leases_dead,
        now_canary=evidence.newest.at,
        open_questions=evidence.open_questions(worker),
        settled=evidence.listing_covers_all(),
        target_answers=target_answers,
    )
    open_below = unproven_below(worker, record.task.task_id)
    later = next_try(record.task.ending_at or now, now)
    if not check.ok:
        soon = leases_dead and not open_below and _only_time_is_missing(worker, evidence, target_answers)
        return Quiet(check, soon, now + QUIET if soon else later)
    if open_below:
        why = Missing(lack=Lack.OPEN_BELOW, about=", ".join(open_below)[:MOST_TEXT])
        return Quiet(Check(QUIET_N, ok=False, evidence=why), soon=False, due_at=later)
    until = _held_back_until(worker, evidence)
    if until is not None:
        times = times_reopened(record.events)
        last = why_reopened(record.events)
        why = Missing(lack=Lack.GOING_ROUND, count=times, about=last[:MOST_TEXT])
        return Quiet(Check(QUIET_N, ok=False, evidence=why), soon=False, due_at=until)
    return Quiet(check, soon=True, due_at=now)


def _only_time_is_missing(worker: WorkerContext, evidence: Evidence, target_answers: Mapping[str, Check]) -> bool:
    """Return whether a task with proven credentials is quiet in a moment.

    All credentials of the task are proven dead. Vault ends the leases of a revoked token within a moment, so a listing
    that left a lease unaccounted for is repeated a few times. Time does not change what no listing shows, nor what a
    target says once nothing is listed any more.
    """
    questions = evidence.open_questions(worker)
    if questions.elsewhere or questions.unleased:
        return False
    if evidence.listing_covers_all():
        return not unproven_read(questions.wrapped, target_answers)
    return not questions.why_list or unsettled_listings(evidence.record.events) < MOST_ROUNDS


def _held_back_until(worker: WorkerContext, evidence: Evidence) -> datetime | None:
    """Return until when a task that keeps being reopened is not confirmed.

    That is the end of its settle window by Vault's time, when it can be sealed at once. None where nothing holds it
    back.
    """
    if not is_going_round(evidence.record.events):
        return None
    settled = settles_at(tokens_of(evidence.record), evidence.trail, worker.settle_window)
    return settled if settled is not None and evidence.newest.at < settled else None
