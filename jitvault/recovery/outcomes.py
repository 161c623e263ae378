"""Rules of a ledger recovery.

They say what is done about each published task, by what Vault and the audit files say.

Only the worker signs for what a published document says, and whoever is root in Vault can write it. So the document
says where to look, and never that something is proven.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from jitvault.documents.published_task import IllegibleDocument, PublishedTask
from jitvault.errors import CorruptRecord, InvalidInput
from jitvault.model.states import BEFORE_GRANT, DELIVERED_STATES, ENDED, LIVE_STATES, OVER, State

_CLOSED = frozenset({State.SEALED, State.UNVERIFIED})


_GRANT_ID = re.compile(r"[0-9a-f]{32}")


def task_to_recover(said: PublishedTask | IllegibleDocument, installation: str) -> PublishedTask:
    """Return the published task with requester, agent and parent.

    These are taken from its revision. A grant id that is none is left out. Raises InvalidInput for a document that this
    installation's worker did not write.
    """
    if said.installation != installation:
        raise InvalidInput("it belongs to another installation")
    if isinstance(said, IllegibleDocument):
        raise InvalidInput("it is no document of the worker's (it cannot be read)")
    revision = said.full_revision
    content = revision.content
    try:
        is_whole = revision.spec.id == said.task_id
    except CorruptRecord:
        is_whole = False
    own = (content.installation, content.task, content.revision) == (installation, said.task_id, said.revision)
    if not is_whole or not own or said.digest != revision.digest or said.revision < 1:
        raise InvalidInput("it is no document of the worker's (it contradicts itself)")
    return msgspec.structs.replace(
        said,
        requester=content.requester.entity,
        agent=content.agent.entity,
        parent=revision.spec.spec.parent,
        grant_id=said.grant_id if _GRANT_ID.fullmatch(said.grant_id or "") else None,
    )


# -- what becomes of a task -----------------------------------------------------------------------------------


class RecoveryAction(StrEnum):
    """What is done about one published task.

    - `kept`: nothing, the ledger has the task as Vault says;
    - `told`: publish it; an earlier run imported it and died before it published that;
    - `anew`: admit it again from its signed request, since it was never granted;
    - `goes_on`: go on with it; the ledger is behind, and what it has of the task still holds;
    - `ending`: revoke and confirm it, since it may have access;
    - `closed`: import it as closed; it was sealed or closed without proof, and Vault's key signed that;
    - `cancelled`: import it as cancelled before its grant;
    - `left`: nothing, the task is not imported;
    - `contradicts`: nothing, the ledger and Vault cannot both be right.
    """

    KEPT = "kept"
    TOLD = "told"
    ANEW = "anew"
    GOES_ON = "goes_on"
    ENDING = "ending"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    LEFT = "left"
    CONTRADICTS = "contradicts"


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What the ledger has of a task.

    `holds` says that its chain has the published event, and `told` that its chain says it was imported from it.
    """

    state: State
    requester: str
    digest: str
    grant_id: str | None
    holds: bool
    told: bool


@dataclass(frozen=True, slots=True)
class RecoveryEvidence:
    """What is known of a task besides its published document.

    - `requested`: there is a signed request by its requester;
    - `tokens`: the audit stream shows that tokens were issued for it;
    - `alive`: Vault has one of these tokens;
    - `receipt`: there is a receipt signed by Vault's key;
    - `covered`: the audit files have every line since the document was published.
    """

    requested: bool
    tokens: bool
    alive: bool
    receipt: bool
    covered: bool


def recovery_action(published: PublishedTask, here: LedgerState | None, evidence: RecoveryEvidence) -> RecoveryAction:
    """Return what to do about a task.

    A task that was granted never counts as not granted again, and a closed task is never opened.
    """
    if here is not None and here.holds:
        return RecoveryAction.KEPT
    if here is not None and here.told:
        return RecoveryAction.TOLD
    if here is not None and (here.requester != published.requester or _contradict(here.state, published.state)):
        return RecoveryAction.CONTRADICTS
    if not evidence.requested and not evidence.tokens:
        # someone who can write to Vault made the document up; who has a token may have removed the request
        return RecoveryAction.LEFT
    if published.state in _CLOSED and evidence.receipt:
        return RecoveryAction.CLOSED
    if here is not None and here.state in _CLOSED | {State.CANCELLED}:
        return RecoveryAction.GOES_ON
    if published.state is State.CANCELLED and not evidence.tokens:
        return RecoveryAction.CANCELLED
    if _never_granted(published, evidence):
        return RecoveryAction.ANEW if here is None else RecoveryAction.GOES_ON
    if here is not None and _is_the_same_grant(published, here):
        return RecoveryAction.GOES_ON
    if here is None and published.state in _CLOSED and not evidence.alive:
        return RecoveryAction.LEFT
    return RecoveryAction.ENDING


def _never_granted(published: PublishedTask, evidence: RecoveryEvidence) -> bool:
    """Return whether a task was certainly never granted.

    A task is published as approved before its grant; whether it was granted after that, only the stream says.
    """
    if published.state not in BEFORE_GRANT or evidence.tokens:
        return False
    return published.state is not State.APPROVED or evidence.covered


def _is_the_same_grant(published: PublishedTask, here: LedgerState) -> bool:
    """Return whether ledger and Vault speak of one grant that has access."""
    if published.state not in DELIVERED_STATES or here.state not in DELIVERED_STATES:
        return False
    same = (published.digest, published.grant_id) == (here.digest, here.grant_id)
    return published.grant_id is not None and same


def _rank(state: State) -> int:
    if state in _CLOSED:
        return 3
    if state in ENDED:
        return 2
    return 1 if state in LIVE_STATES else 0


def _contradict(here: State, there: State) -> bool:
    """Return whether the ledger is ahead of Vault, but lacks what Vault says."""
    if here in OVER - BEFORE_GRANT:
        return here is not there
    if there is State.CANCELLED:
        # only what was never granted can be cancelled
        return here not in BEFORE_GRANT
    return _rank(here) > _rank(there)


def parents_first(published: Collection[PublishedTask]) -> list[PublishedTask]:
    """Return the tasks so that each comes after its parent."""
    by_id, found = {one.task_id: one for one in published}, dict[str, PublishedTask]()

    def put(one: PublishedTask, below: frozenset[str]) -> None:
        if one.parent in by_id and one.parent not in below and one.parent not in found:
            put(by_id[one.parent], below | {one.task_id})
        found.setdefault(one.task_id, one)

    for one in sorted(published, key=lambda each: each.task_id):
        put(one, frozenset({one.task_id}))
    return list(found.values())


def with_all_below(task_id: str, published: Collection[PublishedTask]) -> list[PublishedTask]:
    """Return a task and all tasks below it, each after its parent."""
    found = dict[str, PublishedTask]()
    for one in parents_first(published):
        if one.task_id == task_id or one.parent in found:
            found[one.task_id] = one
    return list(found.values())
