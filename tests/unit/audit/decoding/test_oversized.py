from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unit.audit.decoding.laws import PLACE, decoded, outcome, skimming_is_decoding
from unit.audit.decoding.lines import BROKEN, LINES

from jitvault.audit.decoding.decoder import Undecodable, decode_skimmed
from jitvault.audit.decoding.json_tokens import MAX_DEPTH
from jitvault.audit.decoding.oversized import MAX_PATH, MAX_TEXT, skim
from jitvault.audit.observation import Kind, Observation

LEASE = "pki/issue/app/afiJklUfE3Mdm2cqvTtmwdss"
TASK_TOKEN = {"accessor": "hmac-sha256:bb", "policies": ["jitvault-access-1"]}
ISSUED: dict[str, Any] = {
    "time": "2026-11-24T15:43:07.034043907Z",
    "type": "response",
    "auth": TASK_TOKEN,
    "request": {"id": "r-1", "operation": "update", "path": "pki/issue/app", "data": {"KEY": 1}},
    "response": {"secret": {"lease_id": LEASE}},
}
# what stands in a long string, and is there as Go's encoder writes it
UNITS = [
    b"a",
    b"\\u003c",
    b'\\"',
    b"\\\\",
    b'{\\"a\\":\\"\\u003c\\"}',
    "ü€".encode(),
    b"\\ud83d\\ude00",
    b"\\\\\\n\x7f/",
]


def line(**changes: Any) -> bytes:
    return json.dumps({**ISSUED, **changes}).encode() + b"\n"


def undecodable(raw: bytes) -> None:
    assert outcome(raw) == decoded(raw) == "undecodable"


# -- the same as decoding ---------------------------------------------------------------------------------


@given(LINES, st.lists(st.integers(0), max_size=8))
def test_skimming_gives_what_decoding_gives(raw: bytes, ends: list[int]) -> None:
    skimming_is_decoding(raw + b"\n", ends)


@given(LINES)
def test_it_does_so_byte_by_byte(raw: bytes) -> None:
    skimming_is_decoding(raw, list(range(len(raw))))


@given(BROKEN, st.lists(st.integers(0), max_size=4))
@example(b'{"time":"x","type":"request","a":"\\ud800"}', [])
@example(b'{"time":"x","type":"request","a":"\\ud800\\u0041"}', [])
@example(b'{"time":"x","type":"request","a":"\xff"}', [])
@example(b'{"time":"x","type":"request","a":0x1}', [])
@example(b'{"time":"x","type":"request","request":{"id":"\xff"}}', [])
@example(b'{"time":"x","type":"request","request":{"id":"\xff","path":"sys/audit-hash/x"}}', [])
def test_what_is_broken_for_one_is_broken_for_the_other(raw: bytes, ends: list[int]) -> None:
    skimming_is_decoding(raw, ends)


@given(st.binary(max_size=100), st.integers(0))
def test_any_bytes_at_all_end_in_one_of_three_ways(raw: bytes, end: int) -> None:
    skimming_is_decoding(raw, [end])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.lists(st.integers(0), max_size=8),
)
def test_values_of_every_kind_are_passed_over(value: object, ends: list[int]) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
        raw = line(unknown="HERE").replace(b'"HERE"', text.encode())
        skimming_is_decoding(raw, ends)


@pytest.mark.parametrize("end", range(0, len(line()) - 1, 5))
def test_a_line_cut_off_anywhere_is_undecodable(end: int) -> None:
    undecodable(line()[:end])


@pytest.mark.parametrize(
    "value",
    b'01 -01 - 1. .5 1e 1e+ +1 NaN Infinity True nul tru nullx truex 0x1 1_0 -a [1,] [,1] [1 {"a":1,} {"a"} {"a":}'
    b' {a:1} {1:1} [1]] [1}  "\\x" "\\u12g4" "\\u00" "\\udc00" "\\ud800\\ud800" "\x1f" "\\n\x1f" "\0" " "\\"'.split(
        b" "
    ),
)
def test_what_is_no_json_is_undecodable_wherever_it_stands(value: bytes) -> None:
    for raw in (line(unknown="HERE"), line(unknown=[0, "HERE", 0]), line(request={"path": "x", "data": {"a": "HERE"}})):
        undecodable(raw.replace(b'"HERE"', value))


