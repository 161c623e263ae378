"""Convert decoded JSON to typed values, from any thread.

msgspec works a class out at the first conversion to it, and lets other threads see the result before it is complete. A
thread that converts to the class at that moment reads a null pointer, and the process dies (msgspec 0.22, seen). So
nothing else calls `msgspec.convert`: a converter is made when its module is imported, which one thread does, and works
the class out then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")


def converter(kind: type[T]) -> Callable[[Any], T]:
    """Return the function that converts a value to `kind`.

    The function raises msgspec.ValidationError for a value of another form, and RecursionError for one that nests too
    deeply.
    """
    msgspec.json.Decoder(kind)
    return partial(msgspec.convert, type=kind)


def place_of(error: msgspec.ValidationError) -> str:
    """Return the place of what is wrong as a JSON pointer, also of a field that is missing or unknown.

    msgspec writes it as "... field `name` - at `$.list[0].inner`"; a key that a mapping may have at will is a `*`.
    """
    what, _, where = str(error).partition(" - at `$")
    path = where.removesuffix("`").replace("[...]", ".*").replace("[", ".").replace("]", "")
    keys = [key for key in path.split(".") if key]
    if "field `" in what:
        keys.append(what.partition("field `")[2].removesuffix("`"))
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def as_json(value: Struct) -> dict[str, Any]:
    """Return a Struct as the JSON data that is read back from what was written of it."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    return found
