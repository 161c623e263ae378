"""Who may end a task, as far as the caller can see that, and their signature of its end.

Vault lets every agent write a request to end any task, and a worker counts only those of whoever may end it. A command
that waited for such a worker would say that there is none.
"""

from __future__ import annotations

from jitvault.cli import session
from jitvault.documents.paths import ANYONE, freeze_path, request_path
from jitvault.documents.published_task import IllegibleDocument, PublishedTask
from jitvault.errors import Denied, VaultRefused
from jitvault.lifecycle.requests.end_documents import may_end
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.model.states import EndReason
from jitvault.wiring import Wiring


def sign_end_of(
    wiring: Wiring, task: str, reason: EndReason | None, note: str, *, force: bool = False, act: str = "end"
) -> None:
    """Sign the end of a task, and name who can where Vault refuses that. Raises VaultRefused."""
    writes = request_path(ANYONE, task, "end")
    with session.signing(f"{act} task {task}", "operators and the task's agent", writes=writes):
        sign_end(wiring.person, task, reason=reason, note=note, force=force)


def check_may_end(wiring: Wiring, document: PublishedTask | IllegibleDocument, *, force: bool = False) -> None:
    """Raise Denied where the caller may not end the task.

    No worker would count such a request. With `force` only an operator's counts. An unreadable document names nobody,
    so it keeps no one from an end.
    """
    if isinstance(document, IllegibleDocument):
        return
    content = document.full_revision.content
    has_part = wiring.person.entity in may_end(content)
    if (has_part and not force) or is_operator(wiring):
        return
    task = document.task_id
    if force:
        raise Denied(
            f"task {task}: only a member of jitvault-operators can close it without proof; nothing was written",
            hint=f"Ask an operator to run `jitvault revoke {task} --force --reason WHY`.",
        )
    parts = ", ".join(f"its {part} {getattr(content, part).name}" for part in ("requester", "agent", "owner"))
    raise Denied(
        f"task {task} is not yours to end: nothing was written",
        hint=f"Who can: {parts}, and members of jitvault-operators. `bao token lookup` shows who you are.",
    )


def is_operator(wiring: Wiring) -> bool:
    """Return whether the caller may end everybody's tasks.

    Vault lets operators and auditors alone read freezes, and no auditor writes a request. The worker's identity is not
    used: an end must not depend on its login, nor on the ledger.
    """
    try:
        wiring.person.documents.read(freeze_path(wiring.person.entity, "all"))
    except VaultRefused:
        return False
    return True
