"""Who signed a receipt, and files that are no receipt, no key or too much."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from forger import Forger, content, texts

from jitvault.documents.signed import DOCUMENT_TYPE, RECEIPT_TYPE
from jitvault.errors import InvalidInput, SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.verification.keys import read_keys
from jitvault.verification.signature import MAX_RECEIPT, open_envelope
from jitvault.verification.verify import verify

SUBJECT = PublicFormat.SubjectPublicKeyInfo


def vaults(**keys: dict[str, str]) -> bytes:
    return json.dumps({"data": {"keys": {name.removeprefix("v"): facts for name, facts in keys.items()}}}).encode()


def test_another_key_than_the_files_signed_it(forger: Forger, tmp_path: Path) -> None:
    with pytest.raises(SecurityFinding, match="the signature does not hold"):
        open_envelope(forger.receipt(), read_keys(Forger(tmp_path).pem))


def altered(text: str) -> str:
    envelope = json.loads(text)
    payload = envelope["payload"]
    envelope["payload"] = payload[:200] + ("A" if payload[200] != "A" else "B") + payload[201:]
    return json.dumps(envelope)


def with_signatures(*signatures: Any) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), "signatures": list(signatures)})


def twice(text: str) -> str:
    return json.dumps({**json.loads(text), "signatures": json.loads(text)["signatures"] * 2})


@pytest.mark.parametrize(
    ("edit", "kind", "says"),
    [
        (altered, SecurityFinding, "the signature does not hold"),
        (twice, SecurityFinding, "has 2 signatures"),
        (with_signatures(), SecurityFinding, "has 0 signatures"),
        (
            with_signatures({"keyid": "jitvault-signer-x:v1", "sig": "AA=="}),
            SecurityFinding,
            "not by jitvault-receipts",
        ),
        (with_signatures({"keyid": "jitvault-receipts:v1", "sig": "AA=="}), SecurityFinding, "does not hold"),
        (with_signatures({"keyid": "jitvault-receipts:v0", "sig": "AA=="}), SecurityFinding, "not by"),
        (with_signatures({"keyid": 7}), SecurityFinding, "not by"),
        (with_signatures("x"), InvalidInput, "no list of signatures"),
        (lambda text: text[:-1], InvalidInput, "it ends too early"),
        (lambda text: text[: len(text) // 2], InvalidInput, "it ends too early"),
        (lambda text: text[:3], InvalidInput, "it ends too early"),
        (lambda text: "", InvalidInput, "not whole JSON"),
        (lambda text: text + "x", InvalidInput, "not whole JSON"),
        (lambda text: text[:-1] + ',"payload":"e30="}', InvalidInput, "one key twice"),
        (lambda text: "[" * 100_000, InvalidInput, "cannot be read as JSON"),
        (lambda text: '{"a":NaN}', InvalidInput, "cannot be read as JSON"),
        (lambda text: '{"a":' + "9" * 5000 + "}", InvalidInput, "cannot be read as JSON"),
        (lambda text: '{"leases": []}', InvalidInput, "looks like a report"),
        (lambda text: '{"timeline": []}', InvalidInput, "looks like the output of `status"),
        (lambda text: "[]", InvalidInput, "no signed envelope"),
        (lambda text: " " * (MAX_RECEIPT + 1), InvalidInput, "larger than 64 MiB"),
    ],
)
def test_a_file_that_is_no_receipt_of_this_key_is_refused(
    forger: Forger, edit: Callable[[str], str], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        forger.verify(edit(forger.receipt().decode()).encode())


def test_a_document_of_another_kind_is_no_receipt(forger: Forger) -> None:
    envelope = forger.envelope(canonical_bytes(content()), kind=DOCUMENT_TYPE)
    with pytest.raises(InvalidInput, match="no receipt but"):
        forger.verify(json.dumps(envelope).encode())
    # neither is one that only says that it is a receipt
    disguised = {**envelope, "payloadType": RECEIPT_TYPE}
    with pytest.raises(SecurityFinding, match="does not hold"):
        forger.verify(json.dumps(disguised).encode())


def test_the_version_has_to_be_that_of_the_key(forger: Forger, tmp_path: Path) -> None:
    other = Forger(tmp_path)
    second = json.dumps(forger.envelope(canonical_bytes(content()), key_id="jitvault-receipts:v2")).encode()
    both = vaults(v1={"public_key": other.raw}, v2={"public_key": forger.raw})
    assert open_envelope(second, read_keys(both)).version == 2
    with pytest.raises(SecurityFinding, match="says version 2 of jitvault-receipts, and the key file has 1"):
        open_envelope(second, read_keys(vaults(v1={"public_key": forger.raw})))
    with pytest.raises(SecurityFinding, match="does not hold"):
        open_envelope(forger.receipt(), read_keys(both))
    named = b"jitvault-receipts:v2\n" + forger.pem
    assert open_envelope(second, read_keys(named)).key.version == 2
    with pytest.raises(SecurityFinding, match="and the key file has 2"):
        open_envelope(forger.receipt(), read_keys(named))
    # PEM alone has no version: any of its keys may be it
    assert open_envelope(second, read_keys(other.pem + forger.pem)).key.version is None


def test_a_key_that_was_made_after_the_seal_signed_no_honest_receipt(forger: Forger) -> None:
    late = vaults(v1={"public_key": forger.raw, "creation_time": "2099-01-01T00:00:00.123456789Z"})
    found = verify(forger.receipt(), read_keys(late), history=None, files=[])
    assert any("after the receipt was sealed" in problem for problem in texts(found.outcome))


def rsa_key() -> bytes:
    return rsa.generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, SUBJECT)


def private_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lambda: b"", "no public key in it"),
        (lambda: b"-----BEGIN PUBLIC KEY-----\nMCow", "no public key in it"),
        (lambda: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be read"),
        (rsa_key, "no Ed25519 key"),
        (private_key, "has a private key"),
        (lambda: b"{}", "not Vault's answer"),
        (lambda: b'{"data":{"keys":{}}}', "has no key in it"),
        (lambda: vaults(v1={"public_key": "AAAA"}), "not Vault's answer"),
        (lambda: vaults(x={"public_key": "AAAA"}), "not Vault's answer"),
        (lambda: b'{"a":' * 100_000, "not Vault's answer"),
    ],
)
def test_a_file_without_a_key_of_receipts_is_refused(data: Callable[[], bytes], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_keys(data())
