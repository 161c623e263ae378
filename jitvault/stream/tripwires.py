"""Check a task's lines against its limits.

Each tripwire that was touched becomes a finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter

from jitvault.audit.observation import Kind
from jitvault.audit.trail import AuditTrail, derived_tokens, done
from jitvault.audit.tripwires.task_lines import is_refused_lease_act
from jitvault.audit.tripwires.task_rules import of_task
from jitvault.audit.tripwires.trip import Rule, TaskLimits, TripwireHit
from jitvault.context import WorkerContext
from jitvault.errors import JitvaultError
from jitvault.ledger.model import TaskRecord
from jitvault.model.finding import MOST
from jitvault.model.revision import Revision
from jitvault.model.states import EndReason

_MOST_HASHED = 50
"""Of how many leases of a task the HMAC is asked for: each costs Vault a request, and templates allow a few."""


def watch(worker: WorkerContext, record: TaskRecord, trail: AuditTrail | None = None) -> list[TripwireHit]:
    """Return every tripwire that the task's lines touched so far.

    New ones are recorded as findings. `trail` has the task's lines, where the caller has read them.
    """
    if not record.grants:
        return []
    trail = trail or worker.ledger.acts(record)
    trips = of_task(_limits(worker, record, trail), trail.observations, derived_tokens(trail.observations))
    for rule, hits in groupby(sorted(trips, key=attrgetter("rule")), key=attrgetter("rule")):
        _keep(worker, record, rule, list(hits))
    return trips


def _keep(worker: WorkerContext, record: TaskRecord, rule: Rule, hits: Sequence[TripwireHit]) -> None:
    """Record the first hits of a rule as findings, and count the others."""
    of_rule = [finding for finding in record.findings if finding["rule"] == rule.value]
    known = {finding["request_id"] or "" for finding in of_rule}
    others = hits[MOST:]
    for hit in hits[:MOST]:
        if hit.request_id not in known:
            _find(worker, record, hit)
    if others and len(others) not in {finding["more"] for finding in of_rule}:
        _find(worker, record, others[0], more=len(others))


def _find(worker: WorkerContext, record: TaskRecord, hit: TripwireHit, *, more: int = 0) -> None:
    """Record one hit as a finding."""
    worker.ledger.finding(
        record.task.task_id,
        hit.rule,
        hit.message,
        worker.now(),
        line=hit.line,
        request_id=hit.request_id,
        more=more,
    )


def _limits(worker: WorkerContext, record: TaskRecord, trail: AuditTrail) -> TaskLimits:
    """Return what the task's tokens may do."""
    revision = Revision.of(record.revision.body)
    tokens = frozenset(grant.accessor_hmac for grant in record.grants if grant.accessor_hmac)
    # of several attempts only the last one was delivered
    last = record.grants[-1].accessor_hmac
    created = [o.at for o in trail.observations if o.kind is Kind.TOKEN_CREATED and o.subject == last and done(o)]
    ends = [o for o in trail.observations if o.kind is Kind.TOKEN_REVOKED and o.subject == last and done(o)]
    end = min(ends, key=attrgetter("at"), default=None)
    return TaskLimits(
        tokens=tokens,
        leases=frozenset(lease.lease_id for lease in record.leases),
        networks=tuple(revision.content.cidrs),
        paths=frozenset(entry.path for entry in revision.access),
        # By Vault's clock: the token was not created before the window opened, whatever the difference of the clocks.
        opens_at=min([revision.window.not_before, *created]) if revision.window.not_before else None,
        ended_at=end.at if end else None,
        ended_in=end.place if end else None,
        agent_knew=record.task.end_reason is EndReason.COMPLETED,
        grace=worker.settle_window,
        lease_budget=revision.lease_budget,
        denied_limit=worker.denied_limit,
        workers=trail.worker_accessors,
        hashed_leases=_hashed_leases(worker, record, trail),
    )


def _hashed_leases(worker: WorkerContext, record: TaskRecord, trail: AuditTrail) -> frozenset[str]:
    """Return the HMACs of the task's leases.

    None is made unless a denied request may name one of them. A request that names a lease in its body shows the
    lease's HMAC alone. Where Vault makes no HMAC, the request counts as one about a lease of somebody else.
    """
    if not any(is_refused_lease_act(o) and o.subject.startswith("hmac-") for o in trail.observations):
        return frozenset()
    with suppress(JitvaultError):
        return frozenset(worker.hasher.remembered(lease.lease_id) for lease in record.leases[:_MOST_HASHED])
    return frozenset()
