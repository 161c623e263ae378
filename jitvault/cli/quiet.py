"""Whether the running command was asked to print its result alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from jitvault.cli.folding import for_terminal


class _Mode:
    """What --quiet says, for all threads of this process."""

    is_quiet = False


@contextmanager
def quiet_if(asked: bool) -> Iterator[None]:
    """Keep progress and notes back meanwhile, if `asked`."""
    before = _Mode.is_quiet
    _Mode.is_quiet = asked
    try:
        yield
    finally:
        _Mode.is_quiet = before


def is_quiet() -> bool:
    """Return whether only the result, or its id, is to be printed."""
    return _Mode.is_quiet


def note(text: str, *, nl: bool = True) -> None:
    """Print progress, or a note about the result, to stderr.

    With --quiet nothing is printed. A warning is no note: it is always printed.
    """
    if is_quiet():
        return
    # a line without an end is overwritten by the next one, and is as wide as its writer made it
    typer.echo(for_terminal(text, sys.stderr, rest="  ", keep_commands=True) if nl else text, nl=nl, err=True)
