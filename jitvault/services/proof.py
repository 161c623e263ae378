"""The proof of a task's end as everybody sees it: `complete`, `revoke`, the report and the receipt."""

from __future__ import annotations

from typing import Any

from jitvault.domain.confirmation import NAMES
from jitvault.domain.lifecycle import ENDED, PROVEN
from jitvault.domain.revision import Revision
from jitvault.ports.ledger import CheckRow, TaskFile


def proof_of(file: TaskFile) -> dict[str, Any] | None:
    """`{task_id, state, end_reason, confirmed, dead_ms, confirmed_ms, leases, token}`; None before the end."""
    task = file.task
    if task.state not in ENDED:
        return None
    revision = Revision.of(file.revision.body)
    token = file.grants[-1] if file.grants else None
    return {
        "task_id": task.task_id,
        "state": task.state.value,
        "end_reason": task.end_reason.value if task.end_reason else None,
        "confirmed": task.state in PROVEN,
        "dead_ms": task.dead_ms,
        "confirmed_ms": task.confirmed_ms,
        "leases": [
            {
                "lease_id": lease.lease_id,
                "template": (revision.template_of(lease.path) or {}).get("template", lease.path),
                "verdict": lease.verdict.value,
                "checks": checks_of(file, lease.lease_id),
            }
            for lease in file.leases
        ],
        "token": {
            "verdict": token.verdict.value if token else "never_issued",
            "checks": [
                *(checks_of(file, token.accessor_hmac or token.grant_id) if token else ()),
                *checks_of(file, task.task_id),
            ],
        },
    }


def checks_of(file: TaskFile, subject: str) -> list[dict[str, Any]]:
    """The numbered checks of one credential, or (for the task's id) of the task."""
    return [_as_json(row) for row in file.checks if row.subject == subject]


def _as_json(row: CheckRow) -> dict[str, Any]:
    return {"n": row.n, "name": NAMES[row.n], "ok": row.ok, "evidence": row.evidence}
