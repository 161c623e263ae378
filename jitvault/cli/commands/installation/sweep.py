"""`jitvault sweep`: find untracked and missing credentials.

Untracked ones are in Vault and belong to no task, missing ones belong to a task and are not in Vault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from jitvault.cli import session
from jitvault.cli.views import output
from jitvault.formats.plural import counted
from jitvault.sweep.report import as_json, outcome
from jitvault.sweep.sweep import sweep as run


def sweep(
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Revoke untracked tokens of jitvault's roles, and end tasks whose credentials Vault no longer has.",
        ),
    ] = False,
) -> None:
    """Compare Vault's tokens and leases with the ledger and the audit stream.

    The command finds credentials in Vault that belong to no task, and credentials of tasks that Vault no longer has.
    Credentials that are younger than the settle window, or have an open operation, are only listed. The command needs
    the worker's identity. It exits with 12 if an untracked credential remains, and with 6 if one is gone without proof.

    Example: jitvault sweep --fix
    """
    wiring = session.open_session()
    swept = run(wiring.worker, fix=fix)
    found = as_json(swept, wiring.vault_command)
    if not output.print_for_program(found):
        _show(output.console(), found)
    failure = outcome(swept)
    if failure is not None:
        raise failure


def _show(console: Console, found: Mapping[str, Any]) -> None:
    looked = found["looked_at"]
    tokens, leases, paths = looked["tokens"], looked["leases"], len(looked["paths"])
    extent = f"{counted(tokens, 'token')} and {counted(leases, 'lease')} below {counted(paths, 'path')}"
    console.print(f"Looked at {extent}, {output.readable(found['at'])}", soft_wrap=True)
    if found["frozen"]:
        output.print_facts(console, {"frozen": found["frozen"]["why"]})
    _part(console, "Untracked: in Vault, but of no task", found["orphans"], _untracked)
    _part(console, "Unlinked: issued without a task, and no longer in Vault", found["unlinked"], _unlinked)
    _part(console, "Missing: live in the ledger, but no longer in Vault", found["ghosts"], _missing(found["advanced"]))
    _part(console, "Irrevocable: Vault has given up revoking it, or goes on trying", found["irrevocable"], _irrevocable)
    _part(console, "Closed without proof: nothing more is done about these", found["closed"], _closed)
    _part(
        console, "Not judged: too young, an operation is open, or its record cannot be read", found["waiting"], _waiting
    )
    notes = {f"may not list {path}": "its leases were not checked" for path in found["unread"]}
    if looked["not_judged"]:
        notes["too many"] = f"{looked['not_judged']} were listed but not looked up"
    if notes:
        output.print_facts(console, notes)
    if not any(found[part] for part in ("orphans", "unlinked", "ghosts", "irrevocable")) and not notes:
        console.print("Everything in Vault belongs to a task, and the other way round")


def _part(console: Console, title: str, items: Sequence[Mapping[str, Any]], facts: Any) -> None:
    if not items:
        return
    console.print(f"{title} ({len(items)})", soft_wrap=True)
    for item in items:
        name = item.get("lease_id") or item.get("subject") or item.get("path") or item["task_id"]
        console.print(f"  {item.get('kind', 'task')} {name}", soft_wrap=True)
        output.print_facts(console, {f"  {key}": value for key, value in facts(item).items() if value})
        if item.get("command"):
            # on one line, so that it can be copied
            console.print(f"    {item['command']}", soft_wrap=True)


def _untracked(item: Mapping[str, Any]) -> dict[str, str]:
    checks = " ".join(f"{c['n']}{'✓' if c['ok'] else '✗'}" for c in item["checks"])
    return {
        "state": f"{item['verdict']}   {checks}".rstrip(),
        "why": item["why"],
        "issued": output.readable(item["issued_at"]) + (f" from {item['remote']}" if item["remote"] else ""),
        "line": f"{item['line'][:16]}, request {item['request_id']}" if item["line"] else "",
        "reason": item["revoke_error"] or "",
    }


def _unlinked(item: Mapping[str, Any]) -> dict[str, str]:
    issued = f"{output.readable(item['at'])} at {item['path']} from {item['remote']}"
    return {"issued": issued, "line": f"{item['line'][:16]}, request {item['request_id']}"}


def _missing(advanced: Mapping[str, str]) -> Any:
    """Return what gives the facts of a missing credential.

    `advanced` are the new states of tasks by id.
    """

    def facts(item: Mapping[str, Any]) -> dict[str, str]:
        became = advanced.get(item["task_id"])
        return {
            "task": item["task_id"] + (f", now {became}" if became else ""),
            "how": f"{item['how']}: {item['why']}",
            "line": (item["line"] or "")[:16],
        }

    return facts


def _irrevocable(item: Mapping[str, Any]) -> dict[str, str]:
    return {"task": item["task_id"], "reason": item["revoke_error"] or item["why"]}


def _waiting(item: Mapping[str, Any]) -> dict[str, str]:
    return {"task": item["task_id"] or "", "why": item["why"]}


def _closed(item: Mapping[str, Any]) -> dict[str, str]:
    return {"by": f"{item['by']}: {item['reason']}", "unproven": ", ".join(item["unproven"])}
