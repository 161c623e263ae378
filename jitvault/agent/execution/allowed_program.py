"""Whether a task may run a program, by the tools that were signed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jitvault.errors import InvalidInput


def check_program(task: str, tools: Sequence[str], executable: str) -> None:
    """Raise InvalidInput for a program that the signed tools do not name.

    It is known by the name of its file, or of the file that a link leads to. An empty list permits any.
    """
    name = Path(executable).name
    if tools and name not in tools and Path(executable).resolve().name not in tools:
        raise InvalidInput(
            f"task {task} is for {', '.join(tools)}, and not for {name}",
            hint="Nothing was started. Its approvers signed the tools in `spec.tools`: ask for a task that names "
            f"{name}.",
        )
