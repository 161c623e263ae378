"""Whatever is signed or given as a file, the result is a verdict or a refusal, never a crash."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from forger import Forger, content, history
from hypothesis import given, settings
from hypothesis import strategies as st

from jitvault.errors import InvalidInput, SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.verification.keys import read_keys

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict):
        return [path, *(each for key in value for each in places(value[key], (*path, key)))]
    if isinstance(value, list):
        return [path, *(each for n, one in enumerate(value) for each in places(one, (*path, n)))]
    return [path]


def changed(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    place: Any = value
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = new
    return value


CONTENT_PLACES = [path for path in places(content()) if path]
HISTORY_PLACES = [path for path in places(history()) if path]


@settings(max_examples=60)
@given(path=st.sampled_from(CONTENT_PLACES), new=JSON)
def test_a_content_with_anything_anywhere_is_judged_or_refused(
    tmp_path_factory: Any, path: tuple[str | int, ...], new: Any
) -> None:
    forger = Forger(tmp_path_factory.getbasetemp())
    try:
        told = forger.receipt(lambda told: changed(told, path, new))
        forger.verify(told, forger.log())
    except (InvalidInput, SecurityFinding):
        pass


@settings(max_examples=60)
@given(path=st.sampled_from(HISTORY_PLACES), new=JSON)
def test_a_history_with_anything_anywhere_is_judged_or_refused(
    tmp_path_factory: Any, path: tuple[str | int, ...], new: Any
) -> None:
    forger = Forger(tmp_path_factory.getbasetemp())
    past = changed(history(), path, new)
    try:
        outcome = forger.verify(forger.receipt(), forger.log(), told=past).outcome
    except InvalidInput:
        return
    number = path[1] if len(path) > 1 and path[0] == "timeline" else None
    covered = isinstance(number, int) and number < content()["chain"]["events"]
    same = canonical_bytes(past) == canonical_bytes(history())
    is_in_chain = covered and len(path) > 2 and path[2] in ("seq", "at", "event", "body")
    assert outcome.holds or not same
    assert not is_in_chain or same or not outcome.holds


@settings(max_examples=200)
@given(data=st.binary(max_size=400) | JSON.map(lambda value: json.dumps({"data": {"keys": value}}).encode()))
def test_any_key_file_is_read_or_refused(data: bytes) -> None:
    with suppress(InvalidInput):
        assert read_keys(data)


@settings(max_examples=60)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_receipt_with_one_other_bit_is_refused(tmp_path_factory: Any, at: int, bit: int) -> None:
    forger = Forger(Path(tmp_path_factory.getbasetemp()))
    data = bytearray(forger.receipt())
    data[at % len(data)] ^= 1 << bit
    try:
        forger.verify(bytes(data))
    except (InvalidInput, SecurityFinding):
        return
    # only what no reader sees may differ, such as a key that is not there
    assert json.loads(data)["payload"] == json.loads(forger.receipt())["payload"]
