from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from dsse import pae
from hypothesis import given
from hypothesis import strategies as st

from jitvault.documents.signed import (
    DOCUMENT_TYPE,
    RECEIPT_TYPE,
    opened,
    payload_of,
    signed,
    signer_key,
    unsigned,
)
from jitvault.errors import SecurityFinding

KEY = signer_key("e-1")
PAYLOAD = {"kind": "Decision", "task": "t-1", "decision": "approve", "digest": "sha256:" + "a" * 64}


def public_of(key: Ed25519PrivateKey) -> str:
    """The public half as Vault's Transit engine gives it."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


FIRST, SECOND, STRANGER = (Ed25519PrivateKey.generate() for _ in range(3))
PUBLIC = {1: public_of(FIRST), 2: public_of(SECOND)}


def document(
    payload: dict[str, Any] = PAYLOAD,
    *,
    by: Ed25519PrivateKey = FIRST,
    key: str = KEY,
    version: int = 1,
    payload_type: str = DOCUMENT_TYPE,
) -> dict[str, Any]:
    envelope = unsigned(payload, payload_type)
    return signed(envelope, key=key, version=version, signature=by.sign(envelope.pae()))


def read(
    found: object, *, key: str = KEY, public: dict[int, str] = PUBLIC, payload_type: str = DOCUMENT_TYPE
) -> dict[str, Any]:
    return opened(found, key=key, public_keys=public, payload_type=payload_type)


def raw(payload: bytes, payload_type: str = DOCUMENT_TYPE) -> dict[str, Any]:
    """An honestly signed envelope around any bytes."""
    signature = FIRST.sign(pae(payload, payload_type))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"keyid": f"{KEY}:v1", "sig": base64.b64encode(signature).decode()}],
    }


def refused(found: object, **how: Any) -> str:
    with pytest.raises(SecurityFinding) as caught:
        read(found, **how)
    assert caught.value.exit_code == 12
    return str(caught.value)


def test_a_signed_document_opens() -> None:
    assert read(document()) == PAYLOAD
    assert read(json.loads(json.dumps(document()))) == PAYLOAD
    assert payload_of(document()) == PAYLOAD


def test_it_is_a_dsse_envelope_of_the_standard() -> None:
    # built here from the specification alone: both ways are the same signature
    canonical = json.dumps(PAYLOAD, sort_keys=True, separators=(",", ":")).encode()
    assert read(raw(canonical)) == PAYLOAD
    assert document()["signatures"] == raw(canonical)["signatures"]


def test_each_version_of_the_key_opens_what_it_signed() -> None:
    assert read(document(by=SECOND, version=2)) == PAYLOAD


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans() | st.none()))
def test_every_payload_comes_back(payload: dict[str, Any]) -> None:
    assert read(document(payload)) == payload


def test_another_key_is_refused() -> None:
    assert KEY in refused(document(by=STRANGER))
    refused(document(by=STRANGER), public={})
    refused(document(), public={1: public_of(STRANGER)})


def test_another_persons_document_is_refused_under_this_name() -> None:
    # validly signed by somebody else, under their own name or under this one
    theirs = document(by=STRANGER, key=signer_key("e-2"))
    assert read(theirs, key=signer_key("e-2"), public={1: public_of(STRANGER)}) == PAYLOAD
    refused(theirs)
    refused(document(), key=signer_key("e-2"))


def test_another_version_of_the_key_is_refused() -> None:
    refused(document(by=FIRST, version=2))
    refused(document(by=SECOND, version=1))
    refused(document(by=FIRST, version=3))
    # a version that Vault no longer has: its key was rotated away
    refused(document(by=FIRST, version=1), public={2: PUBLIC[2]})


def test_no_public_key_opens_nothing() -> None:
    refused(document(), public={})


def test_another_type_is_refused() -> None:
    # a receipt is never taken for a decision, and relabelling breaks the signature
    assert "is of type" in refused(document(payload_type=RECEIPT_TYPE))
    assert read(document(payload_type=RECEIPT_TYPE), payload_type=RECEIPT_TYPE) == PAYLOAD
    refused({**document(), "payloadType": RECEIPT_TYPE}, payload_type=RECEIPT_TYPE)


def test_a_forged_payload_is_refused() -> None:
    forged = {**document(), "payload": base64.b64encode(json.dumps({**PAYLOAD, "task": "t-2"}).encode()).decode()}
    refused(forged)
    swapped = {**document({**PAYLOAD, "decision": "deny"}), "signatures": document()["signatures"]}
    refused(swapped)


@given(st.integers(0, 63), st.integers(0, 7))
def test_one_flipped_bit_of_the_signature_is_refused(byte: int, bit: int) -> None:
    changed = document()
    signature = bytearray(base64.b64decode(changed["signatures"][0]["sig"]))
    signature[byte] ^= 1 << bit
    changed["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    refused(changed)


@pytest.mark.parametrize(
    "payload", [b"", b"null", b"[]", b'"x"', b"1", b"{", b"\xff", b"{}x", b"[" * 5000, b"9" * 5000]
)
def test_a_signed_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    refused(raw(payload))


@pytest.mark.parametrize(
    "key", ["", "x", "!!!!", base64.b64encode(b"short").decode(), "é", base64.b64encode(b"0" * 33).decode()]
)
def test_a_public_key_that_is_none_is_refused(key: str) -> None:
    refused(document(), public={1: key})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_any_json_at_all_is_refused_and_nothing_else_happens(value: object) -> None:
    refused(value)


@given(st.fixed_dictionaries({"payload": JSON, "payloadType": JSON, "signatures": JSON}))
def test_any_envelope_of_any_json_is_refused(value: object) -> None:
    refused(value)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in JSON data."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


@given(st.data(), JSON)
def test_a_document_with_any_part_replaced_is_refused_or_unchanged(data: st.DataObject, value: Any) -> None:
    changed = copy.deepcopy(document())
    place = data.draw(st.sampled_from([p for p in places(changed) if p]))
    part = changed
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    try:
        assert read(changed) == PAYLOAD
    except SecurityFinding:
        return
    # what still opens says the same: an unknown key beside the signature, never another payload
    assert changed["payload"] == document()["payload"]


@pytest.mark.parametrize("part", ["payload", "payloadType", "signatures"])
def test_a_missing_part_is_refused(part: str) -> None:
    found = document()
    del found[part]
    refused(found)


@pytest.mark.parametrize("depth", [100, 1_000, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    value: Any = []
    for _ in range(depth):
        value = [value]
    refused(value)
    refused({**document(), "signatures": value})
    refused({**document(), "payload": value})


def test_a_message_shows_nothing_of_the_document() -> None:
    assert "t-1" not in refused(document(by=STRANGER))


@pytest.mark.parametrize(
    "payload",
    [
        None,
        5,
        "",
        "!",
        base64.b64encode(b'{"a":' * 5000 + b"1" + b"}" * 5000).decode(),
        base64.b64encode(b"[]").decode(),
    ],
)
def test_an_own_document_with_any_payload_is_a_finding(payload: object) -> None:
    with pytest.raises(SecurityFinding):
        payload_of({"payload": payload})


@given(JSON)
def test_an_own_document_that_is_malformed_is_a_finding(value: object) -> None:
    with pytest.raises(SecurityFinding):
        payload_of(value)  # type: ignore[arg-type]
