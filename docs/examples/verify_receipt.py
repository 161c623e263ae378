"""Check a receipt without trusting jitvault: its signature, and that the audit log has the lines that it names.

Each line has to be about the task's own token or lease: a thief of the worker's token can sign any receipt, and can
have it name any line of the log. If the audit device was created again in between, later lines name the task's token by
another HMAC; they are reported as another token's.

    bao read -format=json jitvault-transit/keys/jitvault-receipts > key.json    # or `vault read …`
    jitvault report TASK --receipt receipt.json
    python verify_receipt.py receipt.json key.json "$JITVAULT_AUDIT_FILE"

Rotated files beside each log are read as well, compressed or not; in a directory all files. The script uses the
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

TYPE = "application/vnd.jitvault.receipt+json"
ISSUED, REVOKED, GONE = 1, 2, 3
LAST = "task token"


def signed_payload(envelope: dict, keys: dict) -> dict:
    """The receipt inside a DSSE envelope, if one of Vault's key versions signed it as a receipt."""
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    covered = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    for signature in envelope["signatures"]:
        version = signature["keyid"].rpartition(":v")[2]
        public = base64.b64decode(keys[version]["public_key"])
        Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(signature["sig"]), covered)
    if not envelope["signatures"] or envelope["payloadType"] != TYPE:
        raise InvalidSignature
    return json.loads(payload)


def credentials(proof: dict) -> dict[str, dict]:
    """Each token and lease of the task by a name; a lease has its id."""
    earlier = {f"earlier token {n}": token for n, token in enumerate(proof.get("earlier_tokens", ()), 1)}
    return {LAST: proof["token"], **earlier, **{lease["lease_id"]: lease for lease in proof["leases"]}}


def named_lines(proof: dict) -> dict[str, tuple[str, int, str]]:
    """The credential, number and name of the check that rests on each line.

    Evidence names a line by the first 16 hex digits of the SHA-256 of its bytes, line feed included.
    """
    return {
        found[1]: (name, check["n"], check["name"])
        for name, owner in credentials(proof).items()
        for check in owner["checks"]
        if (found := re.match(r"line ([0-9a-f]{16}) ", check["evidence"]))
    }


def signed_facts(receipt: dict) -> list[str]:
    """Who asked and approved, for what, which access, and when it ended, each in one line.

    The receipt of an older worker has no names of approvers, no access and no end.
    """
    names = {one["entity"]: one["name"] for one in receipt.get("approvers", ())}
    approved = [f"{names.get(entity, 'entity')} ({entity})" for entity in receipt["approved_by"]]
    access = [f"{one['template']} {one['with']} at {one['path']}" for one in receipt.get("access", ())]
    said = [
        f"requester {receipt['requester']['name']}, agent {receipt['agent']['name']}, owner {receipt['owner']['name']}",
        f"approved by {', '.join(approved) or 'nobody'}",
        f"intent: {receipt['intent']}",
        *(f"access: {one}" for one in access),
        *(f"issued at {grant['issued_at']}" for grant in receipt["grants"][:1]),
    ]
    if ended := receipt.get("ended"):
        said.append(f"ended at {ended['at']} by {ended['name'] or 'the worker'}: {ended['note'] or ended['reason']}")
    # a name or an intent must not begin a line of its own
    return [line.encode("unicode_escape").decode() for line in said]


def not_shown(proof: dict, wanted: dict[str, tuple[str, int, str]]) -> list[str]:
    """The credentials that were issued and proven dead, and have no line that shows how they were issued."""
    made = {name for name, n, _ in wanted.values() if n == ISSUED}
    issued = [name for name, owner in credentials(proof).items() if owner["verdict"] != "never_issued"]
    return [name for name in issued if name not in made and proof["confirmed"]]


def is_about(entry: dict, lease: str, n: int, token: str) -> bool:
    """Whether a line is about the lease, or for no lease about the token with this accessor HMAC."""
    request, response = entry.get("request") or {}, entry.get("response") or {}
    data = request.get("data") or {}
    if lease and n == ISSUED:
        return (response.get("secret") or {}).get("lease_id") == lease
    if lease and n == REVOKED:
        return request["path"].endswith(lease)
    if lease or n not in (REVOKED, GONE):
        # a look-up names its lease by an HMAC
        return True
    return token in (data.get("accessor"), (entry.get("auth") or {}).get("accessor"))


def tasks_of(entries: list[dict], token: str) -> set[str]:
    """The tasks that Vault itself names beside the token with this accessor HMAC."""
    shown = [part for e in entries for part in (e.get("auth"), (e.get("response") or {}).get("auth")) if part]
    return {
        part["metadata"]["jitvault_task"] for part in shown if part.get("accessor") == token and part.get("metadata")
    }


def logs(names: str) -> Iterator[Path]:
    """The files that JITVAULT_AUDIT_FILE names, with what was rotated away of them."""
    for path in map(Path, names.split(os.pathsep)):
        beside = path.iterdir() if path.is_dir() else path.parent.glob(f"{path.stem}*")
        yield from sorted(file for file in beside if file.is_file())


def lines_of(log: Path) -> Iterator[bytes]:
    with log.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(log) if packed else log.open("rb") as lines:
        yield from lines


def main(receipt_file: str, key_file: str, audit_files: str) -> int:
    keys = json.loads(Path(key_file).read_text())["data"]["keys"]
    try:
        receipt = signed_payload(json.loads(Path(receipt_file).read_text()), keys)
    except (InvalidSignature, KeyError):
        print("this is NOT a receipt that Vault's key signed")
        return 1
    task, proof = receipt["task"], receipt["proof"]
    wanted = named_lines(proof)
    seen, of_tasks = {}, []
    for line in (line for log in logs(audit_files) for line in lines_of(log)):
        name = hashlib.sha256(line).hexdigest()[:16]
        if name in wanted:
            seen[name] = json.loads(line)
        if b'"jitvault_task"' in line:
            of_tasks.append(json.loads(line))
    state = "sealed" if proof["confirmed"] else "closed WITHOUT PROOF"
    print(f"task {task}: {proof['end_reason']}, {state} at {receipt['sealed_at']}")
    for line in signed_facts(receipt):
        print(f"  {line}")
    leases = {lease["lease_id"] for lease in proof["leases"]}
    tokens = {
        of: ((seen[name].get("response") or {}).get("wrap_info") or {}).get("wrapped_accessor", "")
        for name, (of, n, _) in wanted.items()
        if n == ISSUED and of not in leases and name in seen
    }
    good = 0
    for name, (of, n, check) in wanted.items():
        about = name in seen and is_about(seen[name], of if of in leases else "", n, tokens.get(of, ""))
        found = "MISSING" if name not in seen else "found" if about else "NOT ITS"
        good += found == "found"
        print(f"  {found:7} {name}  {of}, check {n} ({check})")
    problems = [f"no line shows how {name} was issued" for name in not_shown(proof, wanted)]
    given = {token: tasks_of(of_tasks, token) for token in tokens.values()}
    if proof["task_id"] != task or any(tasks - {task} for tasks in given.values()):
        problems.append("Vault gave a token of it to another task")
    if leases and not any(given.values()):
        problems.append("Vault gave no token to this task that the leases were read with")
    for said in proof.get("not_proven", ()):
        print(f"  not proven: {said}")
    for problem in problems:
        print(f"  WRONG   {problem}")
    print(f"signature: valid; {good} of {len(wanted)} lines are in the log and about this task")
    return 0 if good == len(wanted) and not problems else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
