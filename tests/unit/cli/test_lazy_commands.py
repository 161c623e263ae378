"""A command is shown by what its module declares, and runs as the module that is imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jitvault.cli import commands
from jitvault.cli.app import _commands
from jitvault.cli.command_table import COMMANDS
from jitvault.cli.lazy_commands import DeclaredCommand


def _declared(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], DeclaredCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, DeclaredCommand):
            yield (*path, name), command
        else:
            yield from _declared(command, (*path, name))


DECLARED = dict(_declared(_commands()))
# what only a command that runs needs
HEAVY = {"hvac", "sqlalchemy", "alembic", "cedarpy", "msgspec", "cryptography", "structlog"}


def _shown(command: Any) -> tuple[object, ...]:
    options = [
        (each.name, each.opts, each.default, each.required, getattr(each, "help", None), each.metavar, str(each.nargs))
        for each in command.params
    ]
    return command.name, command.help, command.hidden, command.rich_help_panel, options


@pytest.mark.parametrize("path", DECLARED, ids=" ".join)
def test_what_the_help_shows_is_what_the_imported_command_has(path: tuple[str, ...]) -> None:
    declared = DECLARED[path]
    assert _shown(declared) == _shown(declared.imported())


def test_the_help_of_all_commands_imports_nothing_that_only_a_running_command_needs() -> None:
    program = (
        "import contextlib, io, sys\nfrom jitvault.cli import app\n"
        f"for path in {[*DECLARED]!r}:\n"
        "    sys.argv = ['jitvault', *path, '--help']\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n        app.main()\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = {*done.stdout.split()}
    assert "jitvault" in found and not found & HEAVY


def test_help_as_the_value_of_an_option_does_not_keep_a_command_from_running() -> None:
    declared = DECLARED["freeze",]
    context = declared.make_context("freeze", ["--all", "--reason", "--help"])
    assert context.params["reason"] == "--help" and context.params["all_"] is True
    assert not isinstance(context.command, DeclaredCommand), "what is only declared cannot run"


def test_help_behind_the_dashes_is_of_the_program_that_exec_runs() -> None:
    context = DECLARED["exec",].make_context("exec", ["read-orders", "--", "psql", "--help"])
    assert not isinstance(context.command, DeclaredCommand)
    assert context.params["command"] == ["psql", "--help"] or context.params["command"] == ("psql", "--help")


def test_a_command_that_is_completed_is_not_imported() -> None:
    context = DECLARED["status",].make_context("status", ["--js"], resilient_parsing=True)
    assert context.command is DECLARED["status",]


def test_every_module_below_commands_declares_a_command() -> None:
    root = Path(commands.__file__).parent
    files = {file.relative_to(root) for file in root.rglob("*.py") if file.name != "__init__.py"}
    places = {place for names in COMMANDS.values() for place in names.values()}
    assert files == {Path(*place.partition(":")[0].split(".")).with_suffix(".py") for place in places}
