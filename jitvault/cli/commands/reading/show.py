"""Commands that show tasks: `status` and `list`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jitvault.cli import published as fallback
from jitvault.cli import session
from jitvault.cli.lookups.deleted_tasks import check_not_missing
from jitvault.cli.lookups.seen_freezes import SeenFreezes
from jitvault.cli.options import Json, Task
from jitvault.cli.published import NEARLY
from jitvault.cli.views import status as overview
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import (
    AuditUntrusted,
    Frozen,
    JitvaultError,
    NotConfirmed,
    NotFound,
    SecurityFinding,
    VaultRefused,
    VaultUnavailable,
    WaitTimedOut,
    readable,
)
from jitvault.formats.did_you_mean import nearest
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.record.report import status_of
from jitvault.lifecycle.requests.end_requests import pending_end_requests
from jitvault.lifecycle.requests.freezes import recovery_as_freeze
from jitvault.model.revision import Revision
from jitvault.model.revision_content import RevisionContent
from jitvault.model.states import OVER, State
from jitvault.policy.decision import Requirement
from jitvault.wiring import Wiring

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

# how long `status` does what is due for the task before it shows the task
_PATIENCE_S = 10.0
_INCIDENT = (
    "Treat this as an incident. `jitvault findings list --task TASK`, where the ledger is, has its audit line; whoever "
    "has the worker's identity runs `jitvault findings close` once it was looked into."
)


def status(task: Task, json_: Json = False) -> None:
    """Show a task with its revision, decisions, grant, leases and timeline.

    With the worker's identity the command first does what is due for the task, for some seconds at most. Without a
    ledger it shows what a worker last published in Vault, and how old that is.

    Example: jitvault status count-orders
    """
    wiring = session.open_session()
    failure: JitvaultError | None = None
    if wiring.has_worker:
        try:
            file = advance(wiring.worker, task, hint=None, deadline=wiring.clock.monotonic() + _PATIENCE_S)
        except (AuditUntrusted, Frozen, NotConfirmed, VaultRefused, VaultUnavailable, WaitTimedOut) as error:
            # the known facts are needed most when something is wrong
            known = wiring.ledger.file(task)
            if known is None:
                raise
            file = known
            failure = error
        except NotFound as error:
            check_not_missing(wiring, task)
            raise NotFound(f"{error}{fallback.meant_task(wiring, task)}") from None
    elif fallback.has_ledger(wiring):
        ledger = session.ledger_to_read(wiring)
        with readable(task):
            known_file = ledger.file(task)
        if known_file is None:
            session.check_knows_tasks(wiring, ledger)
            check_not_missing(wiring, task)
            raise NotFound(f"there is no task {task}{_meant(ledger, task)}")
        file = known_file
    else:
        _show_published(wiring, task, as_json=json_)
        return
    freeze = wiring.ledger.freeze()
    with readable(task):
        held_up = freeze or recovery_as_freeze(wiring.ledger)
        shown = status_of(file, wiring.ledger.trail(file), held_up, wiring.ledger.children(task))
        revision = Revision.of(file.revision.body).check_form()
        requests = _end_requests(wiring, task, file.task.state, revision.content)
    seen = _freeze(wiring, file.task.state, revision.content)
    more = {
        "freeze": seen,
        "end_requested": requests,
        "missing": _missing(wiring, task, file.task.state),
        "published": None,
    }
    overview.print_status(revision, {**shown, **more}, as_json=json_)
    if failure is not None:
        raise _shown_above(failure)
    frozen = [f"everything is frozen: {freeze.reason}"] if freeze else []
    messages = [*frozen, *(finding["message"] for finding in shown["findings"])]
    session.check_findings(task, messages, end_reason=None if frozen else shown["end_reason"], hint=_INCIDENT)


def _meant(ledger: Ledger, task: str) -> str:
    """Return ` (did you mean …?)` where the ledger has nearly this task."""
    return nearest(task, (row.task_id for row in ledger.tasks()), likeness=NEARLY)


def _show_published(wiring: Wiring, task: str, *, as_json: bool) -> None:
    """Print a task as a worker published it.

    Raises SecurityFinding where the document is not trusted.
    """
    session.known(wiring, task)
    document, found = fallback.published_proof(wiring, task)
    requests = _end_requests(wiring, task, document.state, document.full_revision.content)
    shown = {**fallback.with_source(wiring, document, found), "end_requested": requests}
    shown["freeze"] = _freeze(wiring, document.state, document.full_revision.content)
    overview.print_published(document, shown, wiring.clock.agreed(), as_json=as_json)
    if found.problem:
        hint = "Ask who has the ledger: docs/operations/break-glass.md, A stolen worker identity."
        raise SecurityFinding(f"task {task}: {found.problem}", hint=hint)
    session.check_findings(task, document.findings, end_reason=document.end_reason, hint=_INCIDENT)


def _shown_above(failure: JitvaultError) -> JitvaultError:
    """Return the failure without a hint to run this command again.

    The command has just shown what the failure is about.
    """
    if isinstance(failure, NotConfirmed):
        failure.hint = "The check that failed is shown above. Run `jitvault revoke TASK` to try again at once."
    return failure


def _end_requests(wiring: Wiring, task: str, state: State, content: RevisionContent) -> list[dict[str, str]]:
    """Return the requested ends of the task that no worker has done yet.

    `content` is that of the task's revision. The list is empty with the worker's identity: such a command has just done
    them.
    """
    is_open = state in session.BEFORE | session.GRANTED
    if is_open and not wiring.has_worker and wiring.person_token:
        # a ledger can be shown without a usable identity, and while Vault does not answer
        with suppress(JitvaultError):
            me = wiring.person
            return pending_end_requests(me.documents, task, own=me.entity, names=content.names)
    return []


def _freeze(wiring: Wiring, state: State, content: RevisionContent) -> dict[str, Any] | None:
    """Return the operator's freeze that covers the task, as `list` shows it.

    `content` is that of the task's revision. None for a task that is over, and where the caller may not read freezes.
    """
    found = None if state in OVER else SeenFreezes(wiring, wiring.ledger if wiring.has_worker else None).of(content)
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
