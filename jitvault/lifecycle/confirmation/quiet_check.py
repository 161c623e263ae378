"""Make check 7 of a task, and say when to look again where it is not quiet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from jitvault.context import WorkerContext
from jitvault.engines.interface import ProbeResult
from jitvault.lifecycle.confirmation.evidence import Evidence, tokens_of
from jitvault.lifecycle.confirmation.quiet import QUIET, is_quiet, settles_at
from jitvault.lifecycle.confirmation.rounds import (
    MOST_ROUNDS,
    is_going_round,
    listed_in_vain,
    reopened,
    why_reopened,
)
from jitvault.lifecycle.confirmation.wrapped_reads import unproven_read
from jitvault.lifecycle.revocation.cascade import unproven_below
from jitvault.lifecycle.revocation.results import next_try
from jitvault.model.proof_check import Check


@dataclass(frozen=True, slots=True)
class Quiet:
    """Check 7, and of a task that is not quiet when it is due again.

    `soon`: only a moment is missing, or the answer to a request that is in flight.
    """

    check: Check
    soon: bool
    due_at: datetime


def check_quiet(
    worker: WorkerContext, evidence: Evidence, *, leases_dead: bool, asked: Mapping[str, ProbeResult]
) -> Quiet:
    """Whether the task is quiet by the evidence that there is now.

    `asked` is what the targets said of its wrapped reads, by the digest of each read's line.
    """
    file, now = evidence.file, worker.now()
    check = is_quiet(
        tokens_of(file),
        evidence.trail,
        leases_dead=leases_dead,
        now_canary=evidence.newest.at,
        open_doubts=evidence.doubts(worker),
        settled=evidence.listing_covers_all(),
        asked=asked,
    )
    open_below = unproven_below(worker, file.task.task_id)
    later = next_try(file.task.ending_at or now, now)
    if not check.ok:
        soon = leases_dead and not open_below and _only_time_is_missing(worker, evidence, asked)
        return Quiet(check, soon, now + QUIET if soon else later)
    if open_below:
        why = f"not before what it handed on to {', '.join(open_below)} is proven dead"
        return Quiet(replace(check, ok=False, evidence=why), soon=False, due_at=later)
    if (until := _held_back_until(worker, evidence)) is not None:
        times = f"its end was called proven {reopened(file.events)} times and did not stay so"
        why = f"{times} ({why_reopened(file.events)}): not again before its settle window is over"
        return Quiet(replace(check, ok=False, evidence=why), soon=False, due_at=until)
    return Quiet(check, soon=True, due_at=now)


def _only_time_is_missing(worker: WorkerContext, evidence: Evidence, asked: Mapping[str, ProbeResult]) -> bool:
    """Whether a task whose credentials are all proven is quiet in a moment.

    Vault ends the leases of a revoked token within a moment, so a listing that left something over is made again a few
    times. What no listing shows stays as it is, and so does what a target says once nothing is listed any more.
    """
    open_ = evidence.doubts(worker)
    if open_.elsewhere or open_.unleased:
        return False
    if evidence.listing_covers_all() and unproven_read(open_.wrapped, asked):
        return False
    return not open_.why_list or evidence.listing_covers_all() or listed_in_vain(evidence.file.events) < MOST_ROUNDS


def _held_back_until(worker: WorkerContext, evidence: Evidence) -> datetime | None:
    """Return until when a task that goes round is not confirmed again.

    It is Vault's time of the end of its settle window: then it can be sealed.
    """
    if not is_going_round(evidence.file.events):
        return None
    settled = settles_at(tokens_of(evidence.file), evidence.trail, worker.settle_window)
    return settled if settled is not None and evidence.newest.at < settled else None
