"""Survey what Vault and the audit files know of a ledger's tasks.

The ledger is lost, or older than they are. Nothing is changed. The order matters: first the published documents are
read, then the audit files up to now, then Vault's tokens are listed. So a task that was published as approved, and has
no line in files that cover everything since, was not granted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jitvault.audit.observation import Kind, Observation
from jitvault.context import WorkerContext
from jitvault.documents.paths import PUBLISHED, published_path
from jitvault.documents.published_task import PublishedRefusal, PublishedTask, read_published
from jitvault.documents.receipt import CLOSED, Receipt, verified
from jitvault.documents.signed import RECEIPT_KEY
from jitvault.errors import AuditUntrusted, InvalidInput, SecurityFinding
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.decision.evaluate import resolve
from jitvault.lifecycle.requests.reader import Submission, approver_decisions, submission
from jitvault.model.approval import ApproverDecision
from jitvault.model.event_bodies import Recovered, said
from jitvault.model.signed_document import SignedByPerson
from jitvault.model.states import BEFORE_GRANT
from jitvault.recovery.issued_tokens import IssuedToken, ListedToken, issued_tokens, with_leases, worker_sessions
from jitvault.recovery.outcomes import (
    LedgerState,
    RecoveryAction,
    RecoveryEvidence,
    parents_first,
    recovery_action,
    task_to_recover,
    with_all_below,
)
from jitvault.sweep.inventory import TOKENS


@dataclass(frozen=True, slots=True)
class AuditFiles:
    """What the available audit files show.

    `since` is the time from which every source has lines, None where there is none. `gaps` says what is missing in the
    files, and `unread` which could not be read and why.
    """

    made: tuple[IssuedToken, ...]
    sessions: Mapping[str, datetime]
    sources: tuple[str, ...]
    since: datetime | None
    lines: int
    gaps: tuple[str, ...]
    unread: tuple[str, ...]

    def cover(self, at: datetime) -> bool:
        """Return whether the files have every line since `at`."""
        return self.since is not None and self.since <= at and not self.gaps and not self.unread


@dataclass(frozen=True, slots=True)
class RecoveryCase:
    """One published task and what is done about it.

    `verified_by` says in words whose signatures confirm its revision. `receipt` is its receipt if the signature holds.
    `request` is the signed request for its revision, if it is there, and `approved` who approved it.
    `why` says what a person has to know.
    """

    published: PublishedTask
    action: RecoveryAction
    made: tuple[IssuedToken, ...]
    verified_by: tuple[str, ...]
    receipt: Receipt | None
    request: SignedByPerson | None
    approved: tuple[ApproverDecision, ...]
    why: str


@dataclass(frozen=True, slots=True)
class RecoverySurvey:
    """The whole survey.

    `unusable` are invalid published documents, each with why.
    """

    cases: tuple[RecoveryCase, ...]
    unusable: Mapping[str, str]
    files: AuditFiles


def survey(
    worker: WorkerContext, *, only: str | None = None, meanwhile: Callable[[], None] = lambda: None
) -> RecoverySurvey:
    """Read Vault and the audit files.

    They are read about every task, or about `only` one and all tasks below it. Where no audit file can be read, the
    survey rests on Vault alone. That may take minutes: `meanwhile` is called over and over.
    """
    published, unusable = _published(worker)
    if only is not None:
        published = with_all_below(only, published)
        unusable = {name: why for name, why in unusable.items() if name == only}
    files = _read_files(worker, meanwhile)
    made = with_leases(files.made, _alive(worker, {one.role for one in files.made}, meanwhile))
    of_task: dict[str, list[IssuedToken]] = {}
    for one in made:
        of_task.setdefault(one.task, []).append(one)
    cases = [_case(worker, one, files, of_task) for one in parents_first(published)]
    return RecoverySurvey(tuple(cases), unusable, files)


def _published(worker: WorkerContext) -> tuple[list[PublishedTask], dict[str, str]]:
    found, unusable = list[PublishedTask](), dict[str, str]()
    for task_id in worker.documents.names(PUBLISHED):
        stored = worker.documents.read(published_path(task_id))
        if stored is None:
            continue
        said = read_published(task_id, stored.document, stored.written_at)
        if isinstance(said, PublishedRefusal):
            # it never became a task
            continue
        try:
            found.append(task_to_recover(said, worker.installation))
        except InvalidInput as error:
            unusable[task_id] = str(error)
    return found, unusable


def _read_files(worker: WorkerContext, meanwhile: Callable[[], None]) -> AuditFiles:
    kept, gaps, unread = list[Observation](), list[str](), list[str]()
    sources, begins, lines = list[str](), list[datetime](), 0
    for source in worker.sources.present():
        sources.append(source.name)
        begun: datetime | None = None
        try:
            for batch in source.read(source.beginning()):
                meanwhile()
                lines += batch.lines
                gaps += [f"{source.name}: {gap}" for gap in batch.gaps]
                begun = begun or min((o.at for o in batch.observations), default=None)
                kept += _telling(batch.observations)
        except AuditUntrusted as error:
            unread.append(f"{source.name}: {error}")
        if begun is not None:
            begins.append(begun)
    since = max(begins, default=None)
    made, sessions = issued_tokens(kept), worker_sessions(kept)
    return AuditFiles(tuple(made), sessions, tuple(sources), since, lines, tuple(gaps), tuple(unread))


def _telling(lines: Iterable[Observation]) -> list[Observation]:
    """Return the token creations, and one canary per sender.

    No other lines matter. Of the many canaries only their senders are needed, so the last of each sender in a batch is
    kept.
    """
    canaries = {o.actor: o for o in lines if o.kind is Kind.CANARY and o.detail.get("worker")}
    return [*(o for o in lines if o.kind is Kind.TOKEN_CREATED), *canaries.values()]


def _alive(worker: WorkerContext, roles: Iterable[str], meanwhile: Callable[[], None]) -> list[ListedToken]:
    """Return the tokens that Vault has of jitvault's roles.

    Wrapping tokens, which cannot be renewed, are left out.
    """
    found = []
    for role in sorted({*worker.tokens.roles()} & {*roles}):
        for lease_id in worker.leases.list(TOKENS + role):
            meanwhile()
            record = worker.leases.lookup(lease_id)
            if record is not None and record.issued_at is not None and record.renewable:
                found.append(ListedToken(lease_id, role, record.issued_at, record.expires_at))
    return found


# -- one task -------------------------------------------------------------------------------------------------


def _case(
    worker: WorkerContext, published: PublishedTask, files: AuditFiles, of_task: Mapping[str, Sequence[IssuedToken]]
) -> RecoveryCase:
    record = worker.ledger.record(published.task_id)
    here = _here(record, published) if record else None
    if here is not None and (here.holds or here.told):
        return RecoveryCase(
            published, RecoveryAction.KEPT if here.holds else RecoveryAction.TOLD, (), (), None, None, (), ""
        )
    # to hash the task id is a request to Vault, so this is only done for a task that can have a token
    receipt = _receipt(worker, published)
    wanted = bool(of_task) and receipt is None
    made = tuple(of_task.get(worker.hasher.hash(published.task_id), ())) if wanted else ()
    requested, request, verified, approved = _verified(worker, published)
    evidence = RecoveryEvidence(
        requested=requested,
        tokens=bool(made),
        alive=any(one.lease or one.unclear for one in made),
        receipt=receipt is not None,
        covered=files.cover(published.written_at),
    )
    found = recovery_action(published, here, evidence)
    return RecoveryCase(
        published, found, made, verified, receipt, request, approved, _why(found, published, evidence, made)
    )


def _here(record: TaskRecord, published: PublishedTask) -> LedgerState:
    events = {event.seq: event.hash for event in record.events}
    told = any(body.from_ == published.chain_and_state for _, body in said(record.events, Recovered))
    return LedgerState(
        state=record.task.state,
        requester=record.task.requester,
        digest=record.task.digest,
        grant_id=record.grants[-1].grant_id if record.grants else None,
        holds=events.get(published.chain.seq) == published.chain.head,
        told=told,
    )


def _receipt(worker: WorkerContext, published: PublishedTask) -> Receipt | None:
    """Return the receipt of a closed task, if it is valid.

    Vault's key has to have signed it for this task.
    """
    if published.state not in CLOSED or published.receipt is None:
        return None
    return verified(
        published.receipt,
        worker.signer.public_keys(RECEIPT_KEY),
        task_id=published.task_id,
        digest=published.digest,
        installation=worker.installation,
        state=published.state,
    )


def _verified(
    worker: WorkerContext, published: PublishedTask
) -> tuple[bool, SignedByPerson | None, tuple[str, ...], tuple[ApproverDecision, ...]]:
    """Return what signatures say of a task.

    That is whether there is a signed request, its envelope if it resolves to the revision, who confirms the revision,
    and who approved. Who confirms the revision is said in words.
    """
    requested, submitted = signed_request(worker, published.task_id, published.requester)
    if not requested:
        return False, None, (), ()
    carried, approved = list[str](), list[ApproverDecision]()
    request: SignedByPerson | None = None
    try:
        if (
            submitted is not None
            and resolve(worker, submitted.requester, submitted.spec, number=published.revision).digest
            == published.digest
        ):
            carried.append("its signed request resolves to it")
            request = submitted.envelope
    except InvalidInput:
        pass
    for one in approver_decisions(worker, published.task_id, _groups(published)):
        if one.decision == "approve" and one.digest == published.digest and not one.void:
            carried.append(f"{one.name} signed it")
            approved.append(one)
    return True, request, tuple(carried), tuple(approved)


def signed_request(worker: WorkerContext, task_id: str, requester: str) -> tuple[bool, Submission | None]:
    """Return whether somebody signed a request, and the request if it holds."""
    try:
        found = submission(worker, task_id, requester)
    except InvalidInput:
        # it was signed by an entity that is disabled now, or has a spec that was valid at its time
        return True, None
    except SecurityFinding:
        return False, None
    return found is not None, found


def _groups(published: PublishedTask) -> list[str]:
    """Return the groups that had to approve, by what was published.

    They only decide which memberships are looked up.
    """
    return [needed.group for needed in published.decision.obligations.approvals]


def _why(
    found: RecoveryAction, published: PublishedTask, evidence: RecoveryEvidence, made: Sequence[IssuedToken]
) -> str:
    if found is RecoveryAction.LEFT and not evidence.requested:
        return "nobody signed a request for it"
    if found is RecoveryAction.LEFT:
        return f"it is {published.state} by what was published, without a receipt that Vault's key signed, and over"
    if found is RecoveryAction.CONTRADICTS:
        return f"Vault says that it is {published.state}; the ledger says more, and lacks that"
    if found is RecoveryAction.ENDING and published.state in BEFORE_GRANT and not made:
        return "whether it was granted no audit file says that is there"
    if found is RecoveryAction.ENDING and not made:
        return "no line shows its token: its end cannot be proven"
    if found is RecoveryAction.ENDING and not evidence.requested:
        return "its token was issued, and nobody's signed request for it is in Vault any more"
    if found is RecoveryAction.ENDING and any(one.unclear for one in made):
        return "it is unknown which token in Vault is its own: the token is revoked as untracked"
    return ""
