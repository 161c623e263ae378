"""A ledger that was lost or is an older one, made anew from what Vault and the audit files say: what becomes of a task.

What a published document says is nobody's word but the worker's, and whoever is root in Vault can write it: it says
where to look, and never that something is proven.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from jitvault.documents.published_task import PublishedTask
from jitvault.model.states import BEFORE_GRANT, DELIVERED_STATES, ENDED, LIVE_STATES, OVER, State

_CLOSED = frozenset({State.SEALED, State.UNVERIFIED})


# -- what becomes of a task -----------------------------------------------------------------------------------


class RecoveryAction(StrEnum):
    """What is done about one published task.

    - `kept`: the ledger has it as Vault says;
    - `told`: an earlier run took it in and died before it told Vault so;
    - `anew`: it was never granted, and is taken in again from its signed request;
    - `goes_on`: the ledger is behind, and what it has of the task still holds;
    - `ending`: it may hold access, and is ended and proven;
    - `closed`: it was sealed or closed without proof, and Vault's own key says so;
    - `cancelled`: it was cancelled before it was granted;
    - `left`: nothing of it is taken in;
    - `contradicts`: the ledger and Vault cannot both be right.
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
    """What the ledger has of a task. `holds`: it has the published event; `told`: it says that it goes on from it."""

    state: State
    requester: str
    digest: str
    grant_id: str | None
    holds: bool
    told: bool


@dataclass(frozen=True, slots=True)
class RecoveryEvidence:
    """What there is besides the published document.

    `requested`: a signed request of its requester is there; `tokens`: the stream shows that it got any; `alive`: Vault
    has one of them; `receipt`: one signed by Vault's key is there; `covered`: the files that there are hold
    everything since the document was published.
    """

    requested: bool
    tokens: bool
    alive: bool
    receipt: bool
    covered: bool


def fate(said: PublishedTask, here: LedgerState | None, evidence: RecoveryEvidence) -> RecoveryAction:
    """What becomes of a task. Nothing that was granted is before its grant again, and nothing closed is opened."""
    if here is not None and here.holds:
        return RecoveryAction.KEPT
    if here is not None and here.told:
        return RecoveryAction.TOLD
    if here is not None and (here.requester != said.requester or _contradict(here.state, said.state)):
        return RecoveryAction.CONTRADICTS
    if not evidence.requested:
        # nobody asked for it: whoever can write there made it up
        return RecoveryAction.LEFT
    if said.state in _CLOSED and evidence.receipt:
        return RecoveryAction.CLOSED
    if here is not None and here.state in _CLOSED | {State.CANCELLED}:
        return RecoveryAction.GOES_ON
    if said.state is State.CANCELLED and not evidence.tokens:
        return RecoveryAction.CANCELLED
    if _never_granted(said, evidence):
        return RecoveryAction.ANEW if here is None else RecoveryAction.GOES_ON
    if here is not None and _is_the_same_grant(said, here):
        return RecoveryAction.GOES_ON
    if here is None and said.state in _CLOSED and not evidence.alive:
        return RecoveryAction.LEFT
    return RecoveryAction.ENDING


def _never_granted(said: PublishedTask, evidence: RecoveryEvidence) -> bool:
    """What is granted was published as approved before; whether it was granted then only the stream says."""
    return said.state in BEFORE_GRANT and not evidence.tokens and (said.state is not State.APPROVED or evidence.covered)


def _is_the_same_grant(said: PublishedTask, here: LedgerState) -> bool:
    same = (said.digest, said.grant_id) == (here.digest, here.grant_id)
    return said.state in DELIVERED_STATES and here.state in DELIVERED_STATES and said.grant_id is not None and same


def _rank(state: State) -> int:
    if state in _CLOSED:
        return 3
    if state in ENDED:
        return 2
    return 1 if state in LIVE_STATES else 0


def _contradict(here: State, there: State) -> bool:
    """Whether the ledger is further than Vault says, though it lacks what Vault says."""
    if here in OVER - BEFORE_GRANT:
        return here is not there
    if there is State.CANCELLED:
        # only what was never granted can be cancelled
        return here not in BEFORE_GRANT
    return _rank(here) > _rank(there)


def in_order(said: Collection[PublishedTask]) -> list[PublishedTask]:
    """Each after the one that handed its access on to it."""
    by_id, found = {one.task_id: one for one in said}, dict[str, PublishedTask]()

    def put(one: PublishedTask, below: frozenset[str]) -> None:
        if one.parent in by_id and one.parent not in below and one.parent not in found:
            put(by_id[one.parent], below | {one.task_id})
        found.setdefault(one.task_id, one)

    for one in sorted(said, key=lambda each: each.task_id):
        put(one, frozenset({one.task_id}))
    return list(found.values())
