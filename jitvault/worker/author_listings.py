"""Whose documents are listed next.

Pure, given the time. An author is listed soon, and again only after a rest that is many times as long as that took: all
documents that come meanwhile are found by one listing. Who has waited for longer comes first, and so does whoever takes
less time: a listing of thousands of documents lets those pass that are wanted while it would have run, and no others.
"""

from __future__ import annotations

SHORTEST_REST_S = 1.0
REST = 20
"""How many times as long as its listing an author rests: that takes at most one in so many parts of the time."""


class AuthorListings:
    """The authors who have documents that only a listing finds."""

    def __init__(self) -> None:
        # since when each author is wanted
        self._wanted = dict[str, float]()
        # how long the last listing took, and until when its author rests
        self._last: dict[str, tuple[float, float]] = {}

    def want(self, author: str, now: float) -> None:
        self._wanted.setdefault(author, now)

    def take(self, now: float) -> str | None:
        """Return the author to list now, None where each one rests."""
        ready = [author for author in self._wanted if self._rests_until(author) <= now]
        if not ready:
            return None
        author = min(ready, key=lambda author: (self._wanted[author] + self._last.get(author, (0.0, 0.0))[0], author))
        del self._wanted[author]
        return author

    def done(self, author: str, begun: float, now: float) -> None:
        """Record a listing that began at `begun`, whether or not it succeeded."""
        took_s = now - begun
        self._last[author] = (took_s, now + max(SHORTEST_REST_S, REST * took_s))
        for name in [name for name, (_, until) in self._last.items() if until < now and name not in self._wanted]:
            del self._last[name]

    def _rests_until(self, author: str) -> float:
        return self._last.get(author, (0.0, 0.0))[1]
