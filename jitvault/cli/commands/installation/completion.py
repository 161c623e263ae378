"""`jitvault completion`: print the completion script of a shell.

The script asks this program what may follow: it is run once for each Tab, with the line in its environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer._completion_classes import completion_init
from typer._completion_shared import get_completion_script

_PROGRAM = "jitvault"
_ASKED = "_JITVAULT_COMPLETE"


class Shell(StrEnum):
    """The shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="The shell: bash, zsh or fish.")],
) -> None:
    """Print the completion script of a shell.

    It completes commands, options, formats and the names of templates, and asks neither Vault nor the ledger. In bash
    and zsh, put `source <(jitvault completion bash)` into the shell's start-up file; in fish, `jitvault completion fish
    | source`.

    Example: source <(jitvault completion bash)
    """
    typer.echo(get_completion_script(prog_name=_PROGRAM, complete_var=_ASKED, shell=shell.value))


def answer_shell(commands: Callable[[], Any]) -> None:
    """Print what may follow a line, if a completion script asks.

    Then the process ends. `commands` returns the commands as typer runs them.
    """
    if _ASKED in os.environ:
        completion_init()
        commands()(prog_name=_PROGRAM, complete_var=_ASKED)
