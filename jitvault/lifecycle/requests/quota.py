"""Notify authors who write more documents than a worker takes in.

The doctor is notified of them as well.
"""

from __future__ import annotations

from jitvault.context import WorkerContext
from jitvault.documents.paths import INBOX
from jitvault.errors import JitvaultError
from jitvault.formats.rfc3339 import rfc3339
from jitvault.model.kinds import OperationKind
from jitvault.operations import announce
from jitvault.vault.interface import Documents

NOTICE = "_over-quota"
"""The notice's name in the inbox; no task can have this name."""


def record_over_quota(worker: WorkerContext, author: str, waiting: int, per_minute: int) -> None:
    """Record how many documents of an author wait, and notify the author.

    The number is kept in the ledger. `waiting` 0 says that none waits any more; then there is no notice.
    """
    worker.ledger.keep_over_quota(author, waiting, worker.now())
    if waiting:
        notice = {"waiting": waiting, "per_minute": per_minute, "at": rfc3339(worker.now())}
        op = announce(worker, OperationKind.DELIVER, notice_path(author))
        worker.documents.put(notice_path(author), notice, op=op)


def notice_path(author: str) -> str:
    """Return the path of an author's notice.

    Vault deletes the notice after a time.
    """
    return f"{INBOX}{author}/{NOTICE}"


def over_quota_notice(documents: Documents, author: str) -> str | None:
    """Return the author's current notice in words, if there is one."""
    try:
        notice = documents.get(notice_path(author)) or {}
        waiting, per_minute = int(notice["waiting"]), int(notice["per_minute"])
    except (JitvaultError, KeyError, TypeError, ValueError):
        return None
    return f"{waiting} or more of your documents wait: the worker looks at {per_minute} of one author in a minute"
