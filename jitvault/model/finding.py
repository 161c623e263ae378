"""How many findings one author can make, and how what is beyond that is told.

Whoever may write a document chooses what a finding about it says, so that each can be another one. Of one author and
rule, or of one task and rule where nobody wrote it, the first ones of a day are kept. One more says that there were
others, and how often they were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

MOST = 20
"""So many findings of one author and rule are kept one by one."""
WINDOW = timedelta(days=1)
OF_DOCUMENTS: Final = frozenset({"forged_document", "not_entitled"})
"""Rules about what somebody left below their own path. People hear of all others first."""


def counting(author: str | None, rule: str, at: datetime) -> str:
    """The message of the finding that counts the others."""
    whose = f"entity {author}: m" if author else "M"
    since = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{whose}ore findings of the rule {rule} since {since} are counted and not kept one by one"


def told(found: Mapping[str, Any]) -> str:
    """What a finding says, with the number of those that it stands for."""
    return f"{found['message']}: {found['more']} so far" if found["more"] else str(found["message"])


AFTER_SEAL = (
    "lease_after_seal",
    "a lease appeared after the task was sealed: the settle window is shorter than the server's requests",
)
"""The rule and the message of the finding about a lease that comes after the seal."""
