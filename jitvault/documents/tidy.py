"""Which documents in Vault say nothing any more: of requests that began no task, and of tasks that were never granted.

Nothing can be granted by the removal of one: a request begins nothing once it is as old as `REQUEST_LIFE`, and only
what is older is removed. What is published of a task that was granted stays until the worker removes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jitvault.documents.paths import REQUEST_LIFE
from jitvault.model.states import State

NEVER_GRANTED = frozenset({"refused", State.CANCELLED.value, State.DENIED.value, State.LAPSED.value})


@dataclass(frozen=True, slots=True)
class Remains:
    """What lies in Vault under one task's name: its requests, by path, and what is published of it, if anything is.

    The times are Vault's, of the newest version.
    """

    task_id: str
    requests: Mapping[str, datetime]
    state: str | None = None
    published_at: datetime | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """What there is, the published document last: without it an old request is refused as too old."""
        published = (f"tasks/{self.task_id}",) if self.state is not None else ()
        return (*sorted(self.requests), *published)

    def as_json(self) -> dict[str, Any]:
        return {"task_id": self.task_id, "state": self.state, "paths": list(self.paths)}


def is_removable(remains: Remains, now: datetime, older_than: timedelta) -> bool:
    """Whether all of it is older than that and nothing of it is about a task that is open or was granted.

    Of a task that was granted long ago nothing is published any more, and its request is as old as that.
    """
    if remains.state is not None and remains.state not in NEVER_GRANTED:
        return False
    times = [*remains.requests.values(), *([remains.published_at] if remains.published_at else [])]
    return bool(times) and all(now - at >= max(older_than, REQUEST_LIFE) for at in times)
