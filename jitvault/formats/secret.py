"""A value that must not be shown: tokens, wrapping tokens, passwords."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """Hold a string that is never shown by accident.

    `str`, `repr`, format and comparison with text do not show it; JSON and pickling refuse it. The only way out is
    `reveal()`, so that every place that shows a secret can be found by that name.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """Return the secret itself."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")
