"""Hold what a task's tokens did against what they may do, and keep what must not have happened as findings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter

from jitvault.domain.evidence import Trail, done
from jitvault.domain.finding import MOST
from jitvault.domain.lifecycle import EndReason
from jitvault.domain.linking import aliases
from jitvault.domain.observation import Kind
from jitvault.domain.revision import Revision
from jitvault.domain.scope import Word
from jitvault.domain.trip import Bounds, Rule, Trip
from jitvault.domain.tripwire import of_task
from jitvault.errors import Denied, Frozen
from jitvault.ports.ledger import Ledger, TaskFile
from jitvault.ports.record import Freeze
from jitvault.services.context import Worker
from jitvault.services.freezes import freeze_covering

GO_ON = "`jitvault ledger recover` goes on with it, also after it was interrupted."


def being_rebuilt(since: datetime) -> str:
    """An open recovery in words."""
    return f"the ledger is being rebuilt since {since:%Y-%m-%d %H:%M:%S} UTC"


def rebuilding(ledger: Ledger) -> Freeze | None:
    """An open recovery as what keeps tasks from being granted; it ends nothing."""
    since = ledger.recovering()
    return Freeze(f"{being_rebuilt(since)}; until then nothing is granted", "", since) if since else None


def watch(worker: Worker, file: TaskFile) -> list[Trip]:
    """Every tripwire that the task's lines touched so far; those that are new are findings now."""
    if not file.grants:
        return []
    trail = worker.ledger.acts(file)
    trips = of_task(_bounds(worker, file, trail), trail.observations, aliases(trail.observations))
    for rule, same in groupby(sorted(trips, key=attrgetter("rule")), key=attrgetter("rule")):
        _keep(worker, file, rule, list(same))
    return trips


def _keep(worker: Worker, file: TaskFile, rule: Rule, trips: Sequence[Trip]) -> None:
    """Keep the first trips of a rule as findings, and how many more there are."""
    mine = [finding for finding in file.findings if finding["rule"] == rule.value]
    known = {finding["request_id"] or "" for finding in mine}
    first, others = trips[:MOST], trips[MOST:]
    for trip in (trip for trip in first if trip.request_id not in known):
        _find(worker, file, trip)
    if others and len(others) not in {finding["more"] for finding in mine}:
        _find(worker, file, others[0], more=len(others))


def _find(worker: Worker, file: TaskFile, trip: Trip, *, more: int = 0) -> None:
    task_id, line, request_id = file.task.task_id, trip.line, trip.request_id
    worker.ledger.finding(task_id, trip.rule, trip.message, worker.now(), line=line, request_id=request_id, more=more)


def freeze_of(worker: Worker, file: TaskFile) -> Word | None:
    """The oldest freeze of an operator's that covers the task and was not lifted."""
    return freeze_covering(worker, Revision.of(file.revision.body).content)


def check_not_frozen(worker: Worker, file: TaskFile) -> None:
    """Raise Frozen while everything is frozen, and Denied while an operator's freeze covers the task."""
    since = worker.ledger.recovering()
    if since is not None:
        raise Frozen(f"nothing is granted: {being_rebuilt(since)}", hint=GO_ON)
    freeze = worker.ledger.freeze()
    if freeze is not None:
        raise Frozen(f"everything is frozen since {freeze.at:%Y-%m-%d %H:%M:%S} UTC: {freeze.reason}")
    word = freeze_of(worker, file)
    if word is not None:
        raise Denied(
            f"{word.by} froze {word.scope} at {word.at:%Y-%m-%d %H:%M:%S} UTC: {word.reason}",
            hint="Nothing of it is granted until an operator runs `jitvault unfreeze` for it.",
        )


def _bounds(worker: Worker, file: TaskFile, trail: Trail) -> Bounds:
    revision = Revision.of(file.revision.body)
    tokens = frozenset(grant.accessor_hmac for grant in file.grants if grant.accessor_hmac)
    # of several attempts only the last one was ever delivered
    last = file.grants[-1].accessor_hmac
    created = [o.at for o in trail.observations if o.kind is Kind.TOKEN_CREATED and o.subject == last and done(o)]
    ends = [o for o in trail.observations if o.kind is Kind.TOKEN_REVOKED and o.subject == last and done(o)]
    end = min(ends, key=attrgetter("at"), default=None)
    return Bounds(
        tokens=tokens,
        leases=frozenset(lease.lease_id for lease in file.leases),
        networks=tuple(revision.content["cidrs"]),
        paths=frozenset(entry["path"] for entry in revision.access),
        # by Vault's clock: the token is not made before the window opens, whatever the clocks' difference
        opens_at=min([revision.window.not_before, *created]) if revision.window.not_before else None,
        ended_at=end.at if end else None,
        ended_in=end.place if end else None,
        told=file.task.end_reason is EndReason.COMPLETED,
        grace=worker.settle_window,
        lease_budget=sum(entry["lease_budget"] for entry in revision.access),
        denied_limit=worker.denied_limit,
        workers=trail.worker_accessors,
    )
