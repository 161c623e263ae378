"""A value that is in use until another valid one replaces it at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from jitvault.errors import InvalidInput

T = TypeVar("T")


class Reloadable(Generic[T]):
    """The last valid value.

    `refused` says why the value that is stored now is not valid; it is empty otherwise.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        """Load the first value with `load`.

        Raises InvalidInput if it does not validate.
        """
        self._load = load
        self.value = load()
        self.refused = ""

    def reload(self) -> bool:
        """Load the value that is stored now; return False if it does not validate.

        Then nothing is changed, and `refused` says why.
        """
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
        """Load the first mapping. Raises InvalidInput like `load`."""
        self.current = Reloadable(load)

    def __getitem__(self, key: K) -> V:
        return self.current.value[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self.current.value)

    def __len__(self) -> int:
        return len(self.current.value)
