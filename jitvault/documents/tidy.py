"""Which documents in Vault can be removed since they say nothing now.

These are requests that began no task, and documents of tasks that were never granted. No removal can lead to a
grant: a request begins nothing once it is as old as `REQUEST_LIFE`, and only older documents are removed. The
published document of a task that was granted stays until the worker removes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jitvault.documents.paths import REQUEST_LIFE, published_path
from jitvault.model.states import State

NEVER_GRANTED = frozenset({"refused", State.CANCELLED.value, State.DENIED.value, State.LAPSED.value})


@dataclass(frozen=True, slots=True)
class Remains:
    """The documents in Vault under one task's name.

    `requests` maps the paths of its requests to their times; `state` is the published state, if anything is
    published. The times are Vault's, of the newest version.
    """

    task_id: str
    requests: Mapping[str, datetime]
    state: str | None = None
    published_at: datetime | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths in the order of removal.

        The published document is last: without it, an old request is refused as too old.
        """
        published = (published_path(self.task_id),) if self.state is not None else ()
        return (*sorted(self.requests), *published)

    def as_json(self) -> dict[str, Any]:
        return {"task_id": self.task_id, "state": self.state, "paths": list(self.paths)}


def is_removable(remains: Remains, now: datetime, older_than: timedelta) -> bool:
    """Return whether everything of a task is old enough and no longer open.

    Nothing is removed of a task that is open or was granted. Of a task that was granted long ago no published
    document is left, and its request is as old as the grant.
    """

    if remains.state is not None and remains.state not in NEVER_GRANTED:
        return False
    times = [*remains.requests.values(), *([remains.published_at] if remains.published_at else [])]
    return bool(times) and all(now - at >= max(older_than, REQUEST_LIFE) for at in times)
