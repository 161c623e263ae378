"""What a database that keeps a ledger can do, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Engine

T = TypeVar("T")


class Store(Protocol):
    """One database. All of it raises LedgerUnavailable, and LedgerFull where nothing more can be written."""

    engine: Engine

    def write(self, unit: Callable[[Connection], T], *, alone: bool) -> T:
        """Run `unit` in one transaction and give its result once it is durable.

        A unit may be run more than once, each time whole, from its reads. With `alone` no other is running that
        it could miss, or that could miss it.
        """
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """A consistent view; nothing that is done in it is written."""
        ...


def to_json(value: object) -> str:
    # most of what is written is JSON, and this is ten times as fast as the standard library's
    return msgspec.json.encode(value).decode()
