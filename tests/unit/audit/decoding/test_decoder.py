from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unit.audit.decoding.laws import PLACE, scan_is_decoding_of_each_line
from unit.audit.decoding.lines import BROKEN, LINES

from jitvault.audit.classify import observe
from jitvault.audit.decoding import decoder as decoding
from jitvault.audit.decoding.decoder import Scanned, Undecodable, decode, scan
from jitvault.audit.entry import Entry
from jitvault.audit.observation import Kind, Observation

PLAIN = b'{"time":"","type":"request"}'
NONCE = "hmac-sha256:" + "5" * 64
CANARY: dict[str, Any] = {
    "time": "2026-11-24T15:43:07.034043907Z",
    "type": "response",
    "auth": {"accessor": "hmac-sha256:aa", "policies": ["jitvault-worker"]},
    "request": {"id": "r-1", "operation": "update", "path": "sys/audit-hash/jitvault", "data": {"input": NONCE}},
    "response": {"data": {"hash": "hmac-sha256:x"}},
}
OTHERS = {"accessor": "hmac-sha256:cc", "policies": ["app"]}
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
        {"time": 1779637387},
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


@pytest.mark.parametrize("value", [b"1e999", b"9" * 400, b"[" * 9_000 + b"]" * 9_000, b'{"\xff":1}'], ids=len)
def test_what_a_client_puts_where_nobody_looks_makes_no_gap(value: bytes) -> None:
    # else an agent could keep its own revocation from ever being confirmed
    raw = line(request={"path": "sys/leases/revoke/a", "data": {"a": "HERE"}}).replace(b'"HERE"', value)
    found = decode(raw, PLACE)
    assert found is not None
    assert (found.kind, found.subject) == (Kind.LEASE_REVOKED, "a")


@pytest.mark.parametrize("field", [{"time": "yesterday"}, {"response": {"data": []}}, {"response": 5}], ids=str)
def test_a_line_that_cannot_matter_is_held_to_what_says_so(field: dict[str, Any]) -> None:
    assert decode(line(request={"path": "kv/data/app"}, auth=OTHERS, **field), PLACE) is None
    undecodable(line(**field))


@pytest.mark.parametrize(
    "changes", [{"type": "x"}, {"time": None}, {"request": {"path": 5}}, {"auth": {"policies": "x"}}, {"error": 1}]
)
def test_a_line_that_cannot_matter_has_a_time_and_a_type(changes: dict[str, Any]) -> None:
    undecodable(line(**{"request": {"path": "kv/data/app"}, "auth": OTHERS, **changes}))


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


# -- many lines at once -----------------------------------------------------------------------------------


@given(st.lists(LINES, max_size=12))
def test_a_scan_of_whole_entries_finds_what_each_line_says(lines: list[bytes]) -> None:
    scan_is_decoding_of_each_line(b"".join(raw + b"\n" for raw in lines))


@given(st.lists(LINES | BROKEN, max_size=12), st.sampled_from([b"\n", b"\n", b"\r\n", b"", b" "]))
@example([b"", b"{} {}"], b"\n")
@example([PLAIN + b" " + PLAIN, b"", PLAIN], b"\n")
@example([PLAIN[:-1] + b',"a":', b"{}}", PLAIN + b" " + PLAIN, PLAIN], b"\n")
@example([b"@cee: " + PLAIN, b"@cee: " + PLAIN, PLAIN], b"\n")
@example([PLAIN, b"@cee: " + PLAIN, PLAIN], b"\n")
def test_a_scan_ends_at_the_first_line_that_is_bad(lines: list[bytes], end: bytes) -> None:
    scan_is_decoding_of_each_line(b"\n".join(lines) + end)


@given(st.binary(max_size=300))
def test_a_scan_of_any_bytes_goes_on(chunk: bytes) -> None:
    found = scan_is_decoding_of_each_line(chunk)
    assert found.bad or found.consumed == len(chunk)
    assert 0 < found.consumed <= len(chunk) or not chunk


