"""Have what a failed connection left behind forget its login.

A driver's functions have the password in their variables. An exception keeps these with its traceback, where whatever
reports an error with its variables, such as an error tracker, would find it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

DRIVER = "psycopg"


def forget_login(error: BaseException, *, package: str | None = None, until: BaseException | None = None) -> None:
    """Have all frames of an exception forget their variables.

    So do those of the exceptions that it came from. With `package` only the frames of that package do. What comes
    before `until` is left alone, and so is a frame that still runs.
    """
    for each in _chain(error, until):
        _forget_connection(getattr(each, "pgconn", None))
        for frame, _ in traceback.walk_tb(each.__traceback__):
            name = str(frame.f_globals.get("__name__"))
            if package is None or name.partition(".")[0] == package:
                with suppress(RuntimeError):
                    frame.clear()


def _forget_connection(pgconn: Any) -> None:
    """Have what psycopg keeps of a connection that failed forget the password."""
    # one that is open is not the exception's own, and takes no such change
    with suppress(AttributeError, TypeError):
        pgconn.password = b""
        pgconn.info = [each for each in pgconn.info if each.keyword != b"password"]


def _chain(error: BaseException, until: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or each is until or any(each is other for other in seen):
            continue
        seen.append(each)
        yield each
        left += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions
