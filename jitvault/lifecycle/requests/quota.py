"""Who writes more than a worker takes in is told so, and so is whoever looks whether all is well."""

from __future__ import annotations

from jitvault.context import WorkerContext, new_id
from jitvault.errors import JitvaultError
from jitvault.vault.interface import Documents

NOTICE = "_over-quota"
"""No task can have this name."""


def tell_over_quota(worker: WorkerContext, author: str, waiting: int, per_minute: int) -> None:
    """Say in the ledger, and to the author, that so many documents of theirs wait; 0: that none does any more."""
    worker.ledger.keep_over_quota(author, waiting, worker.now())
    if waiting:
        notice = {"waiting": waiting, "per_minute": per_minute, "at": worker.now().isoformat()}
        worker.documents.deliver(notice_path(author), notice, op=new_id())


def notice_path(author: str) -> str:
    """Where an author finds what they were told; it vanishes by itself."""
    return f"inbox/{author}/{NOTICE}"


def over_quota_of(documents: Documents, author: str) -> str | None:
    """What an author was told lately, in words; None for nothing."""
    try:
        notice = documents.get(notice_path(author)) or {}
        waiting, per_minute = int(notice["waiting"]), int(notice["per_minute"])
    except (JitvaultError, KeyError, TypeError, ValueError):
        return None
    return f"{waiting} or more of your documents wait: the worker looks at {per_minute} of one author in a minute"
