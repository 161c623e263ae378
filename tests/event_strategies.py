"""Bodies of events of every kind, drawn from the types that they have."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec.inspect as types
from hypothesis import strategies as st

from jitvault.formats.rfc3339 import rfc3339
from jitvault.model.event_bodies import BODIES
from jitvault.model.extension import Extension

_MOST = 2**53 - 1
"""The highest number of canonical JSON."""
_TEXT = st.text(max_size=8)
_TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds have none
_BODIES = {kind: types.type_info(body) for kind, body in BODIES.items()}


class Place(NamedTuple):
    """An object in a body that has a type: where it stands, its content, and the fields that it must have."""

    where: str
    content: dict[str, Any]
    required: list[str]


def bodies(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """The JSON of any body that an event of this kind can have."""
    return _values(_BODIES[kind])


def places(kind: str, body: dict[str, Any]) -> list[Place]:
    """The objects in a body whose fields have types, the body itself first."""
    return list(_places(_BODIES[kind], body, ""))


def _values(kind: types.Type) -> st.SearchStrategy[Any]:
    match kind:
        case types.StructType():
            return _objects(kind)
        case types.UnionType():
            return st.one_of(*map(_values, kind.types))
        case types.ListType() | types.VarTupleType():
            most = 2 if kind.max_length is None else kind.max_length
            return st.lists(_values(kind.item_type), min_size=kind.min_length or 0, max_size=most)
        case types.TupleType():
            return st.tuples(*map(_values, kind.item_types)).map(list)
        case types.DictType():
            return st.dictionaries(_TEXT, _values(kind.value_type), max_size=2)
    return _simple_values(kind)


def _simple_values(kind: types.Type) -> st.SearchStrategy[Any]:
    match kind:
        case types.EnumType():
            return st.sampled_from([member.value for member in kind.cls])
        case types.LiteralType():
            return st.sampled_from(list(kind.values))
        case types.IntType():
            return st.integers(-_MOST if kind.ge is None else kind.ge, _MOST if kind.le is None else kind.le)
        case types.StrType(pattern=str(pattern)):
            return st.from_regex(pattern, fullmatch=True)
        case types.StrType():
            return st.text(min_size=kind.min_length or 0, max_size=8)
        case types.DateTimeType():
            return _TIMES.map(rfc3339)
        case types.BytesType():
            return st.binary(max_size=8).map(lambda value: b64encode(value).decode())
        case types.BoolType():
            return st.booleans()
        case types.NoneType():
            return st.none()
    raise NotImplementedError(f"a body has a field of the type {kind}")


def _objects(kind: types.StructType) -> st.SearchStrategy[dict[str, Any]]:
    required = {each.encode_name: _values(each.type) for each in kind.fields if each.required}
    optional = {each.encode_name: _values(each.type) for each in kind.fields if not each.required}
    found = st.fixed_dictionaries(required, optional=optional)
    if kind.tag_field is not None:
        return found.map(lambda values: {kind.tag_field: kind.tag, **values})
    return found.map(_consistent) if kind.cls is Extension else found


def _consistent(extension: dict[str, Any]) -> dict[str, Any]:
    """An extension ends as long after the former deadline as it says."""
    seconds = extension["seconds"] % 10**8
    until = datetime.fromisoformat(extension["since"]) + timedelta(seconds=seconds)
    return {**extension, "seconds": seconds, "until": rfc3339(until)}


def _places(kind: types.Type, value: Any, where: str) -> Iterator[Place]:
    match kind:
        case types.StructType() if isinstance(value, dict) and value.get(kind.tag_field or "") == kind.tag:
            yield Place(where, value, [each.encode_name for each in kind.fields if each.required])
            for each in kind.fields:
                if each.encode_name in value:
                    yield from _places(each.type, value[each.encode_name], f"{where}.{each.encode_name}")
        case types.UnionType():
            for one in kind.types:
                yield from _places(one, value, where)
        case types.ListType() | types.VarTupleType() if isinstance(value, list):
            for n, item in enumerate(value):
                yield from _places(kind.item_type, item, f"{where}[{n}]")
