"""Read what a worker delivers into an inbox.

Whoever has the worker's token can write there as well, and what they write is read by the agent's host.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, TypedDict

import msgspec
from msgspec import Meta

from jitvault.errors import SecurityFinding
from jitvault.formats.conversion import converter
from jitvault.formats.token_pattern import is_wrapping

Word = Annotated[str, Meta(pattern=r"\A[!-~]{1,1024}\Z")]
"""Printed as it is, so that it has nothing that a terminal obeys."""


class Wrapped(TypedDict):
    """One wrapping token, and what the token inside may read."""

    token: Word
    ttl: int
    creation_path: Word
    template: Word
    reads: list[Word]
    sends: dict[Word, dict[Word, Word]]


class Delivery(TypedDict):
    """The message in an inbox; `wrapping` is empty where it came too late."""

    task_id: str
    grant_id: Word
    digest: Word
    expires_at: Word | None
    ends_at: Word
    wrapping: Annotated[list[Wrapped], Meta(max_length=1)]


_delivery = converter(Delivery)


def read_delivery(document: Mapping[str, Any], task_id: str) -> Delivery:
    """Return the message of a task's inbox document.

    Raises SecurityFinding for a document that no worker wrote about this task. Its text has nothing of the document.
    """
    with suppress(msgspec.ValidationError, RecursionError):
        found = _delivery(dict(document))
        if found["task_id"] == task_id and all(is_wrapping(each["token"]) for each in found["wrapping"]):
            return found
    raise SecurityFinding(f"what is in your inbox for task {task_id} is nothing that a worker delivers")
