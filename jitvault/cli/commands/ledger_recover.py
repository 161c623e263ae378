"""`jitvault ledger recover`: a ledger that was lost, or an older one that was put back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jitvault.cli.options import Debug, Json

if TYPE_CHECKING:
    from rich.console import Console

_WORDS = {
    "kept": "the ledger has them as Vault says",
    "told": "taken in by a run before this one",
    "anew": "never granted: taken in from their signed requests",
    "goes_on": "the ledger was behind: gone on with",
    "ending": "may hold access: ended",
    "closed": "closed before: their signed receipts were taken in",
    "cancelled": "cancelled before they were granted",
    "left": "not taken in",
    "contradicts": "the ledger and Vault contradict each other: left as they are",
}
# what a person reads one by one
_SHOWN = ("contradicts", "ending", "goes_on")


def ledger_recover(
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be taken in, and end nothing.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to try what needs time.")
    ] = 120.0,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Rebuild a ledger that was lost, or correct an older one, from Vault and the audit files.

    Nothing is granted until it has finished; it can be run again whatever ended it. Needs the worker's identity. Exits
    with 6 where an end is not proven, 12 where ledger and Vault contradict each other or something is nobody's.
    """
    from jitvault.cli import session
    from jitvault.cli.views import output
    from jitvault.recovery.recover import plan as look
    from jitvault.recovery.recover import recover_ledger
    from jitvault.recovery.report import as_json, outcome

    wiring = session.open_session()
    worker = wiring.worker
    found = (
        look(worker) if plan else recover_ledger(worker, wait_s=wait, tell=lambda words: typer.echo(words, err=True))
    )
    told = as_json(found, wiring.vault_command)
    if json_:
        typer.echo(output.to_json(told))
    else:
        _show(output.console(), told, plan=plan)
    failure = outcome(found)
    if failure is not None:
        raise failure


def _show(console: Console, told: Mapping[str, Any], *, plan: bool) -> None:
    from jitvault.cli.views import output

    def line(text: str) -> None:
        console.print(text, soft_wrap=True)

    files = told["files"]
    sources = ", ".join(files["sources"]) or "none"
    facts = {
        "files": f"{sources}: {files['lines']:,} lines, {files['tokens']} task tokens were made",
        "since": output.readable(files["since"]) if files["since"] else "no line that matters",
    }
    if files["gaps"]:
        facts["missing"] = f"{len(files['gaps'])} gaps, the first: {files['gaps'][0]}"
    if files["unread"]:
        facts["unread"] = "; ".join(files["unread"])
    line("What would be done" if plan else "What was found and done")
    output.print_facts(console, facts)
    counts = Counter(task["fate"] for task in told["tasks"])
    for fate, words in _WORDS.items():
        if not counts[fate]:
            continue
        line(f"{counts[fate]} {'task' if counts[fate] == 1 else 'tasks'}: {words}")
        if fate in _SHOWN:
            for task in (task for task in told["tasks"] if task["fate"] == fate):
                output.print_facts(console, {task["task_id"]: _of(task)})
    _show_rest(console, told, line)
    if not plan:
        done = "Finished: tasks can be granted again." if told["finished"] else "Not finished: nothing is granted."
        line(done)


def _of(task: Mapping[str, Any]) -> str:
    alive = sum(1 for token in task["tokens"] if token["alive"])
    one = len(task["tokens"]) == 1
    tokens = f"{len(task['tokens'])} token{'' if one else 's'}, {alive} alive" if task["tokens"] else "no token known"
    carried = "; ".join(task["verified_by"]) or "no signature carries its revision"
    now = f", now {task['state']}" if task["state"] else ""
    return f"was {task['published']}{now}; {tokens}; {carried}" + (f"; {task['why']}" if task["why"] else "")


def _show_rest(console: Console, told: Mapping[str, Any], line: Any) -> None:
    from jitvault.cli.views import output

    if told["left"]:
        line(f"Not taken in ({len(told['left'])})")
        output.print_facts(console, told["left"])
    if told["failed"]:
        line(f"Failed ({len(told['failed'])})")
        output.print_facts(console, told["failed"])
    orphans = (told["sweep"] or {}).get("orphans") or []
    if orphans:
        line(f"In Vault and nobody's ({len(orphans)})")
        for orphan in orphans:
            output.print_facts(
                console, {f"{orphan['kind']} {orphan['lease_id']}": f"{orphan['verdict']}: {orphan['why']}"}
            )
            if orphan["command"]:
                line(f"    {orphan['command']}")
    if told["waiting"]:
        line(f"{told['waiting']} credentials are too young to be judged")
