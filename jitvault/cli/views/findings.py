"""Print findings, and who closed them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from jitvault.cli.folding import CONTINUED, cells, for_terminal
from jitvault.cli.views import output
from jitvault.formats.shorten import one_line


def print_findings(rows: Sequence[Mapping[str, Any]], *, closed: bool) -> None:
    """Print each finding with its number, and below it what it says.

    On a terminal long lines are folded; elsewhere each stays whole.
    """
    console = output.console()
    for row in rows:
        agent = row["agent_name"] or row["agent"]
        about = f"task {row['task_id']}{f' of {agent}' if agent else ''}" if row["task_id"] else "no task"
        head = f"{row['rule']}, {about}, {output.readable(row['at'])}"
        number = f"{row['id']:>4}  "
        console.print(for_terminal(head, sys.stdout, first=number, rest=" " * 8), style="bold", soft_wrap=True)
        lines = [row["message"] + (f": {row['more']} so far" if row["more"] else "")]
        if row["author"]:
            name = f" ({row['author_name']})" if row["author_name"] else ""
            lines.append(f"by entity {row['author']}{name}")
        for line in lines:
            console.print(for_terminal(line, sys.stdout, first=" " * 6, rest=" " * 8), soft_wrap=True)
        if row["closed_at"]:
            console.print(closed_line(row, sys.stdout), soft_wrap=True)
    if not rows:
        console.print(f"There is no {'' if closed else 'open '}finding.")


def closed_line(row: Mapping[str, Any], stream: TextIO) -> str:
    """Return who closed a finding, when and why.

    The reason is another's words: where the terminal is too narrow for one line, it has lines of its own, each marked.
    """
    indent, reason = " " * 6, one_line(row["closed_why"])
    said = f"closed {output.readable(row['closed_at'])} by {_closer(row)}:"
    whole = f"{indent}{said} {reason}"
    if not stream.isatty() or cells(whole) <= shutil.get_terminal_size().columns:
        return whole
    mark = f"{' ' * 4}{CONTINUED}"
    why = for_terminal(reason, stream, first=mark, rest=mark, keep_ids=False)
    return f"{for_terminal(said, stream, first=indent, rest=' ' * 8)}\n{why}"


def _closer(row: Mapping[str, Any]) -> str:
    if row["closed_by"] is None:
        return "somebody whose name was not recorded then"
    entity = f" (entity {row['closed_by_entity']})" if row["closed_by_entity"] else " (a token without an entity)"
    return f"{row['closed_by']}{entity}"
