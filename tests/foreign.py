"""Check a receipt of real servers with tools that know nothing of jitvault: cosign and openssl.

`make foreign` runs this. cosign is built from its Go module into build/foreign, which takes minutes the first time;
where it cannot be built, that part is skipped and said. Each tool has to refuse a receipt with one other byte as well.
`python -m foreign build` only builds it, and `python -m foreign check` takes what is built by then.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from commands import EXAMPLE, SPEC, Quick
from dsse import pae
from ledgers import address, bind, new_place

from jitvault.sandbox.servers import running_servers
from jitvault.sandbox.world import World, env, provisioned

COSIGN = "github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5"
TYPE = "https://jitvault.dev/receipt/v1"
_BUILT_WITHIN_S = 2700
_SEALED_WITHIN_S = 120
# another version is another place: what is built stays until it is deleted
_BUILT = Path(__file__).parents[1] / "build" / "foreign" / COSIGN.rpartition("@")[2]
_HEAD = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA{}\n-----END PUBLIC KEY-----\n"


def make_receipt(world: World, home: Path) -> None:
    """Run a task to its seal, and write its receipt, its revision and the key that signed it."""
    place = new_place(world.servers.postgres, home / "ledger.db")
    bind(place, world.installation)
    cli = Quick(env(world, address(place), EXAMPLE), home)
    spec = home / "foreign-orders.yaml"
    terms = {"criticality": "low", "template": "postgres-readonly", "window": "15m", "intent": "Count.", "more": ""}
    spec.write_text(SPEC.format(id=spec.stem, **terms))
    granted = cli("operator", "grant", spec, "--json")
    cli("agent", "unwrap", "-", "--read", given=granted.stdout)
    cli("operator", "complete", spec.stem)
    given_up = time.monotonic() + _SEALED_WITHIN_S
    while cli("operator", "status", spec.stem, "--json").json["state"] != "sealed":
        assert time.monotonic() < given_up, "the task was not sealed"
    cli("auditor", "report", spec.stem, "--receipt", home / "receipt.json", "--out", home / "report.json")
    cli("auditor", "export-keys", "--worker", "worker", "--out", home / "trust.json")
    trust = json.loads((home / "trust.json").read_text())
    (home / "receipts.pem").write_text(_HEAD.format(trust["receipt_keys"][0]["public_key"]))


def unpack(home: Path, *, forged: bool) -> None:
    """Write what the tools take: the revision, the bytes that were signed, and the signature."""
    envelope = json.loads((home / "receipt.json").read_text())
    payload = base64.b64decode(envelope["payload"])
    (home / "revision.json").write_bytes(base64.b64decode(json.loads(payload)["subject"][0]["content"]))
    if forged:
        payload = payload.replace(b'"revision":1', b'"revision":2')
        envelope["payload"] = base64.b64encode(payload).decode()
    (home / "signed.bin").write_bytes(pae(payload, envelope["payloadType"]))
    (home / "signature.bin").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    (home / "envelope.json").write_text(json.dumps(envelope))


def openssl_accepts(home: Path) -> bool:
    names = ("-pubin", "-inkey", "receipts.pem", "-in", "signed.bin", "-sigfile", "signature.bin")
    return _runs(["openssl", "pkeyutl", "-verify", "-rawin", *names], home)


def cosign_accepts(home: Path, cosign: Path, *, blob: str = "revision.json") -> bool:
    how = ("--key", "receipts.pem", "--signature", "envelope.json", "--type", TYPE, "--insecure-ignore-tlog")
    return _runs([str(cosign), "verify-blob-attestation", *how, blob], home)


def _runs(command: list[str], home: Path) -> bool:
    # with a root of its own cosign does not ask the network for one
    alone = {**os.environ, "HOME": str(home), "SIGSTORE_ROOT_FILE": str(home / "receipts.pem")}
    done = subprocess.run(command, cwd=home, env=alone, capture_output=True, text=True, timeout=120, check=False)
    print(f"  {' '.join(command[:3])}: {(done.stdout + done.stderr).strip().splitlines()[-1:]}")
    return done.returncode == 0


def build_cosign() -> None:
    """Build cosign from its module. Says so where Go is missing, or does not reach or build it."""
    _BUILT.mkdir(parents=True, exist_ok=True)
    place = {**os.environ, "GOBIN": str(_BUILT)}
    try:
        subprocess.run(["go", "install", COSIGN], cwd=_BUILT, env=place, timeout=_BUILT_WITHIN_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"cosign could not be built: {error}")


def main(part: str) -> int:
    cosign, failed = _BUILT / "cosign", list[str]()
    if part != "check" and not cosign.exists():
        build_cosign()
    if part == "build":
        return 0
    if not (has_cosign := cosign.exists()):
        print("SKIPPED: cosign, which is not built")
    with running_servers() as servers, tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        make_receipt(provisioned(servers), home)
        for forged in (False, True):
            unpack(home, forged=forged)
            if openssl_accepts(home) is forged:
                failed.append(f"openssl, {forged=}")
            if has_cosign and cosign_accepts(home, cosign) is forged:
                failed.append(f"cosign, {forged=}")
        unpack(home, forged=False)
        if has_cosign and cosign_accepts(home, cosign, blob="signed.bin"):
            failed.append("cosign, with another blob than the revision")
    print("\n".join(f"FAILED: {one}" for one in failed) or "accepted, and refused with another byte")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main("".join(sys.argv[1:])))
