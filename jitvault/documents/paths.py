"""From the documents that people write to the tasks that somebody has to look after."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto

from jitvault.model.states import BEFORE_GRANT, LIVE_STATES, OVER, State

_TASK = r"(?P<task>(?!.*\.\.)[a-z0-9][a-z0-9._-]{0,62})"
_ENTITY = r"(?P<entity>[^/]+)"
_REQUEST = re.compile(rf"requests/{_ENTITY}/{_TASK}/(?P<kind>[a-z]+)")
# of the task itself, or of an extension by its digest
_DECISION = re.compile(rf"decisions/{_ENTITY}/{_TASK}(/(?P<kind>[a-z]+)(/[0-9a-f]{{32}})?)?")
_FREEZE = re.compile(rf"freezes/{_ENTITY}/(?P<scope>all|[0-9a-f]{{32}})")
_LONGEST_ENTITY = 64
_ENDS = frozenset({"end", "withdraw"})
_GRANTS = frozenset({"submit", "grant"})

REQUEST_LIFE = timedelta(days=7)
"""So long after it was written, by Vault's clock, a request can begin something. What was published of a task stays for
at least as long, so that a request which is taken in was never granted before, whatever the ledger remembers.
"""


def is_stale(written_at: datetime, now: datetime) -> bool:
    """Whether a request is too old to begin anything."""
    return now - written_at >= REQUEST_LIFE


@dataclass(frozen=True, slots=True)
class WorkItem:
    """What follows from one document: its task is looked after, or everything that a freeze covers.

    `ends` says that it may take access away, `grants` that it means nothing to a task that was granted, `submits` that
    it alone can begin a task. `author` is the entity under whose path it lies, `requests` whether that is a request,
    `since` the newest claim of the task when it became known.
    """

    task_id: str = ""
    author: str = ""
    requests: bool = False
    submits: bool = False
    ends: bool = False
    grants: bool = False
    freezes: bool = False
    since: int | None = None


def submission_path(author: str, task_id: str) -> str:
    """Where an author's request for a task lies, below the mount."""
    return f"requests/{author}/{task_id}/submit"


class Kept(StrEnum):
    """The kinds of documents that the ledger has an index of: those by which access ends."""

    END = "end"
    FREEZE = "freeze"


def kept_path(path: str) -> tuple[Kept, str, str] | None:
    """The kind, the author and the task or scope of the document at `path`; None where the index has none of it.

    Under another name than its scope's a freeze counts for nothing.
    """
    if found := _FREEZE.fullmatch(path):
        kind, about = Kept.FREEZE, found["scope"]
    elif (found := _REQUEST.fullmatch(path)) and found["kind"] == "end":
        kind, about = Kept.END, found["task"]
    else:
        return None
    return (kind, found["entity"], about) if len(found["entity"]) <= _LONGEST_ENTITY else None


def path_of(kind: Kept, author: str, about: str) -> str:
    """Where a document of the index lies, below the mount."""
    return f"freezes/{author}/{about}" if kind is Kept.FREEZE else f"requests/{author}/{about}/end"


def author_of(path: str) -> str:
    """The entity under whose path a document lies."""
    return path.split("/")[1]


def work_item_for(path: str) -> WorkItem | None:
    """What the document at `path`, below the mount, asks for; None where no task can be meant."""
    if path.startswith("freezes/"):
        return WorkItem(freezes=True)
    request = _REQUEST.fullmatch(path)
    found = request or _DECISION.fullmatch(path)
    if found is None:
        return None
    kind = found["kind"]
    return WorkItem(
        found["task"],
        found["entity"],
        requests=request is not None,
        submits=kind == "submit",
        ends=kind in _ENDS,
        grants=kind in _GRANTS,
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """Of a task that the ledger knows: where it stands, who may end it, and by whose approval it holds access.

    `done` is the newest claim of it, where everything was done that was wanted until then; else None.
    """

    state: State
    may_end: Collection[str]
    approved_by: Collection[str]
    done: int | None = None


class Heed(Enum):
    """What follows from a document at once.

    REVOKE: an operator ends what may hold access. END: somebody with a part in the task does. LOOK: the task is looked
    at in its turn. NOTHING: whatever it says, no task changes by it.
    """

    REVOKE = auto()
    END = auto()
    LOOK = auto()
    NOTHING = auto()


def heed(asks: WorkItem, task: Parts | None, *, is_operator: bool) -> Heed:
    """How urgent a document is, given what the ledger knows of its task.

    Where there is no task, only a request can begin something. No other document is missed by that: a task is entered
    in the ledger first, and all that was written about it is read afterwards.
    """
    if task is None:
        # that the ledger lost a task is told when an operator wants it ended
        return Heed.LOOK if asks.submits or (asks.ends and is_operator) else Heed.NOTHING
    if task.done is not None and asks.since is not None and task.done > asks.since:
        # whoever had that claim has read the document: after a start the lines of the last minute come once more
        return Heed.NOTHING
    has_part = asks.author in (task.may_end if asks.requests else task.approved_by)
    if asks.ends and is_operator and task.state in LIVE_STATES | {State.ENDING}:
        return Heed.REVOKE
    if asks.ends and has_part and task.state in LIVE_STATES:
        return Heed.END
    # of what is over for good, those with a part in it are told again how it ended
    return Heed.LOOK if has_part or task.state not in OVER - BEFORE_GRANT else Heed.NOTHING
