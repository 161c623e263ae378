"""The list of commands comes from the table; a command's module is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jitvault.cli import commands
from jitvault.cli.app import _commands
from jitvault.cli.command_table import COMMANDS
from jitvault.cli.lazy_commands import LazyCommand


def _lazy(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], LazyCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, LazyCommand):
            yield (*path, name), command
        else:
            yield from _lazy(command, (*path, name))


LAZY = dict(_lazy(_commands()))


@pytest.mark.parametrize("path", LAZY, ids=" ".join)
def test_the_line_of_a_command_in_the_list_is_the_first_of_its_own_help(path: tuple[str, ...]) -> None:
    lazy = LAZY[path]
    assert lazy.imported().help.splitlines()[0] == lazy.short_help


def test_every_module_below_commands_declares_a_command() -> None:
    root = Path(commands.__file__).parent
    files = {file.relative_to(root) for file in root.rglob("*.py") if file.name != "__init__.py"}
    places = {place.function for names in COMMANDS.values() for place in names.values()}
    assert files == {Path(*place.partition(":")[0].split(".")).with_suffix(".py") for place in places}
