"""Numbers with what they count, and names in one line."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, what: str) -> str:
    """Return `1 task`, or `2 tasks`.

    `what` is the singular of a noun with a regular plural.
    """
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def listed(names: Iterable[str], most: int = 3) -> str:
    """Return the first `most` names in one line, and how many more there are."""
    names = tuple(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
