"""Interface of the databases that can keep a ledger, and its JSON codec."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Engine

T = TypeVar("T")


class Store(Protocol):
    """One database.

    All methods raise LedgerUnavailable, and LedgerFull where nothing more can be written.
    """

    engine: Engine

    def write(self, unit: Callable[[Connection], T], *, alone: bool) -> T:
        """Run `unit` in one transaction; return its result once it is durable.

        A unit may be run more than once, each time whole, from its reads. With `alone`, no other transaction runs whose
        changes it could miss, or that could miss its own.
        """
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """Return a consistent view; nothing that is done in it is written."""
        ...


def from_json(text: str | bytes) -> Any:
    """Decode JSON. Raises ValueError."""
    try:
        return msgspec.json.decode(text)
    except ValueError:
        # msgspec refuses some of what the standard library takes, such as Infinity; an edited row may contain it.
        return json.loads(text)


def to_json(value: object) -> str:
    """Encode as JSON."""
    # Most writes contain JSON, and msgspec is ten times as fast as the standard library.
    return msgspec.json.encode(value).decode()
