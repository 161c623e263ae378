"""Let one thread act for all that wait for the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from jitvault.errors import JitvaultError

T = TypeVar("T")


class _Round(Generic[T]):
    """One act, for all threads that came before it began."""

    def __init__(self) -> None:
        self.is_over = False
        self.result: T | None = None
        self.error: JitvaultError | None = None


class OneForAll(Generic[T]):
    """An act that serves every thread that waited for it when it began.

    Whoever comes later waits for the next one, since what is true for it may have become so after the act began.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next: _Round[T] = _Round()
        self._is_acting = False

    def of(self, act: Callable[[], T]) -> T:
        """Return what an act resulted in that began after this call, and raise what it raised.

        Where the acting thread is stopped, another one acts.
        """
        with self._changed:
            own = self._next
            while self._is_acting and not own.is_over:
                self._changed.wait()
            if not own.is_over:
                self._is_acting = True
                self._next = _Round()
        if not own.is_over:
            self._act(own, act)
        if own.error is not None:
            raise own.error
        return own.result  # type: ignore[return-value]

    def _act(self, own: _Round[T], act: Callable[[], T]) -> None:
        try:
            own.result = act()
            own.is_over = True
        except JitvaultError as error:
            own.error = error
            own.is_over = True
        finally:
            with self._changed:
                self._is_acting = False
                self._changed.notify_all()
