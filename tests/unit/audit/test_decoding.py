from __future__ import annotations

import json
from datetime import UTC
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jitvault.audit.decoding import Undecodable, decode
from jitvault.domain.observation import Kind, Observation, Place

PLACE = Place("audit", 1, 0)
NONCE = "hmac-sha256:" + "5" * 64
CANARY: dict[str, Any] = {
    "time": "2026-11-24T15:43:07.034043907Z",
    "type": "response",
    "auth": {"accessor": "hmac-sha256:aa", "policies": ["jitvault-worker"]},
    "request": {"id": "r-1", "operation": "update", "path": "sys/audit-hash/jitvault", "data": {"input": NONCE}},
    "response": {"data": {"hash": "hmac-sha256:x"}},
}
PATHS = [
    "sys/audit-hash/jitvault",
    "auth/token/create/jitvault-15m",
    "sys/wrapping/unwrap",
    "cubbyhole/response",
    "sys/leases/revoke/x",
    "sys/leases/lookup",
    "auth/token/revoke-accessor",
    "database/creds/app",
    "sys/leases/tidy",
    "",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(PATHS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def total(raw: bytes) -> Observation | None:
    """What `decode` gives; anything but its three ways to end fails the test."""
    try:
        found = decode(raw, PLACE)
    except Undecodable:
        return None
    assert found is None or isinstance(found, Observation)
    if found is not None:
        # whoever orders lines by time compares only aware times
        assert found.at.tzinfo is UTC
    return found


def line(**changes: Any) -> bytes:
    return json.dumps({**CANARY, **changes}).encode()


def undecodable(raw: bytes) -> None:
    with pytest.raises(Undecodable):
        decode(raw, PLACE)


def test_an_audit_line_is_decoded() -> None:
    for raw in (line(), line() + b"\n", line() + b"\r\n", b" " + line()):
        found = total(raw)
        assert found is not None
        assert (found.kind, found.subject, found.place) == (Kind.CANARY, NONCE, PLACE)


def test_an_entry_that_is_nothing_of_ours_is_none() -> None:
    assert decode(line(request={"path": "kv/data/app"}), PLACE) is None


@given(st.binary(max_size=300))
@example(b"\xff\xfe{}")
def test_any_bytes_at_all_end_in_one_of_three_ways(raw: bytes) -> None:
    total(raw)


@given(st.data())
def test_a_line_with_any_bytes_replaced_ends_in_one_of_three_ways(data: st.DataObject) -> None:
    raw = bytearray(line())
    begin = data.draw(st.integers(0, len(raw) - 1))
    raw[begin : begin + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    total(bytes(raw))


@given(JSON)
def test_any_json_ends_in_one_of_three_ways(value: object) -> None:
    total(json.dumps(value).encode())


@given(
    st.fixed_dictionaries(
        {"time": st.just(CANARY["time"]), "type": st.sampled_from(["request", "response"])},
        optional={
            "auth": JSON | st.fixed_dictionaries({}, optional={"accessor": JSON, "policies": JSON, "metadata": JSON}),
            "request": JSON
            | st.fixed_dictionaries(
                {"path": st.sampled_from(PATHS) | st.text()}, optional={"data": JSON, "headers": JSON, "id": JSON}
            ),
            "response": JSON
            | st.fixed_dictionaries(
                {}, optional={"data": JSON, "auth": JSON, "secret": JSON, "wrap_info": JSON, "warnings": JSON}
            ),
            "error": JSON,
        },
    )
)
def test_any_entry_of_any_shape_ends_in_one_of_three_ways(value: object) -> None:
    total(json.dumps(value).encode())


@given(JSON)
def test_any_time_ends_in_one_of_three_ways(time: object) -> None:
    total(line(time=time))


@pytest.mark.parametrize("end", range(0, len(line()), 7))
def test_a_line_cut_off_anywhere_is_undecodable(end: int) -> None:
    undecodable(line()[:end])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b"\0",
        b"\0" * 4096,
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"{}{}",
        line() + line(),
        line() + b"\0",
        line(type="request ")[:-1] + b"x}",
        b"\xef\xbb\xbf" + line(),
        line()[:-1] + b',"error":"\xff"}',
        line()[:-1] + b',"error":"\xed\xa0\x80"}',
        line()[:-1] + b',"error":"\\ud800"}',
        line()[:-1] + b',"error":"\0"}',
    ],
)
def test_what_is_no_audit_line_is_undecodable(raw: bytes) -> None:
    undecodable(raw)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "denied"},
        {"type": ""},
        {"type": None},
        {"type": "Response"},
        {"time": None},
        {"time": "yesterday"},
        # a time without a zone says nothing, and one that UTC cannot hold is none
        {"time": "2026-11-24T15:43:07"},
        {"time": "0001-01-01T00:00:00+14:00"},
        {"time": "9999-12-31T23:59:59-14:00"},
        {"time": 1e300},
        {"time": 10**40},
        {"request": None},
        {"request": {"path": 5}},
        {"request": {"path": "x", "headers": {"x-jitvault-op": "text"}}},
        {"auth": {"policies": "jitvault-access-0"}},
        {"response": {"data": []}},
        {"error": {"text": "x"}},
    ],
    ids=str,
)
def test_an_entry_of_another_shape_is_undecodable(changes: dict[str, Any]) -> None:
    undecodable(line(**changes))


@pytest.mark.parametrize("depth", [500, 5_000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_never_goes_further(depth: int, opening: bytes, closing: bytes) -> None:
    deep = opening * depth + b"1" + closing * depth
    total(deep)
    total(b'{"time":"2026-11-24T15:43:07Z","type":"request","request":{"path":"x","data":{"a":' + deep + b"}}}")
    # in a key that nobody reads it is skipped or refused, never a crash
    total(line()[:-1] + b',"unknown":' + deep + b"}")


@pytest.mark.parametrize(
    "number", [b"9" * 400, b"9" * 10_000, b"1e999", b"-1e999", b"1e-999", b"-0", b"0." + b"1" * 9000]
)
def test_huge_numbers_never_go_further(number: bytes) -> None:
    total(line()[:-1] + b',"unknown":' + number + b"}")
    total(b'{"time":"2026-11-24T15:43:07Z","type":"request","request":{"path":"x","data":{"a":' + number + b"}}}")
    total(b'{"time":' + number + b',"type":"request"}')


def test_escaped_nuls_are_text() -> None:
    found = total(line(request={"path": "sys/leases/revoke/a\0b", "data": {}}))
    assert found is not None
    assert found.subject == "a\0b"


def test_of_a_key_that_stands_twice_the_last_counts_as_in_any_other_reader() -> None:
    raw = line()[:-1] + b',"type":"request"}'
    found = total(raw)
    assert found is not None
    assert found.closing is (json.loads(raw)["type"] == "response")


def test_unknown_keys_are_ignored() -> None:
    found = total(line(forwarded_from="node-2", supplemental_audit_data={"a": [1, {"b": None}]}))
    assert found is not None
    assert found.kind is Kind.CANARY


def test_the_error_says_nothing_of_the_line() -> None:
    with pytest.raises(Undecodable) as caught:
        decode(b'{"time":"hvs.secret"}', PLACE)
    assert "secret" not in str(caught.value)
