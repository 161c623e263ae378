"""Check a receipt without trusting jitvault: its signature, and that the audit log has the lines that it rests on.

    bao read -format=json jitvault-transit/keys/jitvault-receipts > key.json
    jitvault report TASK --receipt receipt.json
    python verify_receipt.py receipt.json key.json "$JITVAULT_AUDIT_FILE"

Of each log the rotated ones beside it are read as well, compressed or not; of a directory all files. It uses the
standard library and `cryptography`, and nothing of jitvault. Exit code 0: everything is there.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def signed_payload(envelope: dict, keys: dict) -> dict:
    """The receipt inside a DSSE envelope, if one of Vault's key versions signed it."""
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    covered = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    for signature in envelope["signatures"]:
        version = signature["keyid"].rpartition(":v")[2]
        public = base64.b64decode(keys[version]["public_key"])
        Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(signature["sig"]), covered)
    if not envelope["signatures"]:
        raise InvalidSignature
    return json.loads(payload)


def named_lines(proof: dict) -> dict[str, str]:
    """Evidence names a line by the first 16 hex digits of the SHA-256 of its bytes, line feed included."""
    owners = [("task token", proof["token"]), *((lease["lease_id"], lease) for lease in proof["leases"])]
    return {
        found[1]: f"{name}, check {check['n']} ({check['name']})"
        for name, owner in owners
        for check in owner["checks"]
        if (found := re.match(r"line ([0-9a-f]{16}) ", check["evidence"]))
    }


def logs(names: str) -> Iterator[Path]:
    """The files that JITVAULT_AUDIT_FILE names, with what was rotated away of them."""
    for path in map(Path, names.split(os.pathsep)):
        beside = path.iterdir() if path.is_dir() else path.parent.glob(f"{path.stem}*")
        yield from sorted(file for file in beside if file.is_file())


def hashes(log: Path) -> set[str]:
    with log.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(log) if packed else log.open("rb") as lines:
        return {hashlib.sha256(line).hexdigest()[:16] for line in lines}


def main(receipt_file: str, key_file: str, audit_files: str) -> int:
    keys = json.loads(Path(key_file).read_text())["data"]["keys"]
    try:
        receipt = signed_payload(json.loads(Path(receipt_file).read_text()), keys)
    except (InvalidSignature, KeyError):
        print("the receipt is NOT signed by Vault's key")
        return 1
    wanted = named_lines(receipt["proof"])
    seen = {line for log in logs(audit_files) for line in hashes(log)}
    state = "sealed" if receipt["proof"]["confirmed"] else "closed WITHOUT PROOF"
    print(f"task {receipt['task']}: {receipt['proof']['end_reason']}, {state} at {receipt['sealed_at']}")
    for line, what in wanted.items():
        print(f"  {'found  ' if line in seen else 'MISSING'} {line}  {what}")
    there = len(wanted.keys() & seen)
    print(f"signature: valid; {there} of {len(wanted)} lines are in the log")
    return 0 if there == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
