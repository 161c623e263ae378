"""Output of a kill switch: which tasks ended, what that rests on, and what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jitvault.cli.views import output
from jitvault.kill_switch.kill import Result
from jitvault.lifecycle.record.check_words import NOT_ASKED

if TYPE_CHECKING:
    from rich.console import Console

_MOST_SHOWN = 5


def print_kill_results(results: Sequence[Result]) -> None:
    """Print the result of each task of a kill switch.

    The successes are summed up in one line.
    """
    rows = [
        {
            "task_id": result.task_id,
            "state": result.state.value if result.state else None,
            "confirmed": result.confirmed,
            "target_asked": result.target_asked,
            "ended_earlier": result.ended_earlier,
            "error": str(result.error) if result.error else None,
            "not_proven": list(result.not_proven),
        }
        for result in results
    ]
    shown = {"tasks": rows, "confirmed": sum(result.confirmed for result in results)}
    if output.print_for_scripts(shown, *(result.task_id for result in results)):
        return
    console = output.console()
    now = [row for row in rows if not row["ended_earlier"]]
    for problem, tasks in _problems(now).items():
        console.print(output.indented(f"{', '.join(tasks)}: {problem}", console.width), style="red", soft_wrap=True)
    for line in _ends_in_words(now):
        console.print(line, soft_wrap=True)
    _print_not_proven(rows, console)
    _print_ended_earlier([row for row in rows if row["ended_earlier"]], console)


def _problems(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the tasks that are not confirmed, by what keeps them from that."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if not row["confirmed"]:
            found.setdefault(row["error"] or f"is {row['state']}", []).append(row["task_id"])
    return found


def _ends_in_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how many of the tasks ended, and what that rests on.

    An end that rests on Vault's word alone is not called proven.
    """
    if not rows:
        return ["There was no task to end"]
    confirmed = [row for row in rows if row["confirmed"]]
    by_vault = sum(row["target_asked"] is False for row in confirmed)
    proven = len(confirmed) - by_vault
    of = f"of {len(rows)} {'task is' if len(rows) == 1 else 'tasks are'} ended"
    lines = [f"{proven} {of} and proven"] if proven or not by_vault else []
    return [*lines, f"{by_vault} {of}: {NOT_ASKED}"] if by_vault else lines


def _print_not_proven(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what no check of a proof looks at, for some tasks.

    In an emergency, too many lines would hide the others.
    """
    concerned = [row for row in rows if row["not_proven"]]
    for row in concerned[:_MOST_SHOWN]:
        for point in row["not_proven"]:
            line = output.indented(f"{row['task_id']}: not proven: {point}", console.width)
            console.print(line, style="yellow", soft_wrap=True)
    if len(concerned) > _MOST_SHOWN:
        console.print(f"  … and of {len(concerned) - _MOST_SHOWN} more tasks; --json has all", style="yellow")


def _print_ended_earlier(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the tasks that had ended before this run, and how to close them."""
    if not rows:
        return
    stay, them = ("stays", "it") if len(rows) == 1 else ("stay", "them")
    console.print(
        f"{len(rows)} more had ended before and {stay} without proof; neither Vault nor the target shows any access of "
        f"{them}, and the exit code does not count {them}:",
        soft_wrap=True,
    )
    for row in rows:
        console.print(f"  {row['task_id']}: {row['error'] or row['state']}", soft_wrap=True)
    console.print("Close each with `jitvault revoke TASK --force --reason WHY` after the incident.", soft_wrap=True)
