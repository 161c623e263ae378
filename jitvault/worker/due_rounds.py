"""Whose due tasks are taken next. Pure.

Requesters take turns in rounds: nobody's second task is taken before everybody else who has due tasks had one taken.
A task's requester is the entity below whose path its request lies, so nobody can have turns in another's name.
"""

from __future__ import annotations

from collections.abc import Collection


class DueRounds:
    """The requesters who had a turn in this round."""

    def __init__(self) -> None:
        self._served = frozenset[str]()

    @property
    def served(self) -> Collection[str]:
        """The requesters whose tasks come after those of all others."""
        return self._served

    def took(self, requesters: Collection[str]) -> None:
        """Record whose tasks were taken, with `served` last.

        Where one of them had a turn before, nobody was left who had none: another round begins.
        """
        now = frozenset(requesters)
        self._served = now if now & self._served else self._served | now