@pytest.mark.parametrize(
    "value", [b"1e999", b"-1e999", b"9" * 10_000, b"0." + b"1" * 5000, b"202.0", b"2.02e2", b"20200e-2", b"[202]"]
)
def test_numbers_of_any_size_are_numbers(value: bytes) -> None:
    raw = line(response={"data": {"http_status_code": "HERE"}}).replace(b'"HERE"', value)
    for ends in ([], list(range(len(raw))), [len(raw) // 2]):
        skimming_is_decoding(raw, ends)
    assert isinstance(outcome(raw), Observation)


def test_a_number_is_passed_over_in_little_memory() -> None:
    for digits in (b"1", b"1.", b"-0.0e"):
        raw = iter([line(unknown="HERE").replace(b'"HERE"}\n', digits), *[b"7" * 2**18] * 40, b"}\n"])
        assert kept(raw).subject == LEASE
    with pytest.raises(Undecodable):
        skim(iter([line(unknown="HERE").replace(b'"HERE"}\n', b"1"), *[b"e5" * 2**17] * 4, b"}\n"]))


# -- bounds -----------------------------------------------------------------------------------------------


def huge(unit: bytes, size: int, where: bytes = b'"KEY"', quote: bytes = b'"') -> Iterator[bytes]:
    """A line with `size` bytes of `unit` in the place of a key."""
    before, after = line().split(where)
    yield before + quote
    piece = unit * (2**18 // len(unit))
    for _ in range(size // len(piece)):
        yield piece
    yield quote + after


def kept(chunks: Iterator[bytes]) -> Observation:
    found = decode_skimmed(skim(chunks), PLACE).observation
    assert found is not None
    return found


def lease_id_of(reduced: bytes) -> str:
    return str(json.loads(reduced)["response"]["secret"]["lease_id"])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit[:6])
def test_a_line_with_a_key_of_many_megabytes_still_shows_its_lease(unit: bytes) -> None:
    # a 4 MB key makes a response line of 48 MB
    tracemalloc.start()
    try:
        found = kept(huge(unit, 12 * 2**20))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.kind, found.subject) == (Kind.LEASE_ISSUED, LEASE)
    assert most < 10 * 2**20


@pytest.mark.thorough
def test_a_line_of_400_megabytes_is_read_like_any_other() -> None:
    tracemalloc.start()
    try:
        skimmed = skim(huge(b"a", 400 * 10**6))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    found = decode_skimmed(skimmed, PLACE).observation
    assert found is not None
    assert (found.subject, skimmed.length > 399 * 10**6) == (LEASE, True)
    assert most < 10 * 2**20


@pytest.mark.thorough
def test_48_megabytes_in_one_piece_are_not_copied() -> None:
    raw = b"".join(huge(b"\\u003c", 48 * 2**20))
    tracemalloc.start()
    try:
        found = kept(iter([raw]))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.subject == LEASE
    assert most < 10 * 2**20


@pytest.mark.parametrize(
    "element", [b"0", b'"abc"', b'{"a":1}', b"[]", b"[[0],[0]]", b'{"b":{"c":[1, null]}}', b'[[[["x"]]]]'], ids=str
)
def test_many_small_values_are_passed_over(element: bytes) -> None:
    before, after = line(unknown=["HERE"]).split(b'"HERE"')
    tracemalloc.start()
    try:
        found = kept(iter([before, *[(element + b",") * (2**16 // len(element))] * 2, b"0" + after]))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.subject == LEASE
    assert most < 10 * 2**20


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[[[{"a":0,"b":', b"}]]]")])
def test_nesting_is_passed_over_up_to_a_bound(opening: bytes, closing: bytes) -> None:
    levels = opening.count(b"[") + opening.count(b"{")
    for times, well in ((12_000 // levels, True), (MAX_DEPTH // levels + 1, False)):
        raw = line(unknown="HERE").replace(b'"HERE"', opening * times + b"1" + closing * times)
        for ends in ([], [len(raw) // 2]):
            assert (outcome(raw, ends) == "undecodable") is not well
        assert outcome(raw) == decoded(raw) or not well


def test_what_is_never_closed_stops_at_the_bound() -> None:
    with pytest.raises(Undecodable, match="deep"):
        skim(iter([line(unknown="HERE").replace(b'"HERE"}\n', b""), *[b"[" * 2**16] * 10**6]))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit[:6])
def test_a_text_that_is_cut_is_no_other_valid_one(unit: bytes) -> None:
    units = 2 * MAX_TEXT // len(unit)
    whole = json.loads(b'"' + unit * units + b'"')
    written = (unit * units, unit * units + b"b", unit * units + b"bb", unit * (1000 // len(unit)))
    lines = [line(response={"secret": {"lease_id": "HERE"}}).replace(b"HERE", text) for text in written]
    subjects = [lease_id_of(skim(iter([raw])).reduced) for raw in lines]
    assert len(set(subjects)) == 4
    # what an observation has of them is shorter, and tells them apart as well
    assert len({o.subject for raw in lines if isinstance(o := outcome(raw), Observation)}) == 4
    assert whole.startswith(subjects[3])
    assert "cut" not in subjects[3]
    for cut in subjects[:3]:
        head, _, remark = cut.partition("… (cut: ")
        assert whole.startswith(head)
        assert MAX_TEXT / 7 <= len(head.encode()) <= MAX_TEXT
        assert "SHA-256" in remark


def test_a_text_just_within_the_bound_is_whole() -> None:
    for size in (MAX_TEXT - 1, MAX_TEXT):
        found = skim(iter([line(response={"secret": {"lease_id": "a" * size}})]))
        assert lease_id_of(found.reduced) == "a" * size


def test_a_path_is_whole_or_the_line_is_undecodable() -> None:
    # what makes it a hazard can stand anywhere in it
    path = "a" * 2**19 + "/config/x"
    somebody = {"accessor": "hmac-somebody", "policies": ["default"]}
    assert kept(iter([line(auth=somebody, request={"path": path, "operation": "update"})])).kind is Kind.HAZARD
    with pytest.raises(Undecodable, match="path"):
        skim(iter([line(request={"path": "a" * (MAX_PATH + 1)})]))


def test_the_longest_path_that_an_http_server_takes_is_kept_however_json_writes_it() -> None:
    # a client whom Vault refuses may send one, and a gap is not for anybody to make
    raw = line(request={"path": "p"}).replace(b'"p"', b'"' + b"\\u003c" * 2**20 + b'"')
    assert skim(iter([raw])).length == len(raw)


def test_a_list_is_whole_or_the_line_is_undecodable() -> None:
    # our own policy may be its last
    for more, well in ((500, True), (512, False)):
        raw = line(auth={"policies": ["x"] * more + TASK_TOKEN["policies"]})
        assert isinstance(outcome(raw), Observation) is well


@pytest.mark.thorough
def test_the_longest_lists_of_the_longest_texts_are_kept_in_little_memory() -> None:
    raw = line(auth={"policies": ["jitvault-access-1" + "x" * 2**17] * 500}, response={"warnings": ["ü" * 2**16] * 500})
    tracemalloc.start()
    try:
        found = kept(iter([raw]))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.kind is Kind.USED
    assert found == decoded(raw)
    assert most < 20 * 2**20


@pytest.mark.parametrize("key", [b'"time"', b'"\\u0074ime"', b'"t\\u0069me"'])
def test_keys_may_be_escaped(key: bytes) -> None:
    raw = line().replace(b'"time"', key)
    assert isinstance(outcome(raw), Observation)
    skimming_is_decoding(raw, [])


def test_of_a_key_that_stands_twice_the_last_counts() -> None:
    raw = line()[:-2] + b',"auth":{"policies":["root"]},"response":{}}\n'
    assert outcome(raw) is decoded(raw) is None
    again = raw[:-2] + b',"auth":' + json.dumps(TASK_TOKEN).encode() + b"}\n"
    found = outcome(again)
    assert found == decoded(again)
    assert isinstance(found, Observation)
    assert found.kind is Kind.USED


@pytest.mark.parametrize("prefix", [b"@cee: ", b" ", b"x" * 64])
def test_the_prefix_of_a_device_is_passed_over(prefix: bytes) -> None:
    raw = prefix + line()
    for ends in ([], [3], list(range(100))):
        assert isinstance(outcome(raw, ends), Observation)
        skimming_is_decoding(raw, ends)


@pytest.mark.parametrize("raw", [b"", b"\n", b"\0" * 4096, b"x" * 65 + line(), b"null", line() + line(), b"\xff" * 9])
def test_what_is_no_single_entry_is_undecodable(raw: bytes) -> None:
    undecodable(raw)


def test_nothing_but_what_is_needed_is_kept() -> None:
    raw = line(
        auth={**TASK_TOKEN, "metadata": {"a": "hvs.secret"}},
        unknown="hvs.secret",
        request={"data": {"x": "hvs.secret"}},
    )
    assert b"secret" not in skim(iter([raw])).reduced.replace(b'"secret":{"lease_id"', b"")
