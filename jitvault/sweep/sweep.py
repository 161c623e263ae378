"""Compare Vault with the ledger and the audit stream.

The comparison goes in both directions. The steps: take an inventory, compare, record what was found. With `fix`, also
revoke the untracked tokens of jitvault's roles with the leases that the stream says are theirs, prove that, and advance
the tasks whose access is gone. Other untracked credentials are only listed: others may have leases of their own below a
template's path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from jitvault.context import WorkerContext
from jitvault.errors import AuditUntrusted, JitvaultError
from jitvault.ledger.model import FindingRow, OperationRow, UntrackedCredentialRow
from jitvault.ledger.stream.model import Freeze
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.record.history import forced_of
from jitvault.model.states import OVER, State, Verdict
from jitvault.sweep.compare import Class, Classification, compare
from jitvault.sweep.find_missing import find_missing
from jitvault.sweep.inventory import Inventory, take_inventory
from jitvault.sweep.missing import MissingCause, MissingCredential
from jitvault.sweep.revoke_untracked import look_up, prove_untracked, revoke_untracked

PROVEN = frozenset({Verdict.AUDIT_CONFIRMED, Verdict.EXPIRED})
# Vault ends the leases of a token that was revoked within a moment (docs/vault-facts.md, "Revocation")
_QUEUE_S, _QUEUE_LOOKS, _QUEUE_MOST = 0.3, 5, 100
# for one task: with an act that is under way then, within the claim's 30 s
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Closed:
    """A task that was closed without proof, by whom (a name) and why.

    `unproven` are the ids of its leases, and the accessor HMACs of its tokens, that were not proven dead.
    """

    task_id: str
    by: str
    reason: str
    unproven: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep found, and what became of it.

    `orphans` are the untracked credentials in Vault, and those whose end is not proven or was proven by this sweep.
    `ghosts` are credentials that the ledger believes to be alive and Vault does not have. `advanced` has the state of
    each task that was advanced, or why that failed. `failure` is why the stream could not be read to its end.
    """

    inventory: Inventory
    fix: bool
    orphans: tuple[UntrackedCredentialRow, ...]
    why: Mapping[str, Classification]
    ghosts: tuple[MissingCredential, ...]
    unlinked: tuple[Classification, ...]
    irrevocable: tuple[Classification, ...]
    waiting: tuple[Classification, ...]
    closed: tuple[Closed, ...]
    advanced: Mapping[str, str]
    failure: AuditUntrusted | None
    freeze: Freeze | None

    @property
    def remaining(self) -> list[UntrackedCredentialRow]:
        """Return the untracked credentials that Vault still has."""
        return [o for o in self.orphans if o.verdict not in PROVEN and o.verdict is not Verdict.GONE]

    @property
    def unproven(self) -> list[UntrackedCredentialRow]:
        """Return the untracked credentials that are gone by Vault's word alone."""
        return [o for o in self.orphans if o.verdict is Verdict.GONE]

    @property
    def unexplained(self) -> list[MissingCredential]:
        return [ghost for ghost in self.ghosts if ghost.how is MissingCause.UNEXPLAINED]


def sweep(worker: WorkerContext, *, fix: bool = False) -> SweepResult:
    """Sweep once.

    Raises AuditUntrusted, before anything is done, where the stream cannot be trusted.
    """
    if not fix:
        return _look(worker, None)
    with worker.ledger.claim_sweep() as claim:
        return _fix(worker, claim, _look(worker, claim))


def _look(worker: WorkerContext, claim: int | None) -> SweepResult:
    inventory = take_inventory(worker)
    if claim is not None:
        worker.ledger.extend_sweep(claim)
    found = compare(inventory.listed, inventory.books, now=inventory.canary.at, settle=worker.settle_window)
    ghosts, more_waiting = find_missing(worker, inventory)
    by_class: dict[Class, list[Classification]] = {of: [one for one in found if one.of is of] for of in Class}
    known = {row.lease_id: row for row in worker.ledger.untracked_credentials()}
    rows = [_row(worker, one, known) for one in by_class[Class.ORPHAN]]
    left = _left_over(inventory, known, {row.lease_id for row in rows})
    # what was made before a recovery of the ledger, and is over, cannot be explained any more
    recovered = worker.ledger.recovered_at()
    unlinked = [one for one in by_class[Class.UNLINKED] if not (recovered and one.issue and one.issue.at < recovered)]
    new = [one for one in by_class[Class.ORPHAN] if one.listed and one.listed.lease_id not in known]
    findings = [*map(_finding, new), *map(_finding, unlinked), *_ghost_findings(ghosts)]
    worker.ledger.keep(orphans=[*rows, *left], findings=findings, at=worker.now(), claim=claim)
    return SweepResult(
        inventory=inventory,
        fix=False,
        orphans=(*rows, *(row for row in left if row.revoking)),
        why={one.listed.lease_id: one for one in by_class[Class.ORPHAN] if one.listed},
        ghosts=tuple(ghosts),
        unlinked=tuple(unlinked),
        irrevocable=tuple(by_class[Class.IRREVOCABLE]),
        waiting=(*by_class[Class.WAITING], *more_waiting),
        closed=tuple(_closed(worker, inventory)),
        advanced={},
        failure=None,
        freeze=worker.ledger.freeze(),
    )


