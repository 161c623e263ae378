"""Numbers with what they count."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """Return `1 task`, or `2 tasks`.

    `what` is the singular of a noun with a regular plural.
    """
    return f"{number:,} {what}" + ("" if number == 1 else "s")
