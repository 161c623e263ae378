"""Queues of tasks that are ready: one for each urgency and author. Pure.

Within one urgency the authors take turns, so that an author of thousands of documents delays only their own.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable


class Queues:
    """Tickets of tasks that are ready.

    A ticket that is not valid any more is skipped when its turn comes.
    """

    def __init__(self) -> None:
        self._lanes: dict[int, OrderedDict[str, deque[int]]] = {}

    def add(self, urgency: int, author: str, ticket: int) -> None:
        """Put a ticket at the end of its author's queue."""
        lane = self._lanes.setdefault(urgency, OrderedDict())
        lane.setdefault(author, deque()).append(ticket)

    def pop(self, urgency: int, holds: Callable[[int], bool]) -> int | None:
        """Take the next valid ticket of an urgency.

        `holds` says whether a ticket is valid. The author of the ticket comes last from then on.
        """
        lane = self._lanes.get(urgency)
        while lane:
            author, queue = lane.popitem(last=False)
            ticket = self._first(queue, holds)
            if queue:
                lane[author] = queue
            if ticket is not None:
                return ticket
        return None

    @staticmethod
    def _first(queue: deque[int], holds: Callable[[int], bool]) -> int | None:
        """Take the first valid ticket of a queue."""
        while queue:
            ticket = queue.popleft()
            if holds(ticket):
                return ticket
        return None
