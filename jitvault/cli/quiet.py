"""Whether the running command was asked to print its result alone, or for a program to read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from jitvault.cli.folding import for_terminal


class _Mode:
    """What --quiet and -o say, for all threads of this process."""

    is_quiet = False
    is_for_program = False


@contextmanager
def quiet_if(asked: bool, *, for_program: bool = False) -> Iterator[None]:
    """Keep progress and notes back meanwhile, if `asked`.

    `for_program` says that a program reads the output: then what the command waits for is kept back.
    """
    _Mode.is_quiet = asked
    _Mode.is_for_program = for_program
    try:
        yield
    finally:
        _Mode.is_quiet = False
        _Mode.is_for_program = False


def is_quiet() -> bool:
    """Return whether only the result, or its id, is to be printed."""
    return _Mode.is_quiet


def is_for_program() -> bool:
    """Return whether a program reads the output, as JSON."""
    return _Mode.is_for_program


def waits(text: str) -> None:
    """Print what the command waits for, to stderr.

    With --quiet, or where a program reads the output, nothing is printed.
    """
    if not is_for_program():
        note(text)


def note(text: str, *, nl: bool = True) -> None:
    """Print progress, or a note about the result, to stderr.

    With --quiet nothing is printed. A warning is no note: it is always printed.
    """
    if is_quiet():
        return
    # a line without an end is overwritten by the next one, and is as wide as its writer made it
    typer.echo(for_terminal(text, sys.stderr, rest="  ", keep_commands=True) if nl else text, nl=nl, err=True)
