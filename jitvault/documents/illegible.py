"""What no worker wrote is no document of a task. Pure."""

from __future__ import annotations

from jitvault.errors import SecurityFinding


def illegible(task_id: str) -> SecurityFinding:
    """Return the error for a published document that no worker wrote."""
    return SecurityFinding(
        f"what is published of task {task_id} was not written by a worker",
        hint="Another party has a worker's token, or an administrator's. What the task holds can be revoked "
        f"nevertheless: `jitvault revoke {task_id}`.",
    )
