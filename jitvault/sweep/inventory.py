"""Take an inventory of Vault, the ledger and the audit stream.

In Vault, it covers jitvault's roles and the templates' paths. The order matters. First everything is listed, then the
stream is read up to a canary, then the ledger is read: so what is listed was intended and issued before the ledger is
read, and its row is there if it has one. The look-ups come last: a credential that the ledger calls dead and that Vault
still has then really exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from jitvault.audit.observation import Kind, is_token_lease, issued
from jitvault.audit.trail import Canary
from jitvault.context import WorkerContext
from jitvault.errors import VaultRefused
from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.model import GrantRow, LeaseRow, TaskRow
from jitvault.ledger.stream.model import CreationLine
from jitvault.lifecycle.decision.template_gate import leases_ended_by_checks
from jitvault.model.states import DEAD, OVER, State, Verdict
from jitvault.model.vault_access import CAPS
from jitvault.stream.reading import canary
from jitvault.sweep.compare import Issue, KnownState, Listed, Owned, PendingOperation

MOST_LOOKUPS = 10_000
"""How many look-ups one sweep makes; credentials beyond that are counted and not judged."""
RULES = ("orphan_token", "orphan_lease", "unlinked_token", "unlinked_lease")

TOKENS = "auth/token/create/"
# what was closed without proof was looked up then and was gone: Vault must not have it any more either
_OVER = DEAD | {Verdict.UNVERIFIABLE}
# what is over is asked for only where it had something lately: there may be millions of them
_JUDGED = (frozenset(State) - OVER) | {State.UNVERIFIED}


@dataclass(frozen=True, slots=True)
class Inventory:
    """What Vault lists, and what ledger and stream know.

    `unread` are paths that the worker may not list although something can be there. `skipped` is how many credentials
    were listed and not looked up.
    """

    canary: Canary
    paths: tuple[str, ...]
    unread: tuple[str, ...]
    ids: frozenset[str]
    listed: tuple[Listed, ...]
    skipped: int
    books: KnownState
    grants: tuple[GrantRow, ...]
    leases: tuple[LeaseRow, ...]
    tasks: Mapping[str, TaskRow]


def take_inventory(worker: WorkerContext) -> Inventory:
    """Take the inventory as of now.

    Raises AuditUntrusted: without the stream it is not known to whom a credential belongs.
    """
    wanted = _paths(worker)
    ids: dict[str, str] = {}
    refused = set()
    for path in wanted:
        try:
            found = worker.leases.list(path)
        except VaultRefused:
            refused.add(path)
            continue
        # a wrapping token below a template's path dies with its TTL; what is in it has a lease of its own
        ids |= {i: path for i in found if not i.endswith("/") and (path.startswith(TOKENS) or not is_token_lease(i))}
    newest = canary(worker)
    tasks = {task.task_id: task for task in worker.ledger.tasks(_JUDGED)}
    grants = worker.ledger.grants_since(newest.at - max(CAPS.values()) - MAX_SKEW)
    others = {grant.task_id for grant in grants} - tasks.keys()
    tasks |= {task.task_id: task for task in worker.ledger.known_tasks(others)}
    leases = worker.ledger.leases_not_dead()
    books = _books(worker, grants, ids, wanted)
    owned = {one.subject for one in books.owned}
    # unknown credentials come first, since there may be more of them than one sweep looks up
    order = sorted(ids, key=lambda i: (not ids[i].startswith(TOKENS), i in owned, i))
    return Inventory(
        canary=newest,
        paths=tuple(sorted(wanted.keys() - refused)),
        unread=tuple(sorted(path for path in refused if wanted[path])),
        ids=frozenset(ids),
        listed=_with_reasons(
            worker, [one for i in order[:MOST_LOOKUPS] if (one := _looked_up(worker, i, ids[i]))], newest.at
        ),
        skipped=max(0, len(ids) - MOST_LOOKUPS),
        books=books,
        grants=tuple(grants),
        leases=tuple(leases),
        tasks=tasks,
    )


def _paths(worker: WorkerContext) -> dict[str, bool]:
    """Return the paths of credentials, and whether each must be readable."""
    roles = worker.tokens.roles()
    templates = {t.resolve(choice) for t in worker.templates.values() for choice in t.all_choices()}
    wanted = worker.ledger.access_paths()
    return wanted | dict.fromkeys(templates, True) | {TOKENS + role: True for role in roles}


def _looked_up(worker: WorkerContext, lease_id: str, path: str) -> Listed | None:
    """Return the credential as Vault has it now.

    The result is None if it ended since the listing.
    """
    record = worker.leases.lookup(lease_id)
    if record is None:
        return None
    return Listed(
        lease_id=lease_id,
        kind="token" if path.startswith(TOKENS) else "lease",
        path=path,
        issued_at=record.issued_at,
        expires_at=record.expires_at,
        # whether a lease is renewable means nothing here
        renewable=record.renewable or not path.startswith(TOKENS),
        revoke_error=record.revoke_error,
    )


def _with_reasons(worker: WorkerContext, listed: Sequence[Listed], now: datetime) -> tuple[Listed, ...]:
    """Return them with Vault's reasons where Vault has given up on a lease.

    Some versions of Vault show the reason only in a list of such leases.
    """
    if all(one.revoke_error or one.expires_at is None or one.expires_at > now for one in listed):
        return tuple(listed)
    reasons = worker.leases.given_up()
    return tuple(replace(one, revoke_error=one.revoke_error or reasons.get(one.lease_id)) for one in listed)


def _books(
    worker: WorkerContext, grants: Sequence[GrantRow], ids: Mapping[str, str], wanted: Mapping[str, bool]
) -> KnownState:
    leases = worker.ledger.leases_among(sorted(ids))
    return KnownState(
        owned=[*(owned_token(grant) for grant in grants if grant.issued_at), *map(owned_lease, leases)],
        opened=[*_open_creates(worker, grants), *_wrapped_reads(worker, grants)],
        issues=[issue for made in worker.ledger.unclaimed_creations() if (issue := _issue(made)).path in wanted],
        told=worker.ledger.lines_of_findings(RULES),
        checked=leases_ended_by_checks(worker),
    )


def owned_token(grant: GrantRow) -> Owned:
    return Owned(
        subject=grant.accessor_hmac or grant.grant_id,
        kind="token",
        path=TOKENS + grant.role,
        task_id=grant.task_id,
        issued_at=grant.issued_at,
        dead=grant.verdict in _OVER,
        token_lease=grant.token_lease,
        wrap_ttl=timedelta(seconds=grant.wrap_ttl_s),
    )


def owned_lease(lease: LeaseRow) -> Owned:
    dead = lease.verdict in _OVER
    return Owned(lease.lease_id, "lease", lease.path, lease.task_id, lease.issued_at, dead=dead)


def _open_creates(worker: WorkerContext, grants: Sequence[GrantRow]) -> list[PendingOperation]:
    """Return the open issues of tasks, which may have made a token.

    The time comes from the lines of the operation where there are any; otherwise it is any time at which the request
    can have reached Vault and ended there.
    """
    found = []
    for grant in grants:
        record = worker.legible(grant.task_id) if grant.issued_at is None and not grant.settled else None
        if record is None:
            continue
        trail = worker.ledger.trail(record)
        lines = [
            o
            for o in trail.observations
            if o.kind is Kind.TOKEN_CREATED and o.op == grant.create_op and o.actor in trail.worker_accessors
        ]
        sent_at = next((op.sent_at for op in record.operations if op.op_id == grant.create_op), record.task.created_at)
        since, until = sent_at - MAX_SKEW, sent_at + worker.settle_window + MAX_SKEW
        if any(o.closing for o in lines):
            since, until = min(o.at for o in lines), max(o.at for o in lines if o.closing)
        found.append(PendingOperation("token", TOKENS + grant.role, grant.task_id, since, until, "the issue"))
    return found


def _wrapped_reads(worker: WorkerContext, grants: Sequence[GrantRow]) -> list[PendingOperation]:
    """Return tasks' wrapped reads that were not unwrapped yet.

    No line shows the lease of such a read.
    """
    tasks = {grant.accessor_hmac: grant.task_id for grant in grants}
    return [
        PendingOperation("lease", made.line.path, tasks[made.line.actor], made.since, made.line.at, "a wrapped read")
        for made in worker.ledger.wrapped_reads()
        if made.line.actor in tasks
    ]


def _issue(made: CreationLine) -> Issue:
    line, lease = made.line, issued(made.line)
    return Issue(
        kind="lease" if lease else "token",
        subject=line.subject,
        path=lease.path if lease else line.path,
        since=made.since,
        at=line.at,
        line=line.line,
        request_id=line.request_id,
        by=line.actor,
        remote=line.remote,
    )


def is_older(at: datetime | None, inventory: Inventory, settle: timedelta) -> bool:
    """Return whether `at` is a settle window ago or more, by Vault's clock."""
    return at is not None and inventory.canary.at - at >= settle
