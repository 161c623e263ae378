"""`jitvault ledger recover`: rebuild a lost ledger, or correct an old one.

An old one was restored from a backup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

from jitvault.cli import session
from jitvault.cli.options import duration
from jitvault.cli.quiet import note
from jitvault.cli.views import output
from jitvault.recovery.recover import plan as look
from jitvault.recovery.recover import recover_ledger
from jitvault.recovery.report import as_json, outcome

_MEANINGS = {
    "kept": "the ledger agrees with Vault",
    "told": "recovered by an earlier run",
    "anew": "never granted: recovered from their signed requests",
    "goes_on": "the ledger was behind: continued",
    "ending": "may hold access: ended",
    "closed": "closed before: their signed receipts were recovered",
    "cancelled": "cancelled before they were granted",
    "left": "not recovered",
    "contradicts": "the ledger and Vault disagree: not changed",
}
# the outcomes whose tasks are shown one by one
_SHOWN = ("contradicts", "ending", "goes_on")


def ledger_recover(
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be recovered, and change nothing.")] = False,
    wait: Annotated[float, duration("--wait", "How long to try to end and confirm tasks.", shown="2m")] = 120.0,
) -> None:
    """Rebuild a lost ledger, or correct a restored one.

    What it lacks is taken from Vault and the audit files. Nothing is granted until the recovery has finished. Run the
    command again after any interruption. It needs the worker's identity. It exits with 6 if an end is not proven, and
    with 12 if the ledger and Vault disagree or a credential belongs to no task.

    Example: jitvault ledger recover --plan
    """
    wiring = session.open_session()
    worker = wiring.worker
    found = look(worker) if plan else recover_ledger(worker, wait_s=wait, tell=note)
    report = as_json(found, wiring.vault_command)
    if not output.print_for_program(report):
        _show(output.console(), report, plan=plan)
    failure = outcome(found)
    if failure is not None:
        raise failure


def _show(console: Console, report: Mapping[str, Any], *, plan: bool) -> None:
    def line(text: str) -> None:
        console.print(text, soft_wrap=True)

    files = report["files"]
    sources = ", ".join(files["sources"]) or "none"
    facts = {
        "files": f"{sources}: {files['lines']:,} lines, {files['tokens']} task tokens were issued",
        "since": output.readable(files["since"]) if files["since"] else "no line that matters",
        "missing": f"{len(files['gaps'])} gaps, the first: {files['gaps'][0]}" if files["gaps"] else "",
        "unread": "; ".join(files["unread"]),
    }
    line("What would be done" if plan else "What was found and done")
    output.print_facts(console, facts)
    counts = Counter(task["fate"] for task in report["tasks"])
    for fate, meaning in _MEANINGS.items():
        if not counts[fate]:
            continue
        line(f"{counts[fate]} {'task' if counts[fate] == 1 else 'tasks'}: {meaning}")
        if fate in _SHOWN:
            for task in (task for task in report["tasks"] if task["fate"] == fate):
                output.print_facts(console, {task["task_id"]: _summary(task)})
    _show_rest(console, report, line)
    if not plan:
        done = "Finished: tasks can be granted again." if report["finished"] else "Not finished: nothing is granted."
        line(done)


def _summary(task: Mapping[str, Any]) -> str:
    alive = sum(1 for token in task["tokens"] if token["alive"])
    tokens = "no token known"
    if task["tokens"]:
        plural = "" if len(task["tokens"]) == 1 else "s"
        tokens = f"{len(task['tokens'])} token{plural}, {alive} alive"
    evidence = "; ".join(task["verified_by"]) or "no signature confirms its revision"
    now = f", now {task['state']}" if task["state"] else ""
    return f"was {task['published']}{now}; {tokens}; {evidence}" + (f"; {task['why']}" if task["why"] else "")


def _show_rest(console: Console, report: Mapping[str, Any], line: Any) -> None:
    if report["left"]:
        line(f"Not recovered ({len(report['left'])})")
        output.print_facts(console, report["left"])
    if report["failed"]:
        line(f"Failed ({len(report['failed'])})")
        output.print_facts(console, report["failed"])
    untracked = (report["sweep"] or {}).get("orphans") or []
    if untracked:
        line(f"In Vault, and of no task ({len(untracked)})")
        for credential in untracked:
            name = f"{credential['kind']} {credential['lease_id']}"
            output.print_facts(console, {name: f"{credential['verdict']}: {credential['why']}"})
            if credential["command"]:
                line(f"    {credential['command']}")
    if report["waiting"]:
        line(f"{report['waiting']} credentials are too young to be judged")
