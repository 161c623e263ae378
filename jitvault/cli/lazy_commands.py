"""Commands whose modules are imported when they run, or when their own help is asked for.

A command's module imports at its top what the command needs: hvac, the ledger, tables. The list of all commands shows
one line of each, which stands in the table, so nothing is imported for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from typer.main import get_command_from_info
from typer.models import CommandInfo

from jitvault.cli.command_table import Place
from jitvault.cli.help import Command, Group, help_text
from jitvault.cli.output_options import with_common_options


class LazyCommand(Command):
    """A command by its name and its line in the list of commands, to be imported when it is used."""

    def __init__(self, name: str, place: Place, *, panel: str | None = None) -> None:
        super().__init__(name, short_help=place.summary, hidden=place.is_hidden, rich_help_panel=panel)
        self._place = place

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the imported command: it parses the options, runs, helps and completes."""
        return self.imported().make_context(info_name, args, parent, **extra)

    def imported(self) -> Any:
        """Return the command that the module declares."""
        module, _, function = self._place.function.partition(":")
        declared = getattr(import_module(f"jitvault.cli.commands.{module}"), function)
        callback = with_common_options(declared, self._place.output)
        info = CommandInfo(self.name, cls=Command, callback=callback, help=help_text(declared.__doc__ or ""))
        command: Any = get_command_from_info(info, pretty_exceptions_short=True, rich_markup_mode="rich")
        return command


def commands_of(panels: Mapping[str | None, Mapping[str, Place]], groups: Mapping[str, str]) -> dict[str, Any]:
    """Return the commands by their first word, where `groups` has the help of those with a second one."""
    found: dict[str, Any] = {}
    for panel, places in panels.items():
        for name, place in places.items():
            first, _, second = name.partition(" ")
            if not second:
                found[first] = LazyCommand(first, place, panel=panel)
                continue
            if first not in found:
                found[first] = Group(
                    name=first, help=groups[first], no_args_is_help=True, rich_markup_mode="rich", rich_help_panel=panel
                )
            found[first].commands[second] = LazyCommand(second, place)
    return found
