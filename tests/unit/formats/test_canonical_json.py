from __future__ import annotations

import hashlib
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from jitvault.formats.canonical_json import canonical_bytes, digest_of, sha256_hex

EXACT = 2**53 - 1
NUMBERS = st.integers(-EXACT, EXACT) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)


def turned(value: Any) -> Any:
    """The same JSON data with the keys of every object the other way round."""
    if isinstance(value, dict):
        return {key: turned(item) for key, item in reversed(value.items())}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(OBJECTS)
def test_the_order_of_keys_changes_no_digest(value: dict[str, Any]) -> None:
    assert digest_of(turned(value)) == digest_of(value)


@given(OBJECTS, st.text(), st.integers(0, 9), st.integers(0, 9))
def test_another_value_has_another_digest(value: dict[str, Any], key: str, one: int, other: int) -> None:
    assert (digest_of({**value, key: one}) == digest_of({**value, key: other})) == (one == other)


@given(OBJECTS | st.dictionaries(st.sampled_from(["a", "B", "é", "\ufb33", "\U0001f600", "\x7f"]), JSON))
def test_no_data_is_encoded_in_another_way_than_by_rfc_8785(value: dict[str, Any]) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value)


def test_the_bytes_are_those_of_rfc_8785() -> None:
    value = {"b": [1.0, True, None, "é\n"], "a": {"\ufb33": 1, "\U0001f600": 2}, "": 1e21}
    # keys are ordered by UTF-16 code units, so the emoji's surrogate comes before U+FB33
    expected = '{"":1e+21,"a":{"\U0001f600":2,"\ufb33":1},"b":[1,true,null,"é\\n"]}'
    assert canonical_bytes(value) == expected.encode()
    assert digest_of(value) == "sha256:" + hashlib.sha256(expected.encode()).hexdigest()


def test_sha256_is_lower_case_hex() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("value", [2**53 + 1, float("nan"), float("inf"), "\ud800"])
def test_what_json_cannot_hold_exactly_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_bytes({"value": value})
