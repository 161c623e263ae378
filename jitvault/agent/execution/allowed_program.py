"""Whether a task is for this agent, and may run this program.

Before a spec is asked for, its author can correct it; afterwards the tools are those that were signed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jitvault.errors import Denied, InvalidInput

if TYPE_CHECKING:
    from jitvault.model.spec import TaskSpec


_PYTHON = re.compile(r"python(3(\.\d+)?)?")


def spellings(name: str) -> tuple[str, ...]:
    """Return the names of a program that mean the same, `name` first.

    Hosts have Python as python, as python3, or as both. No other program is known by another one's name: a file such as
    that of BusyBox has many names and is as many programs.
    """
    return tuple(dict.fromkeys((name, "python", "python3"))) if _PYTHON.fullmatch(name) else (name,)


def find_tool(tool: str, path: str | None = None) -> str | None:
    """Return the path of a program in PATH, also by another spelling."""
    return next(filter(None, (shutil.which(each, path=path) for each in spellings(tool))), None)


def names_of(executable: str) -> tuple[str, ...]:
    """Return the names by which `spec.tools` can permit a program.

    They are that of its path, and that of the file which the path leads to.
    """
    path = Path(executable)
    return *spellings(path.name), *spellings(path.resolve().name)


def check_spec_agent(spec: TaskSpec, me: str) -> None:
    """Raise Denied for a spec whose access goes to the inbox of another.

    `me` is the name of the caller's entity, "" where it is not known.
    """
    body = spec.spec
    # Vault finds an entity by its name in any case
    if body.deliver == "agent" and me.casefold() not in ("", body.agent.casefold()):
        raise Denied(
            f"the access of this spec goes to the inbox of its agent {body.agent}, and you are {me}",
            hint=f"Nothing was asked for and nothing was started. Log in as {body.agent}; or let the spec say "
            "`deliver: requester`, and the access is yours.",
        )


def check_spec_names(tools: Sequence[str], program: Sequence[str]) -> None:
    """Raise InvalidInput for a program that a spec does not name.

    Nobody has signed the spec yet, so its author can name the program.
    """
    if not _is_named(tools, program):
        name = program[0]
        raise InvalidInput(
            f"the spec names {', '.join(tools)} in spec.tools, and not {name}",
            hint=f"Nothing was asked for and nothing was started. Add {name} to spec.tools: approvers read it there.",
        )


def check_program(task: str, tools: Sequence[str], program: Sequence[str]) -> None:
    """Raise InvalidInput for a program that the signed tools do not name.

    An empty list permits any. `program` has the program's names, the one for people first.
    """
    if not _is_named(tools, program):
        name = program[0]
        raise InvalidInput(
            f"task {task} is for {', '.join(tools)}, and not for {name}",
            hint="Nothing was started. Its approvers signed the tools in `spec.tools`: ask for a task that names "
            f"{name}.",
        )


def _is_named(tools: Sequence[str], program: Sequence[str]) -> bool:
    return not tools or bool(set(program) & set(tools))
