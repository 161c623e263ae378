"""Show the help of commands: examples, environment, value names."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from typer.core import TyperCommand, TyperGroup

from jitvault.cli.environment import environment_of

_EXAMPLE = "Example: "
# the values of options whose own name says little about them
_VALUES = {"reason": "WHY", "agent": "NAME", "owner": "NAME", "template": "NAME"}


class Command(TyperCommand):
    """A command that names its options' values and its environment."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _name_values(self.get_params(ctx))
        self.epilog = _environment(ctx.command_path.removeprefix("jitvault "))
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    """A group of commands that names its options' values."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _name_values(self.get_params(ctx))
        super().format_help(ctx, formatter)


def help_text(docstring: str) -> str:
    """Return a command's docstring as its help.

    Each paragraph becomes one line, to be wrapped at the terminal's width. An example has a line of its own, so that it
    can be copied.
    """
    found = []
    for paragraph in inspect.cleandoc(docstring).split("\n\n"):
        line = " ".join(paragraph.split())
        found.append(f"Example:\n{line.removeprefix(_EXAMPLE)}" if line.startswith(_EXAMPLE) else line)
    return "\n\n".join(found)


def example_in(text: str) -> str:
    """Return the first example in a command's help as the beginning of a hint, empty without one."""
    example = text.partition(f"{_EXAMPLE.strip()}\n")[2].partition("\n")[0]
    return example and f"For example: `{example}`. "


def _environment(path: str) -> str | None:
    """Return the environment variables of a command, in two columns."""
    variables = environment_of(path)
    if not variables:
        return None
    width = max(map(len, variables))
    lines = (f"{name.ljust(width)}  {meaning}" for name, meaning in variables.items())
    return "\n".join(["Environment (docs/reference.md has all settings):", *lines])


def _name_values(parameters: list[Any]) -> None:
    """Name the values of options.

    A flag has none, and the name of an argument says what it is. Typer shows Python's types instead, such as <bool>.
    """
    for parameter in parameters:
        if isinstance(getattr(parameter, "show_default", None), str):
            # typer shows it in parentheses, as the description of a value that has no words
            parameter._get_default_string = partial(_default, parameter.show_default)
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = _no_type
        elif parameter.is_flag:
            parameter.metavar = ""
        elif parameter.metavar is None:
            parameter.metavar = _VALUES.get(parameter.name) or _value_name(parameter)


def _default(words: str, **_: Any) -> str:
    return words


def _no_type(ctx: Any) -> None:
    return None


def _value_name(option: Any) -> str:
    """Return a name for the value of an option by what it may be."""
    kind = option.type_descriptor
    if kind.choices:
        return "|".join(map(str, kind.choices))
    return "NUMBER" if kind.annotation in (int, float) else str(option.name).upper()
