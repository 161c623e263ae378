"""Which request an interrupted command may withdraw."""

from __future__ import annotations

from contextlib import suppress

from jitvault.cli import session
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError
from jitvault.model.states import WAITING, State
from jitvault.wiring import Wiring

_UNTAKEN = WAITING | {State.ISSUING, State.ISSUED}


def is_left_alone(wiring: Wiring, task: str) -> bool:
    """Return whether what is published of the task is not to be withdrawn."""
    with suppress(JitvaultError):
        document = session.published(wiring, task)
        return isinstance(document, PublishedTask) and not is_withdrawable(document, wiring.person.entity)
    return False


def is_withdrawable(document: PublishedTask, entity: str) -> bool:
    """Return whether a task is the request of `entity`, and untaken.

    Two may have asked by one id at the same moment. An operator's withdrawal would end the task of the other one.
    """
    return document.requester == entity and document.state in _UNTAKEN
