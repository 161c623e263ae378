"""Give each command `--debug`, and one with a result `-o FORMAT`, its short form `--json`, and `-q`.

A command prints its result as text or as JSON (`cli/quiet.py` says which). One with more formats declares `format_`: a
StrEnum of its formats, with a default of one of them, or None for text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Annotated, Any, get_args

import typer

from jitvault.cli.command_table import RESULT
from jitvault.cli.options import Debug, Json, Quiet
from jitvault.cli.quiet import quiet_if

_JSON = "json"
_FORMAT = "format_"
_FLAG = "json_"
# the names of the options' parameters, before `-o` and `--json` become one value
_GIVEN = "given_format"
_QUIET = "quiet"
_DEBUG = "debug"


@dataclass(frozen=True, slots=True)
class _Formats:
    """What a command declares: its formats, None for JSON alone."""

    kind: type[StrEnum] | None = None
    default: str | None = None

    @property
    def names(self) -> list[str]:
        return [each.value for each in self.kind] if self.kind else [_JSON]


def wants_json(arguments: Sequence[str]) -> bool:
    """Return whether a command line asks for JSON.

    It may be a wrong one, whose error is JSON as well.
    """
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        if argument == "--":
            return False
        if argument in ("--json", "--output=json", "-ojson"):
            return True
        if argument in ("--output", "-o") and following == _JSON:
            return True
    return False


def with_common_options(command: Callable[..., None], meaning: str = RESULT) -> Callable[..., None]:
    """Return the command with `--debug`, which `main` heeds, and the options of one with a result.

    `meaning` says what `-o` does, empty for a command that prints no result.
    """
    signature = inspect.signature(command, eval_str=True)
    formats = _declared(signature)

    def run(**given: Any) -> None:
        del given[_DEBUG]
        if not meaning:
            command(**given)
            return
        options = {
            "-o": given.pop(_GIVEN),
            "--json": _JSON if given.pop(_FLAG) else None,
        }
        chosen = _only(options, formats.names)
        if formats.kind is not None:
            given[_FORMAT] = formats.kind(chosen) if chosen else formats.default
        with quiet_if(given.pop(_QUIET), for_program=chosen == _JSON):
            command(**given)

    added = _output_options(formats, meaning) if meaning else []
    return _as_command(run, command, _parameters(signature, added))


def _declared(signature: inspect.Signature) -> _Formats:
    """Return the formats that a command declares."""
    parameter = signature.parameters.get(_FORMAT)
    if parameter is None:
        return _Formats()
    # `Kind` or `Kind | None`
    kinds = (parameter.annotation, *get_args(parameter.annotation))
    return _Formats(next(kind for kind in kinds if isinstance(kind, type)), parameter.default)


def _only(options: Mapping[str, str | None], names: Sequence[str]) -> str | None:
    """Return the format that the options name, None without one.

    Raises typer.BadParameter for one that the command does not have, and for two different ones.
    """
    given = {option: value for option, value in options.items() if value is not None}
    for option, value in given.items():
        if value not in names:
            raise typer.BadParameter(f"expected {' or '.join(names)}, got {value!a:.40}", param_hint=option)
    if len({*given.values()}) > 1:
        named = (option if option == "--json" else f"{option} {value}" for option, value in given.items())
        raise typer.BadParameter(f"{' and '.join(named)} name two formats")
    return next(iter(given.values()), None)


def _parameters(signature: inspect.Signature, added: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    """Return a command's parameters with the common options, and those `added` for its output."""
    found: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        found += added if name == _FORMAT else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    last = () if _FORMAT in signature.parameters else added
    return [*found, *last, _keyword(_DEBUG, Debug, default=False)]


def _output_options(formats: _Formats, meaning: str) -> list[inspect.Parameter]:
    def complete(incomplete: str) -> list[str]:
        return [name for name in formats.names if name.startswith(incomplete)]

    text = meaning.format(" or ".join(formats.names))
    default = f" {formats.default} is the default." if formats.default else ""
    output = typer.Option("--output", "-o", metavar="FORMAT", help=text + default, autocompletion=complete)
    return [
        _keyword(_GIVEN, Annotated[str | None, output], None),
        _keyword(_FLAG, Json, default=False),
        _keyword(_QUIET, Quiet, default=False),
    ]


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _as_command(
    run: Callable[..., None], command: Callable[..., None], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """Return `run` as typer sees a command: by its name and parameters."""
    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run
