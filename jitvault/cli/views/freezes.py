"""Output about freezes: what one ended, which are active, and which were lifted."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jitvault.cli.folding import for_terminal, wrapped
from jitvault.cli.views import output
from jitvault.cli.views.listing import Column, print_listing
from jitvault.model.scope import Scope
from jitvault.model.states import PROVEN

_MOST_SHOWN = 5
_FREEZERS = {"recovery": "jitvault ledger recover", "tripwire": "a tripwire"}


def print_frozen(scope: Scope, reason: str, states: Mapping[str, str]) -> None:
    """Print what a freeze has ended. What is not ended is in the error that follows."""
    ended = {task: state for task, state in states.items() if state in PROVEN}
    left = {task: state for task, state in states.items() if task not in ended}
    shown = {"frozen": scope.as_json(), "reason": reason, "ended": ended, "not_ended": left}
    if output.print_for_scripts(shown, *states):
        return
    console = output.console()
    console.print(f"Frozen: {scope}.", soft_wrap=True)
    console.print("Nothing of it is granted or renewed until it is lifted.")
    if not states:
        console.print("No task of it held access, by what is published in Vault.")
        return
    held = "1 task held" if len(states) == 1 else f"{len(states)} tasks held"
    console.print(f"{held} access, {len(ended)} ended and confirmed.")


def print_freezes(
    found: Sequence[Mapping[str, Any]], signs: Sequence[Mapping[str, str]], *, tripwires_known: bool
) -> None:
    """Print the active freezes.

    `signs` are what published tasks tell of a tripwire, where no ledger was read.
    """
    console = output.console()
    columns = [Column("what"), Column("by"), Column("since", spare=1), Column("why")]
    rows = []
    for row in found:
        author = row["by"] or _FREEZERS.get(row["kind"], "")
        rows.append([str(Scope(**row["scope"])), author, output.readable(row["first_at"]), row["reason"]])
    if rows:
        print_listing(console, columns, rows)
    else:
        console.print("Nothing is frozen." if tripwires_known else "Nothing is frozen by operators.")
    if not tripwires_known:
        line = "Whether a tripwire froze everything is not known here: only the ledger records it."
        if signs:
            line += " A tripwire did something, by what is published; ask who has the ledger whether that holds on:"
        console.print(wrapped(line, sys.stdout), soft_wrap=True)
    for sign in signs[:_MOST_SHOWN]:
        line = f"{sign['task_id']}, {output.readable(sign['at'])}: {sign['message']}"
        console.print(for_terminal(line, sys.stdout, first="  ", rest="    "), style="red", soft_wrap=True)
    if len(signs) > _MOST_SHOWN:
        console.print(f"  … and {len(signs) - _MOST_SHOWN} more; --json has all", style="red", soft_wrap=True)


def print_lifted_freezes(lifted: Sequence[Mapping[str, Any]]) -> None:
    """Print the freezes that were lifted, and by whom."""
    console = output.console()
    if not lifted:
        console.print("No freeze that was lifted is known here.")
        return
    columns = [Column("lifted"), Column("by"), Column("since", spare=3), Column("why", spare=2)]
    columns += [Column("lifted at", spare=1), Column("lifted by"), Column("why it was lifted")]
    rows = []
    for row in lifted:
        lift = row["lifted"]
        frozen = [row["by"] or _FREEZERS.get(row["kind"], ""), output.readable(row["at"]), row["reason"]]
        ended = [output.readable(lift["at"]), lift["by"] or "", lift["reason"]]
        rows.append([str(Scope(**row["scope"])), *frozen, *ended])
    console.print()
    print_listing(console, columns, rows)
