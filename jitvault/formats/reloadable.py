"""What is in use until something else that is good takes its place, while the process runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from jitvault.errors import InvalidInput

T = TypeVar("T")


class Reloadable(Generic[T]):
    """The last value that was good. `refused` says why the one that lies there now is not, and is empty otherwise."""

    def __init__(self, load: Callable[[], T]) -> None:
        """`load` reads it from where it lies. Raises InvalidInput when the first one does not validate."""
        self._load = load
        self.value = load()
        self.refused = ""

    def reload(self) -> bool:
        """Take what lies there now; False when it does not validate: nothing is changed, and `refused` says why."""
        try:
            self.value = self._load()
        except InvalidInput as error:
            self.refused = str(error)
            return False
        self.refused = ""
        return True


K = TypeVar("K")
V = TypeVar("V")


class CurrentMapping(Mapping[K, V]):
    """A mapping that is read again as a whole."""

    def __init__(self, load: Callable[[], Mapping[K, V]]) -> None:
        """Raises InvalidInput like `load`."""
        self.current = Reloadable(load)

    def __getitem__(self, key: K) -> V:
        return self.current.value[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self.current.value)

    def __len__(self) -> int:
        return len(self.current.value)
