"""The paths of jitvault's documents in Vault, and where Vault has them.

Also what a document at each path implies.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING

from jitvault.model.states import BEFORE_GRANT, LIVE_STATES, LIVING, OVER, State

if TYPE_CHECKING:
    from jitvault.formats.time_window import Window

MOUNT = "jitvault"
INBOX_MOUNT = "jitvault-inbox"
"""What lies below `inbox/`, without that word: Vault deletes it after ten minutes, by the mount's configuration."""
INSTALLATION = "installation"
"""The administrator's, by `init`: the installation's id, never changed once made."""
NETWORKS = "networks"
"""The administrator's, by `init`: the named networks that tasks can be bound to, and the installation's id."""
PUBLISHED = "tasks/"
"""The worker's: `tasks/<task>`, what is published about a task."""
REQUESTS = "requests/"
"""Each entity's own: `requests/<entity>/<task>/submit`, `grant`, `extend` or `end`."""
DECISIONS = "decisions/"
"""Each approver's own: `decisions/<entity>/<task>`, below it `withdraw` and the decisions on extensions."""
FREEZES = "freezes/"
"""Each operator's own: `freezes/<entity>/<scope>`."""
APPROVERS = "approvers/"
"""The administrator's: `approvers/<entity>`, the registration of an approver's key."""
CHECKS = "checks/"
"""The administrator's: `checks/<template>`, the result of a template's check."""
TEMPLATES = "templates"
"""The worker's: the access templates in use, for agents."""
INBOX = "inbox/"
"""The worker's: `inbox/<entity>/<task>`, a wrapping token on its way to that entity, which removes it."""
OF_WORKER = (PUBLISHED, INBOX, TEMPLATES)
"""What the worker alone writes: how the paths of these documents begin."""

_TASK = r"(?P<task>(?!.*\.\.)[a-z0-9][a-z0-9._-]{0,62})"
_ENTITY = r"(?P<entity>[^/]+)"
_REQUEST = re.compile(rf"{REQUESTS}{_ENTITY}/{_TASK}/(?P<kind>[a-z]+)")
# Decisions lie below the task, or below the digest of an extension. A withdrawal has one path: the lines of what ends
# access are always stored.
_DECISION = re.compile(rf"{DECISIONS}{_ENTITY}/{_TASK}(/((?P<kind>withdraw)|extend/[0-9a-f]{{32}}))?")
_FREEZE = re.compile(rf"{FREEZES}{_ENTITY}/(?P<scope>all|[0-9a-f]{{32}})")
_LONGEST_ENTITY = 64
_ENDS = frozenset({"end", "withdraw"})
_GRANTS = frozenset({"submit", "grant"})

REQUEST_LIFE = timedelta(days=7)
"""How long a request can begin something, by Vault's time of the document, or from when its window opens.

A task's published document is kept at least as long, so that a request which is admitted was never granted before,
whatever the ledger remembers.
"""

APPROVAL_LIFE = timedelta(minutes=30)
"""How long after Vault wrote an approval it can be used."""


def is_stale(written_at: datetime, now: datetime) -> bool:
    """Return whether a request is too old to begin anything."""
    return now - written_at >= REQUEST_LIFE


def stands_until(window: Window, written_at: datetime) -> datetime:
    """Return when a request that was not granted until then lapses."""
    if window.until is not None:
        return window.until
    return max(written_at, window.not_before or written_at) + REQUEST_LIFE


def look_at(window: Window, written_at: datetime, now: datetime) -> datetime:
    """Return when to look next at a request that is not granted.

    That is when it may be granted, or when it no longer may be.
    """
    opens = window.not_before
    return opens if opens is not None and now < opens else stands_until(window, written_at)


@dataclass(frozen=True, slots=True)
class WorkItem:
    """The work that follows from one document.

    The work is to look after the document's task, or after everything that a freeze covers. `ends`: the document
    may end access. `grants`: it means nothing to a task that was granted already. `submits`: it alone can begin a
    task. `author` is the entity under whose path the document lies, and `requests` says whether that path is a
    request. `since` is the newest claim of the task at the moment when the document became known. `shown` are the
    places of the documents that it stands for, where lines have shown each of them.
    """

    task_id: str = ""
    author: str = ""
    requests: bool = False
    submits: bool = False
    ends: bool = False
    grants: bool = False
    freezes: bool = False
    since: int | None = None
    shown: tuple[str, ...] = ()


ANYONE = "+"
"""The author in a path that stands for that of every author."""


def vault_path(part: str, path: str) -> str:
    """Return where Vault has a part of a document.

    `part` is `data`, `metadata` or another one of an engine of KV version 2. `path` may be the beginning of one.
    """
    if path.startswith(INBOX):
        return f"{INBOX_MOUNT}/{part}/{path.removeprefix(INBOX)}"
    return f"{MOUNT}/{part}/{path}"


