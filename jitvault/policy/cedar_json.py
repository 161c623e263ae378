"""What stands in a policy, in Cedar's JSON form.

The form is described at https://docs.cedarpolicy.com/policies/json-format.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def expressions(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield each expression, however deep."""
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


def entity_ids(value: object, kind: str) -> Iterator[str]:
    """Yield the id of every entity of a type, such as of `Group::"…"`, wherever it is."""
    for found in expressions(value):
        if found.get("type") == kind and isinstance(found.get("id"), str):
            yield found["id"]
