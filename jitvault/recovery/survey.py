"""What Vault and the audit files still know, held against a ledger that was lost or is an older one. Nothing is done.

The order counts: first what was published is read, then the files up to now, then Vault's tokens are listed. So what
was published as approved and has no line in the files that hold everything since was not granted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jitvault.audit.observation import Kind, Observation
from jitvault.context import WorkerContext
from jitvault.documents.dsse import RECEIPT_KEY
from jitvault.documents.published_task import PublishedTask, published_task_of
from jitvault.documents.receipt import CLOSED, verified
from jitvault.errors import AuditUntrusted, InvalidInput, SecurityFinding
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.decision.evaluate import resolve
from jitvault.lifecycle.requests.reader import submission, votes
from jitvault.model.kinds import EventKind
from jitvault.model.states import BEFORE_GRANT
from jitvault.model.vault_access import ROLE_PREFIX
from jitvault.recovery.issued_tokens import Alive, IssuedToken, made_of, sessions_of, with_leases
from jitvault.recovery.outcomes import LedgerState, RecoveryAction, RecoveryEvidence, fate, in_order
from jitvault.sweep.inventory import TOKENS


@dataclass(frozen=True, slots=True)
class Files:
    """What the audit files show that are there. `since` is the first line that matters in the youngest beginning of a
    source, None where there is none; `gaps` says what is missing in them, `unread` which could not be read and why.
    """

    made: tuple[IssuedToken, ...]
    sessions: Mapping[str, datetime]
    sources: tuple[str, ...]
    since: datetime | None
    lines: int
    gaps: tuple[str, ...]
    unread: tuple[str, ...]

    def cover(self, at: datetime) -> bool:
        """Whether everything since `at` is in them."""
        return self.since is not None and self.since <= at and not self.gaps and not self.unread


@dataclass(frozen=True, slots=True)
class RecoveryCase:
    """One published task and what becomes of it. `verified_by` is whose signatures carry its revision, in words;
    `receipt` its receipt, once its signature held. `why` says what a person has to know.
    """

    said: PublishedTask
    fate: RecoveryAction
    made: tuple[IssuedToken, ...]
    verified_by: tuple[str, ...]
    receipt: Mapping[str, object] | None
    approved_by: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class RecoverySurvey:
    """Everything as it is now. `unusable` are published documents that are none, with why."""

    cases: tuple[RecoveryCase, ...]
    unusable: Mapping[str, str]
    files: Files


def take_stock(worker: WorkerContext) -> RecoverySurvey:
    """Read it all. Where no audit file can be read, what Vault says is all there is."""
    said, unusable = _published(worker)
    files = _read_files(worker)
    made = with_leases(files.made, _alive(worker, {one.role for one in files.made}))
    of_task: dict[str, list[IssuedToken]] = {}
    for one in made:
        of_task.setdefault(one.task, []).append(one)
    cases = [_case(worker, one, files, of_task) for one in in_order(said)]
    return RecoverySurvey(tuple(cases), unusable, files)


def _published(worker: WorkerContext) -> tuple[list[PublishedTask], dict[str, str]]:
    found, unusable = list[PublishedTask](), dict[str, str]()
    for task_id in worker.documents.names("tasks/"):
        stored = worker.documents.read(f"tasks/{task_id}")
        # what was refused was never a task
        if stored is None or stored.document.get("state") == "refused":
            continue
        try:
            found.append(published_task_of(task_id, stored.document, worker.installation, stored.written_at))
        except InvalidInput as error:
            unusable[task_id] = str(error)
    return found, unusable


def _read_files(worker: WorkerContext) -> Files:
    kept, gaps, unread = list[Observation](), list[str](), list[str]()
    sources, begins, lines = list[str](), list[datetime](), 0
    for source in worker.sources.present():
        sources.append(source.name)
        begun: datetime | None = None
        try:
            for batch in source.read(source.beginning()):
                lines += batch.lines
                gaps += [f"{source.name}: {gap}" for gap in batch.gaps]
                begun = begun or min((o.at for o in batch.observations), default=None)
                kept += _telling(batch.observations)
        except AuditUntrusted as error:
            unread.append(f"{source.name}: {error}")
        if begun is not None:
            begins.append(begun)
    since = max(begins, default=None)
    made, sessions = made_of(kept), sessions_of(kept)
    return Files(tuple(made), sessions, tuple(sources), since, lines, tuple(gaps), tuple(unread))


def _telling(lines: Iterable[Observation]) -> list[Observation]:
    """Of canaries, of which there are many, nothing but who sent them is wanted: the last of each batch will do."""
    canaries = {o.actor: o for o in lines if o.kind is Kind.CANARY and o.detail.get("worker")}
    return [*(o for o in lines if o.kind is Kind.TOKEN_CREATED), *canaries.values()]


def _alive(worker: WorkerContext, roles: Iterable[str]) -> list[Alive]:
    """The tokens that Vault has of our roles, without the wrappings: those cannot be renewed."""
    known = [role for role in worker.tokens.roles() if role.startswith(ROLE_PREFIX)]
    found = []
    for role in sorted({*known} & {*roles}):
        for lease_id in worker.leases.list(TOKENS + role):
            record = worker.leases.lookup(lease_id)
            if record is not None and record.issued_at is not None and record.renewable:
                found.append(Alive(lease_id, role, record.issued_at, record.expires_at))
    return found


# -- one task -------------------------------------------------------------------------------------------------


def _case(
    worker: WorkerContext, said: PublishedTask, files: Files, of_task: Mapping[str, Sequence[IssuedToken]]
) -> RecoveryCase:
    file = worker.ledger.file(said.task_id)
    here = _here(file, said) if file else None
    if here is not None and (here.holds or here.told):
        return RecoveryCase(said, RecoveryAction.KEPT if here.holds else RecoveryAction.TOLD, (), (), None, (), "")
    # each is a request to Vault: only what can have had a token is looked for among those that have one
    receipt = _receipt(worker, said)
    wanted = bool(of_task) and receipt is None
    made = tuple(of_task.get(worker.hasher.hash(said.task_id), ())) if wanted else ()
    requested, verified, approved = _verified(worker, said)
    evidence = RecoveryEvidence(
        requested=requested,
        tokens=bool(made),
        alive=any(one.lease or one.unclear for one in made),
        receipt=receipt is not None,
        covered=files.cover(said.written_at),
    )
    found = fate(said, here, evidence)
    return RecoveryCase(said, found, made, verified, receipt, approved, _why(found, said, evidence, made))


def _here(file: TaskRecord, said: PublishedTask) -> LedgerState:
    events = {event.seq: event.hash for event in file.events}
    told = any(e.body["from"] == said.chain for e in file.events if e.kind == EventKind.RECOVERED)
    return LedgerState(
        state=file.task.state,
        requester=file.task.requester,
        digest=file.task.digest,
        grant_id=file.grants[-1].grant_id if file.grants else None,
        holds=events.get(said.seq) == said.head,
        told=told,
    )


def _receipt(worker: WorkerContext, said: PublishedTask) -> Mapping[str, object] | None:
    """The receipt of a task that is closed by what was published, if Vault's own key signed it for this one."""
    if said.state not in CLOSED or said.receipt is None:
        return None
    return verified(
        said.receipt,
        worker.signer.public_keys(RECEIPT_KEY),
        task_id=said.task_id,
        digest=said.digest,
        installation=worker.installation,
        state=said.state,
    )


