"""How many findings one author can cause, and how the rest are counted.

An entity that may write a document controls what a finding about it says, so it could make each one differ. The
first findings of a day are kept for each author and rule, or for each task and rule where no author is known. One
more finding says that there were others, and how often they were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

MOST = 20
"""How many findings of one author and rule are kept one by one."""
WINDOW = timedelta(days=1)
OF_DOCUMENTS: Final = frozenset({"forged_document", "not_entitled"})
"""Rules about documents that an entity wrote below its own path. Notices about all other rules go first."""


def count_message(author: str | None, rule: str, at: datetime) -> str:
    """Return the message of the finding that counts the rest."""
    whose = f"entity {author}: m" if author else "M"
    since = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{whose}ore findings of the rule {rule} since {since} are counted and not kept one by one"


def describe_finding(found: Mapping[str, Any]) -> str:
    """Return what a finding says, and how many findings it stands for."""
    return f"{found['message']}: {found['more']} so far" if found["more"] else str(found["message"])


AFTER_SEAL = (
    "lease_after_seal",
    "a lease appeared after the task was sealed: the settle window is shorter than the server's requests",
)
"""The rule and the message of the finding about a lease that appears after the seal."""