def _closed(worker: WorkerContext, inventory: Inventory) -> Iterator[Closed]:
    """Yield the tasks that were closed without proof.

    They stay visible, but no task ends their credentials: what Vault has of them is an untracked credential.
    """
    for task in inventory.tasks.values():
        record = worker.legible(task.task_id) if task.state is State.UNVERIFIED else None
        forced = forced_of(record) if record else None
        if record and forced:
            tokens = [g.accessor_hmac or g.grant_id for g in record.grants if g.verdict is Verdict.UNVERIFIABLE]
            leases = [lease.lease_id for lease in record.leases if lease.verdict is Verdict.UNVERIFIABLE]
            yield Closed(task.task_id, forced.name, forced.reason, (*tokens, *leases))


def _row(
    worker: WorkerContext, one: Classification, known: Mapping[str, UntrackedCredentialRow]
) -> UntrackedCredentialRow:
    """Return the ledger's row of an untracked credential.

    One that was gone and has reappeared starts again from the beginning.
    """
    listed = one.listed
    if listed is None:
        raise ValueError("an orphan is something that Vault has")
    before = known.get(listed.lease_id)
    issue = one.issue or before
    under_way = before is not None and before.revoking and before.verdict not in PROVEN
    verdict = before.verdict if before and under_way and before.verdict is not Verdict.GONE else Verdict.LIVE
    return UntrackedCredentialRow(
        lease_id=listed.lease_id,
        kind=one.kind,
        path=one.path,
        task_id=one.task_id,
        issued_at=listed.issued_at,
        expires_at=listed.expires_at,
        line=issue.line if issue else "",
        request_id=issue.request_id if issue else "",
        first_seen_at=before.first_seen_at if before else worker.now(),
        verdict=Verdict.IRREVOCABLE if listed.revoke_error else verdict,
        revoking=under_way,
        checks=before.checks if before and under_way else (),
    )


def _left_over(
    inventory: Inventory, known: Mapping[str, UntrackedCredentialRow], found: Iterable[str]
) -> list[UntrackedCredentialRow]:
    """Return earlier untracked credentials that Vault does not list any more.

    Those whose end is known already are left out.
    """
    there = inventory.ids | set(found)
    return [
        replace(row, verdict=Verdict.GONE)
        for row in known.values()
        if row.lease_id not in there
        and row.path in inventory.paths
        and row.verdict not in PROVEN
        and (row.revoking or row.verdict is not Verdict.GONE)
    ]


def _finding(one: Classification) -> FindingRow:
    issue, kind = one.issue, one.kind
    made = f"issued {one.issued_at:%Y-%m-%d %H:%M:%S} UTC" if one.issued_at else "issued nobody knows when"
    by = f" from {issue.remote}" if issue and issue.remote else ""
    what = one.listed.lease_id if one.listed else one.path
    return FindingRow(
        one.task_id,
        f"{one.of.value}_{kind}",
        f"A {kind} that no task explains: {what}, {made}{by}. {one.why.capitalize()}.",
        issue.line if issue else "",
        issue.request_id if issue else "",
    )


def _ghost_findings(ghosts: Sequence[MissingCredential]) -> list[FindingRow]:
    return [
        FindingRow(
            ghost.owned.task_id,
            "ghost",
            f"A {ghost.owned.kind} of the task is gone and nobody ended it: {ghost.owned.subject}. {ghost.why}.",
            ghost.line,
        )
        for ghost in ghosts
        if ghost.how is MissingCause.UNEXPLAINED
    ]