def document_at(path: str) -> str:
    """Return the path of the document that Vault has at `path`, the inverse of `vault_path`."""
    below = path.split("/", 2)[2]
    if path.startswith(f"{INBOX_MOUNT}/"):
        return INBOX + below
    return below


def published_path(task_id: str) -> str:
    """Return the path of what the worker publishes about a task."""
    return f"{PUBLISHED}{task_id}"


def inbox_path(entity: str, task_id: str) -> str:
    """Return the path of what the worker delivers to an entity."""
    return f"{INBOX}{entity}/{task_id}"


def request_path(author: str, task_id: str, kind: str) -> str:
    """Return the path of an entity's request.

    `kind` is `submit`, `grant`, `extend` or `end`.
    """
    return f"{REQUESTS}{author}/{task_id}/{kind}"


def decision_path(author: str, task_id: str, below: str = "") -> str:
    """Return the path of an approver's decision on a task.

    `below` is `/withdraw`, or names the extension that is decided on; it begins with a slash.
    """
    return f"{DECISIONS}{author}/{task_id}{below}"


def check_path(template: str) -> str:
    """Return the path of the result of a template's check."""
    return f"{CHECKS}{template}"


def freeze_path(author: str, scope: str) -> str:
    """Return the path of an operator's freeze. `scope` is the scope's key."""
    return f"{FREEZES}{author}/{scope}"


class Kept(StrEnum):
    """The kinds of documents that the ledger indexes: those that end access."""

    END = "end"
    FREEZE = "freeze"


def indexed_path(path: str) -> tuple[Kept, str, str] | None:
    """Return kind, author and task or scope of an indexed document's path.

    None means that the index has no document at that path. A freeze whose name is not that of its scope counts for
    nothing.
    """
    freeze = _FREEZE.fullmatch(path)
    request = _REQUEST.fullmatch(path)
    if freeze:
        found = (Kept.FREEZE, freeze["entity"], freeze["scope"])
    elif request and request["kind"] == "end":
        found = (Kept.END, request["entity"], request["task"])
    else:
        return None
    return found if len(found[1]) <= _LONGEST_ENTITY else None


def path_of(kind: Kept, author: str, about: str) -> str:
    """Return the path of an indexed document, below the mount."""
    return freeze_path(author, about) if kind is Kept.FREEZE else request_path(author, about, "end")


def author_of(path: str) -> str:
    """Return the entity under whose path a document lies."""
    return path.split("/")[1]


def work_item_for(path: str) -> WorkItem | None:
    """Return the work that follows from a document at `path`, or None.

    `path` is below the mount. None means that no task can be meant.
    """
    if path.startswith(FREEZES):
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
class TaskParties:
    """What the ledger knows of a task: its state and who has a part in it.

    `may_end` may end the task, and `approved_by` are those by whose approval it holds access. `done` is the newest
    claim of the task if everything that was pending until then was done, else None.
    """

    state: State
    may_end: Collection[str]
    approved_by: Collection[str]
    done: int | None = None


class DocumentEffect(Enum):
    """What follows from a document at once.

    REVOKE: an operator ends a task that may hold access. END: a party to the task ends it. LOOK: the task is looked
    at in its turn. NOTHING: no task changes by this document, whatever it says.
    """

    REVOKE = auto()
    END = auto()
    LOOK = auto()
    NOTHING = auto()


def effect_of(asks: WorkItem, task: TaskParties | None, *, is_operator: bool, is_lost: bool = False) -> DocumentEffect:
    """Return what follows from a document, given its task in the ledger.

    Without a task, only a request can begin something. No other document is missed by that: a task is entered in
    the ledger first, and everything written about it is read afterwards. Two ends are looked at: that of a task which
    the ledger may have lost (`is_lost`), and an operator's, who is told that the ledger does not know the task.
    """
    if task is None:
        is_looked_at = asks.submits or (asks.ends and (is_operator or is_lost))
        return DocumentEffect.LOOK if is_looked_at else DocumentEffect.NOTHING
    if task.done is not None and asks.since is not None and task.done > asks.since:
        # The worker with that claim has read the document: after a start, the lines of the last minute are read again.
        return DocumentEffect.NOTHING
    has_part = asks.author in (task.may_end if asks.requests else task.approved_by)
    if asks.ends and is_operator and task.state in LIVING:
        return DocumentEffect.REVOKE
    if asks.ends and has_part and task.state in LIVE_STATES:
        return DocumentEffect.END
    # The parties of a task that is final are told again how it ended.
    return DocumentEffect.LOOK if has_part or task.state not in OVER - BEFORE_GRANT else DocumentEffect.NOTHING
