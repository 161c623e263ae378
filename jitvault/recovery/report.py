"""Report a recovery.

The report is JSON, and the error with which the command ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jitvault.errors import JitvaultError, NotConfirmed, SecurityFinding, WaitTimedOut, error_like
from jitvault.formats.rfc3339 import rfc3339
from jitvault.recovery.recover import RecoveryResult
from jitvault.recovery.survey import AuditFiles, RecoveryCase
from jitvault.sweep import report as swept

AGAIN = "Nothing is granted until it has finished: run the same command again."


def as_json(found: RecoveryResult, vault_command: str) -> dict[str, Any]:
    """Return the documented shape of `jitvault ledger recover --json`."""
    return {
        "finished": found.finished,
        "since": rfc3339(found.since) if found.since else None,
        "files": _files(found.stock.files),
        "tasks": [_task(case, found) for case in found.stock.cases],
        "left": dict(sorted(found.left.items())),
        "failed": {task_id: str(error) for task_id, error in sorted(found.failed.items())},
        "unproven": found.unproven,
        "waiting": found.waiting,
        "sweep": swept.as_json(found.swept, vault_command) if found.swept else None,
    }


def outcome(found: RecoveryResult) -> JitvaultError | None:
    """Return the error with which the command ends.

    The result is None where all is known and ended.

    A plan without contradictions gives None as well.
    """
    if found.contradictions:
        names = [case.published.task_id for case in found.contradictions]
        return SecurityFinding(
            f"the ledger and Vault disagree about {_named(names)}",
            hint="Nothing is granted. Put this ledger away and run it on an empty one, which goes by Vault alone.",
        )
    if found.failed:
        task_id, error = next(iter(sorted(found.failed.items())))
        return error_like(error, f"task {task_id}: {error}", hint=AGAIN)
    if found.swept is None:
        return None
    if found.waiting:
        return WaitTimedOut(f"{found.waiting} credentials are too young to be judged", hint=f"{AGAIN} Or use --wait.")
    if (left := swept.outcome(found.swept)) is not None and not isinstance(left, NotConfirmed):
        return left
    if found.unproven:
        return NotConfirmed(
            f"the end of {_named(found.unproven)} is not proven",
            hint="`jitvault status TASK` says what is missing; `jitvault revoke TASK --force --reason WHY` closes it "
            "without proof.",
        )
    return left


def _named(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _files(files: AuditFiles) -> dict[str, Any]:
    return {
        "sources": list(files.sources),
        "since": rfc3339(files.since) if files.since else None,
        "lines": files.lines,
        "tokens": len(files.made),
        "gaps": list(files.gaps),
        "unread": list(files.unread),
    }


def _task(case: RecoveryCase, found: RecoveryResult) -> Mapping[str, Any]:
    published, state = case.published, found.states.get(case.published.task_id)
    return {
        "task_id": published.task_id,
        "published": published.state.value,
        "fate": case.action.value,
        "state": state.value if state else None,
        "verified_by": list(case.verified_by),
        "tokens": [{"accessor_hmac": one.accessor, "line": one.line, "alive": bool(one.lease)} for one in case.made],
        "why": case.why,
    }