def _fix(worker: WorkerContext, claim: int, found: SweepResult) -> SweepResult:
    doomed = _doomed(found)
    ended = revoke_untracked(worker, claim, doomed)
    failure: AuditUntrusted | None = None
    try:
        proven = prove_untracked(worker, claim, [row for row in ended if row.revoking])
    except AuditUntrusted as error:
        # report what was done; the next sweep proves it
        proven, failure = [], error
    after = {row.lease_id: row for row in (*ended, *proven)}
    advanced = _advance(worker, claim, found)
    others = [row for row in found.orphans if row.lease_id not in after]
    after |= {row.lease_id: row for row in _looked_up_again(worker, claim, others, patient=bool(ended or advanced))}
    return replace(
        found,
        fix=True,
        orphans=tuple(after.get(row.lease_id, row) for row in found.orphans),
        advanced=advanced,
        failure=failure,
        freeze=worker.ledger.freeze(),
    )


def _doomed(found: SweepResult) -> list[UntrackedCredentialRow]:
    """Return the untracked credentials to revoke.

    Tokens come first, then the leases of these tokens.

    The stream says which leases a token got. A credential that its task calls dead is left to the task, as long as the
    task is not over.
    """
    tokens = [row for row in found.orphans if row.kind == "token" and not _is_its_tasks(found, row)]
    issues = {lease_id: one.issue for lease_id, one in found.why.items() if one.issue}
    accessors = {issues[row.lease_id].subject for row in tokens if row.lease_id in issues} - {""}
    leases = [row for row in found.orphans if row.kind == "lease"]
    theirs = [row for row in leases if row.lease_id in issues and issues[row.lease_id].by in accessors]
    # the leases of a task that is over by now were its token's as well
    theirs += [row for row in leases if row not in theirs and row.task_id and not _is_its_tasks(found, row)]
    # finish what an earlier sweep started, even where the token is gone by now
    return [*tokens, *theirs, *(row for row in leases if row.revoking and row not in theirs)]


def _is_its_tasks(found: SweepResult, row: UntrackedCredentialRow) -> bool:
    task = found.inventory.tasks.get(row.task_id or "")
    return task is not None and task.state not in OVER


def _looked_up_again(
    worker: WorkerContext, claim: int, orphans: Sequence[UntrackedCredentialRow], *, patient: bool
) -> list[UntrackedCredentialRow]:
    """Look up the other untracked credentials; return those that are gone now.

    They ended with a token that was just revoked, or someone else revoked them.
    """
    left, gone = list(orphans), list[UntrackedCredentialRow]()
    operations: list[OperationRow] = []
    for n in range(_QUEUE_LOOKS if patient and len(left) <= _QUEUE_MOST else 1):
        if n and left:
            worker.clock.sleep(_QUEUE_S)
        looked = [(row, *look_up(worker, row.lease_id)) for row in left]
        operations += [op for _, op, _ in looked]
        gone += [replace(row, verdict=Verdict.GONE) for row, _, record in looked if record is None]
        left = [row for row, _, record in looked if record is not None]
    worker.ledger.keep(orphans=gone, operations=operations, at=worker.now(), claim=claim)
    return gone


def _advance(worker: WorkerContext, claim: int, found: SweepResult) -> dict[str, str]:
    """Advance each task whose access is gone or has reappeared.

    Returns the state of each task, or why it failed.
    """
    wanted = {ghost.owned.task_id for ghost in found.ghosts}
    wanted |= {row.task_id for row in found.orphans if row.task_id}
    late = _late(found.inventory)
    told: dict[str, str] = {}
    for task_id in sorted(wanted | late):
        task = found.inventory.tasks.get(task_id)
        if task_id not in late and (task is None or task.state in OVER):
            continue
        worker.ledger.extend_sweep(claim)
        try:
            deadline = worker.clock.monotonic() + _PATIENCE_S
            told[task_id] = advance(worker, task_id, deadline=deadline).task.state.value
        except JitvaultError as error:
            told[task_id] = f"failed: {error}"
    return told


def _late(inventory: Inventory) -> set[str]:
    """Return the tasks that are over and got a lease afterwards.

    No worker looks at them by itself.
    """
    tasks = {lease.task_id: inventory.tasks.get(lease.task_id) for lease in inventory.leases}
    return {task_id for task_id, task in tasks.items() if task is None or task.state in OVER}