@given(LINES)
def test_a_line_that_is_not_decoded_in_full_would_say_nothing(raw: bytes) -> None:
    try:
        entry = msgspec.json.decode(raw, type=Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    if entry.type not in ("request", "response"):
        # no audit entry, whatever else it says
        return
    said = observe(entry, line=hashlib.sha256(raw).hexdigest(), place=PLACE)
    assert decode(raw, PLACE) == said


def test_a_scan_takes_whole_chunks_of_ordinary_lines_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(decoding, "_scan_by_line")
    other = line(request={"path": "kv/data/app"}, auth=OTHERS)
    chunk = b"".join(raw + b"\n" for raw in (other, line(), other, line(), other))
    found = scan(chunk, PLACE)
    assert (found.lines, found.consumed, found.bad) == (5, len(chunk), None)
    assert [o.place.offset for o in found.observations] == [len(other) + 1, 2 * len(other) + len(line()) + 3]
    assert {o.line for o in found.observations} == {hashlib.sha256(line() + b"\n").hexdigest()}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"request": {"path": "sys/leases/revoke/a"}}, Kind.LEASE_REVOKED),
        ({"request": {"path": "database/config/a"}}, Kind.HAZARD),
        ({"auth": {**OTHERS, "policies": ["app", "jitvault-access-1"]}}, Kind.USED),
        ({"request": {"path": "kv/data/app", "headers": {"x-jitvault-op": ["op"]}}}, Kind.OWN),
        ({"auth": None, "error": "permission denied", "request": {"client_token": "hmac-sha256:7a"}}, Kind.REFUSED),
    ],
)
def test_each_reason_to_decode_a_line_is_seen_among_others(
    changes: dict[str, Any], kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(decoding, "_scan_by_line")
    other = {"request": {"path": "kv/data/app"}, "auth": OTHERS}
    chunk = b"".join(raw + b"\n" for raw in (line(**other), line(**{**other, **changes}), line(**other)))
    assert [o.kind for o in scan(chunk, PLACE).observations] == [kind]


@pytest.mark.parametrize("prefix", [b"@cee: ", b"vault ", b" ", b"\t", b"x" * 64])
def test_the_prefix_of_a_device_is_passed_over(prefix: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = prefix + line() + b"\n"
    one = decode(raw, PLACE)
    assert one is not None
    assert one.line == hashlib.sha256(raw).hexdigest()
    monkeypatch.delattr(decoding, "_scan_by_line")
    places = [replace(PLACE, offset=n * len(raw)) for n in range(3)]
    assert scan(raw * 3, PLACE) == Scanned([replace(one, place=at) for at in places], 3, 3 * len(raw), None)


@pytest.mark.parametrize(("first", "second"), [(b"@cee: ", b""), (b"", b"@cee: "), (b"@cee: ", b"@ce@cee: ")])
def test_another_prefix_than_the_line_before_is_bad(first: bytes, second: bytes) -> None:
    # a line that was torn in its prefix leaves such a thing
    found = scan(first + line() + b"\n" + second + line() + b"\n", PLACE)
    assert (found.lines, len(found.observations), found.bad) == (1, 1, "another prefix, or none")


@pytest.mark.parametrize("prefix", [b"x" * 65, b"\0", b"\xef\xbb\xbf", b"@cee: {", b"\r"])
def test_what_is_no_prefix(prefix: bytes) -> None:
    undecodable(prefix + line())
    assert scan(prefix + line() + b"\n", PLACE).bad


def test_an_empty_chunk_holds_nothing() -> None:
    assert scan(b"", PLACE) == Scanned([], 0, 0, None)


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b" \n", b"\0\n", b"\0" * 4096 + b"\n", b"null\n", b"[]\n"])
def test_a_line_without_an_entry_is_bad_wherever_it_stands(blank: bytes) -> None:
    whole = line() + b"\n"
    for before in (0, 1, 3):
        found = scan(whole * before + blank + whole, PLACE)
        assert (found.lines, found.consumed) == (before, before * len(whole) + len(blank))
        assert found.bad


def test_a_bad_line_is_told_from_the_ones_around_it() -> None:
    whole = line() + b"\n"
    torn = whole[:-40] + b"\n"
    chunk = whole + torn + whole
    first = scan(chunk, PLACE)
    assert (first.lines, len(first.observations), first.consumed) == (1, 1, len(whole + torn))
    rest = scan(chunk[first.consumed :], PLACE)
    assert (rest.lines, len(rest.observations), rest.bad) == (1, 1, None)


def test_what_was_learnt_about_paths_and_policies_is_bounded() -> None:
    answers = decoding._CachedAnswers(lambda about: about == "x", most=10)
    assert [answers["x"], answers["y"], answers["x"]] == [True, False, True]
    for n in range(1000):
        assert answers[str(n)] is False
        assert len(answers) <= 10
    assert answers["z" * 10_000] is False
    assert "z" * 10_000 not in answers


def test_list_responses_may_be_counts() -> None:
    found = decode(line(response={"data": {"keys": 12, "key_info": 12}}), PLACE)
    assert found is not None
    assert found.kind is Kind.CANARY


def test_a_line_of_another_namespace_is_nothing_of_ours() -> None:
    inside = line(request={**CANARY["request"], "namespace": {"id": "x", "path": "team/"}}) + b"\n"
    for namespace, seen in (("", 0), ("team", 1), ("team/", 1), ("other", 0)):
        assert len(scan(inside, PLACE, namespace=namespace).observations) == seen
        assert (decode(inside, PLACE, namespace=namespace) is not None) == bool(seen)
