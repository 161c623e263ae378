"""From the documents that people write to the tasks that somebody has to look after."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

_TASK = r"(?P<task>(?!.*\.\.)[a-z0-9][a-z0-9._-]{0,62})"
_ENTITY = r"(?P<entity>[^/]+)"
_REQUEST = re.compile(rf"requests/{_ENTITY}/{_TASK}/(?P<kind>[a-z]+)")
# of the task itself, or of an extension by its digest
_DECISION = re.compile(rf"decisions/{_ENTITY}/{_TASK}(/(?P<kind>[a-z]+)(/[0-9a-f]{{32}})?)?")
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
class Wanted:
    """What follows from one document: its task is looked after, or everything that a freeze covers.

    `ends` says that it may take access away, `grants` that it means nothing to a task that was granted. `author` is the
    entity under whose path it lies, `since` the newest claim of the task when it became known.
    """

    task_id: str = ""
    author: str | None = None
    ends: bool = False
    grants: bool = False
    freezes: bool = False
    since: int | None = None


def wanted(path: str) -> Wanted | None:
    """What the document at `path`, below the mount, asks for; None where no task can be meant."""
    if path.startswith("freezes/"):
        return Wanted(freezes=True)
    request = _REQUEST.fullmatch(path)
    found = request or _DECISION.fullmatch(path)
    if found is None:
        return None
    author = found["entity"] if request else None
    return Wanted(found["task"], author, ends=found["kind"] in _ENDS, grants=found["kind"] in _GRANTS)
