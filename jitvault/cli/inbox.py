"""The caller's inbox: what a worker delivered, or somebody else wrote."""

from __future__ import annotations

from jitvault.documents.delivery import Delivery, read_delivery
from jitvault.documents.paths import inbox_path
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import SecurityFinding
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.model.states import EndReason
from jitvault.wiring import Wiring


def delivered(wiring: Wiring, task: str) -> Delivery | None:
    """Return what the caller's inbox has for a task.

    None where it has nothing. Raises SecurityFinding for what no worker delivers, with the alarm signed.
    """
    document = wiring.person.documents.get(inbox_path(wiring.person.entity, task))
    if document is None:
        return None
    try:
        return read_delivery(document, task)
    except SecurityFinding as error:
        raise sign_alarm(wiring, task, str(error)) from None


def message_for(wiring: Wiring, document: PublishedTask) -> Delivery | None:
    """Return the message with the token of the published grant.

    None where the caller's inbox has none for this grant. Raises what `delivered` raises.
    """
    message = delivered(wiring, document.task_id)
    return message if message is not None and message["grant_id"] == document.grant_id else None


def empty(wiring: Wiring, task: str) -> None:
    """Remove the message about a task from the caller's inbox."""
    wiring.person.documents.destroy(inbox_path(wiring.person.entity, task))


def sign_alarm(wiring: Wiring, task: str, what: str) -> SecurityFinding:
    """Sign that what was delivered was replaced, and return the error.

    No audit line names the task then. `what` says what is in the inbox instead.
    """
    sign_end(wiring.person, task, reason=EndReason.INTERCEPTED, note=f"in its inbox: {what}"[:500])
    return SecurityFinding(
        what,
        hint=f"Somebody replaced what was in your inbox. You have signed an alarm, and task {task} ends as "
        "intercepted. Tell the operator.",
    )
