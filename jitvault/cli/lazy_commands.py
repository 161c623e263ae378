"""Commands that are imported when they run.

A command's module imports at its top what the command needs: hvac, the ledger, tables. `--help` and completion
need only what it declares: its parameters and its docstring. For them the module is run without those imports, in names
of its own, which takes a hundredth of the time. What a declaration is made of is imported all the same: `_READ`.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from typer.main import get_command_from_info
from typer.models import CommandInfo

from jitvault.cli.help import Command, Group, help_text
from jitvault.cli.output_options import with_common_options

# what declarations are made of; each takes no time to import
_READ = frozenset(
    {"typer", "jitvault.cli.options", "jitvault.cli.output_options", "jitvault.errors", "jitvault.model.states"}
)
_HELP = frozenset({"-h", "--help"})


class LazyCommands(Mapping[str, Any]):
    """Commands by name, each read when it is first asked for.

    `panels` has the headings of the help, and below each where its commands are. `groups` are the words that several
    commands begin with. A command in `hidden` is in no help.
    """

    def __init__(
        self,
        panels: Mapping[str | None, Mapping[str, str]],
        groups: Mapping[str, str] = MappingProxyType({}),
        hidden: Collection[str] = (),
    ) -> None:
        self._groups = groups
        self._hidden = hidden
        self._places: dict[str, tuple[str | None, dict[str, str]]] = {}
        self._found: dict[str, Command | Group] = {}
        for panel, commands in panels.items():
            for name, place in commands.items():
                first, _, rest = name.partition(" ")
                self._places.setdefault(first, (panel, {}))[1][rest] = place

    def __getitem__(self, name: str) -> Command | Group:
        if name not in self._found:
            panel, places = self._places[name]
            options = {"name": name, "rich_help_panel": panel, "hidden": name in self._hidden}
            if name in self._groups:
                self._found[name] = _group(self._groups[name], places, options)
            else:
                self._found[name] = _declared(places[""], options)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class DeclaredCommand(Command):
    """A command as its module declares it: it can be shown and completed; to run it is to import it."""

    imported: Callable[[], Command]

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the imported command, or if it is only shown, of what is declared."""
        is_completed = extra.get("resilient_parsing", False)
        if is_completed or not _HELP.isdisjoint(args):
            # with --help this prints the help and ends, unless that is the value of an option or of another program
            shown = super().make_context(info_name, [*args], parent, **extra)
            if is_completed:
                return shown
        return self.imported().make_context(info_name, args, parent, **extra)


def _group(text: str, places: Mapping[str, str], options: Mapping[str, Any]) -> Group:
    commands: Any = LazyCommands({None: places})
    return Group(help=text, commands=commands, no_args_is_help=True, rich_markup_mode="rich", **options)


def _declared(place: str, options: Mapping[str, Any]) -> DeclaredCommand:
    module, _, name = place.partition(":")
    module = f"jitvault.cli.commands.{module}"
    command: DeclaredCommand = _command(DeclaredCommand, _declarations(module)[name], options)
    command.imported = lambda: _command(Command, getattr(import_module(module), name), options)
    return command


def _command(kind: type[Command], function: Callable[..., None], options: Mapping[str, Any]) -> Any:
    """Return a function as a command: its docstring is the help, and it gets its output options."""
    text = help_text(function.__doc__ or "")
    info = CommandInfo(cls=kind, callback=with_common_options(function), help=text, **options)
    return get_command_from_info(info, pretty_exceptions_short=True, rich_markup_mode="rich")


class _Unread(type):
    """The kind of what stands in for all that a module imports to run: any name of it is itself."""

    def __getattr__(cls, name: str) -> _Unread:
        return cls


class _StandIn(metaclass=_Unread):
    pass


@cache
def _declarations(module: str) -> Mapping[str, Any]:
    """Return the names of a module that was run without importing what its commands need to run."""
    spec = find_spec(module)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(module)
    # classes look for the names of their annotations in the module that they say they are of
    names = {"__name__": __name__, "__builtins__": {**vars(builtins), "__import__": _import}}
    exec(spec.loader.get_code(module), names)  # type: ignore[attr-defined]  # noqa: S102 - the module's own code
    return names


def _import(name: str, *how: Any) -> Any:
    if name in _READ or name.partition(".")[0] in sys.stdlib_module_names:
        return builtins.__import__(name, *how)
    return _StandIn
