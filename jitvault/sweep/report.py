"""Report a sweep: as JSON, and as the error with which its command ends."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from jitvault.errors import JitvaultError, NotConfirmed, SecurityFinding, VaultRefused
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.model import UntrackedCredentialRow
from jitvault.model.states import PROVEN as PROVEN_STATES
from jitvault.sweep.compare import Classification
from jitvault.sweep.sweep import SweepResult

_PROVEN = frozenset(state.value for state in PROVEN_STATES)


def as_json(swept: SweepResult, vault_command: str) -> dict[str, Any]:
    """Return the documented shape of `jitvault sweep --json`.

    `vault_command` is `bao` or `vault`: commands for an administrator are shown as they are typed.
    """
    inventory = swept.inventory
    return {
        "at": rfc3339(inventory.canary.at),
        "fix": swept.fix,
        "looked_at": {
            "paths": list(inventory.paths),
            "tokens": sum(1 for one in inventory.listed if one.kind == "token"),
            "leases": sum(1 for one in inventory.listed if one.kind == "lease"),
            "not_judged": inventory.skipped,
        },
        "unread": list(inventory.unread),
        "orphans": [_orphan(swept, row, vault_command) for row in swept.orphans],
        "ghosts": [
            {
                "kind": ghost.owned.kind,
                "subject": ghost.owned.subject,
                "path": ghost.owned.path,
                "task_id": ghost.owned.task_id,
                "how": ghost.how.value,
                "why": ghost.why,
                "line": ghost.line or None,
            }
            for ghost in swept.ghosts
        ],
        "unlinked": [
            {
                **{"kind": one.kind, "subject": one.issue.subject, "path": one.path, "at": rfc3339(one.issue.at)},
                **{"remote": one.issue.remote, "line": one.issue.line, "request_id": one.issue.request_id},
            }
            for one in swept.unlinked
            if one.issue
        ],
        "irrevocable": [
            {**_listed(one), "revoke_error": one.listed.revoke_error if one.listed else None, "why": one.why}
            for one in swept.irrevocable
        ],
        "waiting": [{**_listed(one), "why": one.why} for one in swept.waiting],
        "closed": [
            {"task_id": one.task_id, "by": one.by, "reason": one.reason, "unproven": list(one.unproven)}
            for one in swept.closed
        ],
        "advanced": dict(swept.advanced),
        "frozen": swept.freeze and {"why": swept.freeze.reason, "at": rfc3339(swept.freeze.at)},
    }


def outcome(swept: SweepResult) -> JitvaultError | None:
    """Return the error with which the command ends; None where it succeeds."""
    if swept.failure is not None:
        return swept.failure
    left = swept.remaining
    counts = {
        "orphans": len(left),
        "unlinked": len(swept.unlinked),
        "ghosts that nobody revoked": sum(1 for ghost in swept.unexplained if not _is_done(swept, ghost.owned.task_id)),
        "listed but not judged": swept.inventory.skipped,
    }
    if any(counts.values()):
        said = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
        return SecurityFinding(f"the sweep found something that is left: {said}", hint=_hint(swept))
    gone = sum(1 for ghost in swept.ghosts if not _is_done(swept, ghost.owned.task_id))
    open_ = {"orphans": len(swept.unproven), "ghosts": gone, "irrevocable leases": len(swept.irrevocable)}
    if any(open_.values()):
        said = ", ".join(f"{n} {what}" for what, n in open_.items() if n)
        return NotConfirmed(f"not proven dead: {said}", hint=_hint_of_unproven(swept))
    if swept.inventory.unread:
        return VaultRefused(
            f"the worker may not list {', '.join(swept.inventory.unread)}: nothing there was looked at",
            hint="An administrator runs `jitvault init`.",
        )
    return None


def command(row: UntrackedCredentialRow | Classification, vault_command: str) -> str | None:
    """Return the command by which an administrator revokes it."""
    found = row if isinstance(row, UntrackedCredentialRow) else row.listed
    lease_id = found.lease_id if found else None
    return f"{vault_command} lease revoke -sync {shlex.quote(lease_id)}" if lease_id else None


def _hint(swept: SweepResult) -> str:
    if not swept.fix and any(row.kind == "token" for row in swept.remaining):
        return (
            "Run `jitvault sweep --fix`, which revokes the tokens. For leases an administrator runs the commands above."
        )
    return "Find out who made these. An administrator revokes what is still there with the commands above."


def _hint_of_unproven(swept: SweepResult) -> str:
    if not swept.fix:
        return "Run `jitvault sweep --fix`, which proves what it can."
    tasks = [*(ghost.owned.task_id for ghost in swept.ghosts), *(one.task_id for one in swept.irrevocable)]
    left = next((task for task in tasks if task and not _is_done(swept, task)), None)
    if left is None:
        return "The next `jitvault sweep --fix` continues."
    return (
        f"`jitvault status {left}` shows what is missing, and `jitvault revoke {left} --reason WHY` ends it if it is "
        "not over. "
        f"If it can never be proven, `jitvault revoke {left} --force --reason WHY` closes it without proof."
    )


def _is_done(swept: SweepResult, task_id: str) -> bool:
    return swept.advanced.get(task_id) in _PROVEN


def _orphan(swept: SweepResult, row: UntrackedCredentialRow, vault_command: str) -> Mapping[str, Any]:
    found = swept.why.get(row.lease_id)
    live = row in swept.remaining
    return {
        "kind": row.kind,
        "lease_id": row.lease_id,
        "path": row.path,
        "task_id": row.task_id,
        "why": found.why if found else "found by an earlier sweep",
        "issued_at": _iso(row.issued_at),
        "expires_at": _iso(row.expires_at),
        "revoke_error": found.listed.revoke_error if found and found.listed else None,
        "remote": found.issue.remote if found and found.issue else None,
        "line": row.line or None,
        "request_id": row.request_id or None,
        "verdict": row.verdict.value,
        "checks": [dict(check) for check in row.checks],
        "command": command(row, vault_command) if live else None,
    }


def _listed(one: Classification) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "lease_id": one.listed.lease_id if one.listed else None,
        "path": one.path,
        "task_id": one.task_id,
        "issued_at": _iso(one.issued_at),
    }


def _iso(at: Any) -> str | None:
    return rfc3339(at) if at else None
