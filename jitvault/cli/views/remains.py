"""Output of `tidy`: what finished tasks left in Vault."""

from __future__ import annotations

from collections.abc import Sequence

from jitvault.cli.views import output
from jitvault.cli.views.listing import Cell, Column, print_listing
from jitvault.documents.tidy import Remains
from jitvault.formats.plural import counted


def print_remains(found: Sequence[Remains], *, removed: int | None) -> None:
    """Print the documents of finished tasks.

    `removed` is how many were removed, None before the question.
    """
    shown = {"removed": removed, "tasks": [remains.as_json() for remains in found]}
    is_question = removed is None
    ids = (remains.task_id for remains in found)
    if not is_question and output.print_for_scripts(shown, *ids):
        return
    if removed:
        output.console().print(f"Removed {counted(removed, 'document')} of {counted(len(found), 'task')}")
        return
    # what belongs to the question goes to stderr, and the result to stdout
    console = output.console(stderr=removed is None)
    if not found:
        console.print("There is nothing to remove.")
        return
    columns = [Column("task"), Column("state"), Column("documents")]
    states = [Cell(remains.state or "", output.colour_of(remains.state or "")) for remains in found]
    numbers = (str(len(remains.paths)) for remains in found)
    print_listing(console, columns, [*zip((each.task_id for each in found), states, numbers, strict=True)])
