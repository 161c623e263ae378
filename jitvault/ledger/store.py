"""What a database that keeps a ledger can do, whichever it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

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


def from_json(text: str | bytes) -> Any:
    """Raises ValueError for what is no JSON."""
    try:
        return msgspec.json.decode(text)
    except ValueError:
        # what it does not take, such as a number without end, somebody may have written into a row all the same
        return json.loads(text)


def to_json(value: object) -> str:
    # most of what is written is JSON, and this is ten times as fast as the standard library's
    return msgspec.json.encode(value).decode()
