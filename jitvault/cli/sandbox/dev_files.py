"""Notice that templates or policies of a running sandbox were edited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

State = frozenset[tuple[str, int, int]]


class WatchedFiles:
    """The files in some directories.

    An editor writes a file in several steps, so a change counts once two looks in a row see the same.
    """

    def __init__(self, directories: Iterable[Path]) -> None:
        self._directories = tuple(directories)
        self._told = self._seen = self._look()

    def changed(self) -> bool:
        """Return whether files changed since this was last true."""
        before, self._seen = self._seen, self._look()
        if self._seen == self._told or self._seen != before:
            return False
        self._told = self._seen
        return True

    def _look(self) -> State:
        return frozenset(self._files())

    def _files(self) -> Iterator[tuple[str, int, int]]:
        for directory in self._directories:
            # what cannot be read at this moment is seen at the next look
            with suppress(OSError):
                for path in directory.iterdir():
                    found = path.stat()
                    yield str(path), found.st_mtime_ns, found.st_size
