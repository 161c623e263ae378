"""Commands that show tasks: `status` and `list`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jitvault.cli import published as fallback
from jitvault.cli import session
from jitvault.cli.lookups.deleted_tasks import check_not_missing
from jitvault.cli.lookups.seen_freezes import SeenFreezes
from jitvault.cli.options import Task
from jitvault.cli.published import NEARLY
from jitvault.cli.views import status as overview
from jitvault.documents.published_task import PublishedRefusal, PublishedTask
from jitvault.errors import (
    JitvaultError,
    NotFound,
    SecurityFinding,
    UsageError,
    VaultRefused,
    VaultUnavailable,
    readable,
)
from jitvault.formats.did_you_mean import nearest
from jitvault.lifecycle.decision.unread import UnreadDocument, unread_documents
from jitvault.lifecycle.record.report import status_of
from jitvault.lifecycle.requests.freezes import recovery_as_freeze
from jitvault.model.revision import Revision
from jitvault.model.revision_content import RevisionContent
from jitvault.model.states import OVER, State
from jitvault.operations import DONE
from jitvault.policy.decision import Requirement
from jitvault.wiring import Wiring

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

_INCIDENT = (
    "Treat this as an incident. `jitvault findings list --task TASK`, where the ledger is, has its audit line; whoever "
    "has the worker's identity runs `jitvault findings close` once it was looked into."
)


def status(task: Task) -> None:
    """Show a task with its revision, decisions, grant, leases and timeline.

    Without a ledger the command shows what a worker last published in Vault, and how old that is.

    Example: jitvault status count-orders
    """
    wiring = session.open_session()
    if not fallback.has_ledger(wiring):
        _show_published(wiring, task)
        return
    ledger = session.ledger_to_read(wiring)
    with readable(task):
        record = ledger.record(task)
    if record is None:
        session.check_knows_tasks(wiring, ledger)
        check_not_missing(wiring, task)
        with suppress(VaultRefused, VaultUnavailable, UsageError):
            if isinstance(refusal := session.published(wiring, task), PublishedRefusal):
                raise fallback.unknown_task(wiring, task, refusal)
        not_admitted = fallback.request_not_admitted(wiring, task)
        if not_admitted is not None:
            raise not_admitted
        meant = nearest(task, (row.task_id for row in ledger.tasks()), likeness=NEARLY)
        raise NotFound(f"there is no task {task}{meant}")
    freeze = ledger.freeze()
    with readable(task):
        held_up = freeze or recovery_as_freeze(ledger)
        renewed_at = ledger.renewed_at(record.grants[-1], DONE) if record.grants else None
        shown = status_of(record, ledger.trail(record), held_up, ledger.children(task), renewed_at)
        revision = Revision.of(record.revision.body).check_form()
    more = {
        "freeze": _freeze(wiring, ledger, record.task.state, revision.content),
        "unread": _unread(wiring, task, record.task.state, revision.content),
        "missing": _missing(wiring, task, record.task.state),
        "published": None,
    }
    overview.print_status(revision, {**shown, **more}, wiring.clock.agreed())
    frozen = [f"everything is frozen: {freeze.reason}"] if freeze else []
    messages = [*frozen, *(finding["message"] for finding in shown["findings"] if not finding["closed"])]
    session.check_findings(task, messages, end_reason=None if frozen else shown["end_reason"], hint=_INCIDENT)


def _show_published(wiring: Wiring, task: str) -> None:
    """Print a task as a worker published it.

    Raises SecurityFinding where the document is not trusted.
    """
    session.known(wiring, task)
    document, found = fallback.published_proof(wiring, task)
    shown = fallback.with_source(wiring, document, found)
    shown["unread"] = _unread(wiring, task, document.state, document.full_revision.content)
    shown["freeze"] = _freeze(wiring, None, document.state, document.full_revision.content)
    overview.print_published(document, shown, wiring.clock.agreed())
    if found.problem:
        hint = "Ask who has the ledger: docs/operations/break-glass.md, A stolen worker identity."
        raise SecurityFinding(f"task {task}: {found.problem}", hint=hint)
    session.check_findings(task, document.findings, end_reason=document.end_reason, hint=_INCIDENT)


def _unread(wiring: Wiring, task: str, state: State, content: RevisionContent) -> list[UnreadDocument]:
    """Return what people signed about the task and no worker has read, as far as the caller may read it.

    `content` is that of the task's revision.
    """
    is_open = state in session.BEFORE | session.GRANTED
    if is_open and wiring.person_token:
        # a ledger can be shown without a usable identity, and while Vault does not answer
        with suppress(JitvaultError):
            return unread_documents(wiring.person, task, session.published(wiring, task), content.names)
    return []


def _freeze(wiring: Wiring, ledger: Ledger | None, state: State, content: RevisionContent) -> dict[str, Any] | None:
    """Return the operator's freeze that covers the task, as `list` shows it.

    `content` is that of the task's revision. None for a task that is over, and where the caller may not read freezes.
    """
    found = None if state in OVER else SeenFreezes(wiring, ledger).of(content)
    return found if found is not None and found["kind"] == "operator" else None


def _missing(wiring: Wiring, task: str, state: State) -> list[Requirement]:
    """Return whose approval a task waits for, as a worker published it.

    Nothing where Vault cannot be asked.
    """
    if state != "pending_approval":
        return []
    with suppress(JitvaultError):
        document = session.published(wiring, task)
        return document.missing if isinstance(document, PublishedTask) else []
    return []
