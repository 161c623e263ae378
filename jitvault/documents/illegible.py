"""What no worker wrote is no document of a task. Pure."""

from __future__ import annotations

from jitvault.errors import SecurityFinding
from jitvault.formats.shorten import one_line


def illegible(task_id: str, place: str = "") -> SecurityFinding:
    """Return the error for a published document that no worker wrote.

    `place` says where it is wrong, if that is known.
    """
    where = f" (at {one_line(place)})" if place else ""
    return SecurityFinding(
        f"what is published of task {task_id} was not written by a worker{where}",
        hint="Another party has a worker's token, or an administrator's. What the task holds can be revoked "
        f"nevertheless: `jitvault revoke {task_id}`.",
    )
