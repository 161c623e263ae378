"""The options that many commands share. Only typer is imported here: `--help` has to start fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Task = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")]
Wait = Annotated[
    float,
    typer.Option("--wait", metavar="SECONDS", min=0, max=86_400, help="How long to wait for a worker (exit 13)."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the task's record.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the result to a new 0600 file.")]

DEFAULT_WAIT = 30.0