def _verified(worker: WorkerContext, said: PublishedTask) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
    """Whether its requester signed a request, whose signatures carry its revision in words, and who approved it."""
    try:
        submitted = submission(worker, said.task_id, said.requester)
    except InvalidInput:
        # signed by somebody who is disabled now, or of a spec that was valid then
        submitted, requested = None, True
    except SecurityFinding:
        return False, (), ()
    else:
        requested = submitted is not None
    if not requested:
        return False, (), ()
    carried, approved = list[str](), list[str]()
    try:
        if submitted is not None and resolve(worker, submitted, number=said.revision).digest == said.digest:
            carried.append("its signed request resolves to it")
    except InvalidInput:
        pass
    for vote in votes(worker, said.task_id, _groups(said)):
        if vote.decision == "approve" and vote.digest == said.digest and not vote.void:
            carried.append(f"{vote.name} signed it")
            approved.append(vote.entity_id)
    return True, tuple(carried), tuple(approved)


def _groups(said: PublishedTask) -> list[str]:
    """The groups that had to approve, by what was published; it only says whose groups are asked for."""
    needed = (said.decision.get("obligations") or {}).get("approvals") or ()
    return [str(one["group"]) for one in needed if isinstance(one, Mapping) and "group" in one]


def _why(found: RecoveryAction, said: PublishedTask, evidence: RecoveryEvidence, made: Sequence[IssuedToken]) -> str:
    if found is RecoveryAction.LEFT and not evidence.requested:
        return "nobody signed a request for it"
    if found is RecoveryAction.LEFT:
        return f"it is {said.state} by what was published, without a receipt that Vault's key signed, and over"
    if found is RecoveryAction.CONTRADICTS:
        return f"Vault says that it is {said.state}; the ledger says more, and lacks that"
    if found is RecoveryAction.ENDING and said.state in BEFORE_GRANT and not made:
        return "whether it was granted no audit file says that is there"
    if found is RecoveryAction.ENDING and not made:
        return "no line shows its token: its end cannot be proven"
    if found is RecoveryAction.ENDING and any(one.unclear for one in made):
        return "which of the tokens in Vault is its own cannot be told: it is ended as nobody's"
    return ""
