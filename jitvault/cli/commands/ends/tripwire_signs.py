"""What published tasks tell of a tripwire that froze everything.

Only the ledger has such a freeze. Who cannot read one sees by this that a worker refused a grant because of it, or
ended a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jitvault.cli import session
from jitvault.documents.paths import PUBLISHED
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import SecurityFinding
from jitvault.formats.rfc3339 import rfc3339
from jitvault.model.states import BEFORE_GRANT, EndReason

if TYPE_CHECKING:
    from jitvault.wiring import Wiring


def tripwire_signs(wiring: Wiring) -> list[dict[str, Any]]:
    """Return `{task_id, at, message}` for each such task, the newest first.

    A sign says nothing about now: the freeze may have been lifted since.
    """
    found = []
    for task_id in wiring.documents.names(PUBLISHED):
        document = session.published(wiring, task_id)
        if isinstance(document, PublishedTask):
            sign = _sign(document)
            if sign is not None:
                found.append({"task_id": task_id, **sign})
    return sorted(found, key=lambda sign: sign["at"], reverse=True)


def _sign(document: PublishedTask) -> dict[str, str] | None:
    """Return when and how a tripwire concerned the task, None if none did."""
    refusal = document.refused_grant
    if refusal is not None and refusal["error"]["exit_code"] == SecurityFinding.exit_code:
        return {"at": refusal["at"], "message": f"its grant was refused: {refusal['error']['message']}"}
    error = document.error
    if error is not None and error.exit_code == SecurityFinding.exit_code and document.state in BEFORE_GRANT:
        return {"at": rfc3339(document.written_at), "message": f"it waits: {error.message}"}
    ended = document.ended
    # an operator's freeze has an author
    if document.end_reason is EndReason.FROZEN and ended is not None and ended["by"] is None:
        return {"at": ended["at"], "message": f"it was ended, since everything was frozen: {ended['note']}"}
    return None
