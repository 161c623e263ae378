"""Receipts as somebody could forge them, signed by a key of the test.

The statements, the history, the trust file and the audit lines were recorded on an OpenBao 2.7.2 by `make recorded`:
`read-orders` was extended past the life of its first token and so has two tokens, `fix-orders` was approved and
extended by two people, `serve-orders` had a certificate and ended by a freeze.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from dsse import pae

from jitvault.documents.receipt import Statement
from jitvault.documents.signed import DOCUMENT_TYPE, RECEIPT_KEY, RECEIPT_TYPE
from jitvault.documents.trust import read_trust_file
from jitvault.formats.canonical_json import canonical_bytes, digest_of
from jitvault.formats.conversion import as_json
from jitvault.verification.history import History, read_history
from jitvault.verification.keys import read_keys
from jitvault.verification.log_lines import lines_of
from jitvault.verification.outcome import Outcome
from jitvault.verification.trust import Trust, trust_in
from jitvault.verification.verify import Verified, verify

RECORDED = Path(__file__).parent / "recorded"
LINES = (RECORDED / "audit.jsonl").read_bytes().splitlines(keepends=True)
KNOWN = trust_in(read_trust_file((RECORDED / "trust.json").read_bytes()))
"""What an auditor knows of the Vault on which these were recorded."""
WORKER = next(iter(KNOWN.workers))
REPEATED = ("installation", "task", "revision", "requester", "agent", "owner", "delegation", "intent", "access")
"""What of the revision the predicate repeats."""
Edit = Callable[[dict[str, Any]], object]


def statement(task: str = "read-orders") -> dict[str, Any]:
    return dict(json.loads((RECORDED / f"{task}.json").read_text()))


def content(task: str = "read-orders") -> dict[str, Any]:
    """What the statement says of its subject."""
    return dict(statement(task)["predicate"])


def history() -> dict[str, Any]:
    return dict(json.loads((RECORDED / "read-orders-status.json").read_text()))


@cache
def _script() -> Any:
    where = Path(__file__).parents[3] / "docs" / "examples" / "verify_receipt.py"
    spec = spec_from_file_location(where.stem, where)
    assert spec is not None and spec.loader is not None
    sys.modules[where.stem] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def extension_content(said: dict[str, Any], extension: dict[str, Any]) -> dict[str, Any]:
    """What the digest of an extension covers."""
    told = said["predicate"]
    names = ("by", "reason", "since", "seconds", "until", "window_s")
    return {
        **{name: extension[name] for name in names},
        **{name: told[name] for name in ("installation", "task", "revision")},
        "apiVersion": "jitvault.dev/v1",
        "kind": "Extension",
        "revision_digest": f"sha256:{said['subject'][0]['digest']['sha256']}",
    }


def as_written(whole: dict[str, Any]) -> Any:
    """A statement with its times in the form in which a receipt has them; as it is where it is none."""
    try:
        return as_json(msgspec.convert(whole, Statement))
    except (msgspec.ValidationError, RecursionError):
        return whole


def texts(outcome: Outcome) -> list[str]:
    """What does not hold, in words alone."""
    return [problem.text for problem in outcome.problems]


class Forger:
    """A holder of a receipts' key who signs anything."""

    def __init__(self, directory: Path) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.directory = directory

    @property
    def raw(self) -> str:
        public = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(public).decode()

    @property
    def pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def envelope(
        self, payload: bytes, *, kind: str = RECEIPT_TYPE, key_id: str = f"{RECEIPT_KEY}:v1"
    ) -> dict[str, Any]:
        signature = base64.b64encode(self.key.sign(pae(payload, kind))).decode()
        return {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"keyid": key_id, "sig": signature}],
        }

    def receipt(self, edit: Edit = lambda told: None, task: str = "read-orders", *, fits: bool = False) -> bytes:
        """A receipt whose predicate was changed before it was signed.

        It is that of another task if it `fits`: revision and signed documents say what the predicate says.
        """

        def whole(said: dict[str, Any]) -> None:
            edit(said["predicate"])
            if fits:
                self._fit(said, statement(task))

        return self.signed(whole, task)

    def _fit(self, said: dict[str, Any], before: dict[str, Any]) -> None:
        """Write anew what no longer fits the predicate: the revision, the digests, and what people signed."""
        told, was, subject = said["predicate"], before["predicate"], said["subject"][0]
        if any(told[name] != was[name] for name in REPEATED):
            revision = json.loads(base64.b64decode(subject["content"]))
            spec = revision["spec"]["spec"] | {"intent": told["intent"]}
            revision |= {name: told[name] for name in REPEATED if name not in ("intent", "access")}
            revision |= {"access": told["access"], "spec": {"spec": spec}}
            content = canonical_bytes(revision)
            subject["content"] = base64.b64encode(content).decode()
            subject |= {"name": told["task"], "digest": {"sha256": hashlib.sha256(content).hexdigest()}}
        digest = f"sha256:{subject['digest']['sha256']}"
        self._sign_documents(told, digest)
        for extension in told["extensions"]:
            by = extension["by"]["entity"]
            extension["digest"] = digest_of(extension_content(said, extension))
            more = {"digest": digest, "ends_at": extension["since"], "seconds": extension["seconds"]}
            extension["signed_request"] = self.signs(by, "extend", told, reason=extension["reason"], **more)
            approvers = [one["entity"] for one in extension["approved_by"]]
            extension["signed"] = [self._approves(one, told, extension["digest"], by) for one in approvers]

    def _sign_documents(self, told: dict[str, Any], digest: str) -> None:
        ended, forced, documents = told["ended"], told["proof"]["forced"], told["documents"]
        requester = told["requester"]["entity"]
        access = [{"template": one["template"], "with": one["with"], "reason": "why"} for one in told["access"]]
        spec = {"spec": {"intent": told["intent"], "access": access}}
        documents["request"] = self.signs(requester, "submit", told, spec=spec, revise=False)
        documents["decisions"] = [self._approves(one, told, digest, requester) for one in told["approved_by"]]
        ends = [(ended["by"], ended["reason"], ended["note"])] if ended and ended["by"] else []
        ends += [(forced["by"], "forced", forced["reason"])] if forced else []
        documents["ends"] = [self.signs(by, "end", told, reason=reason, note=note) for by, reason, note in ends]

    def _approves(self, entity: str, told: dict[str, Any], digest: str, requester: str) -> dict[str, Any]:
        more = {"requester": requester, "groups": ["g"], "reason": "", "expires_at": "2030-01-01T00:00:00+00:00"}
        return self.signs(
            entity, "decision", told, decision="approve", digest=digest, revision=told["revision"], **more
        )

    def signs(self, entity: str, kind: str, told: dict[str, Any], **more: object) -> dict[str, Any]:
        """A document by a version of the entity's key that no auditor has."""
        same = {"kind": kind, "task": told["task"], "entity": entity, "nonce": "0" * 32, "at": "2026-12-01T00:00:00Z"}
        return self.envelope(canonical_bytes(same | more), kind=DOCUMENT_TYPE, key_id=f"jitvault-signer-{entity}:v99")

    def signed(self, edit: Edit, task: str = "read-orders") -> bytes:
        """A receipt whose statement was changed before it was signed."""
        whole = statement(task)
        edit(whole)
        return json.dumps(self.envelope(canonical_bytes(as_written(whole)))).encode()

    def log(self, lines: Iterable[bytes] = tuple(LINES), name: str = "audit.log") -> Path:
        path = self.directory / name
        data = b"".join(lines)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    def verify(self, data: bytes, *logs: Path, told: dict[str, Any] | None = None, trust: Trust = KNOWN) -> Verified:
        past: History | None = read_history(json.dumps(told).encode()) if told is not None else None
        return verify(data, read_keys(self.pem), history=past, files=[lines_of(path) for path in logs], trust=trust)

    def script(self, data: bytes, *logs: Path, trust: Trust = KNOWN) -> int:
        """What the script that has none of jitvault's code exits with."""
        return self.run(data, *logs, trust=trust)[0]

    def said(self, data: bytes, *logs: Path) -> str:
        """What the script prints."""
        return self.run(data, *logs, trust=KNOWN)[1]

    def run(self, data: bytes, *logs: Path, trust: Trust = KNOWN) -> tuple[int, str]:
        """What the script exits with, and what it prints."""
        receipt, key = self.directory / "receipt.json", self.directory / "key.json"
        receipt.write_bytes(data)
        key.write_text(json.dumps(self.trusted(trust)))
        named = os.pathsep.join(map(str, logs))
        with redirect_stdout(StringIO()) as out:
            code = int(_script().main(str(receipt), str(key), named))
        return code, out.getvalue()

    def refused(self, edit: Edit, *logs: Path, task: str = "read-orders", fits: bool = False) -> list[str]:
        """The problems of a receipt that the script refuses as well."""
        assert self.script(self.receipt(edit, task, fits=fits), *logs) == 1
        return self.problems(edit, *logs, task=task, fits=fits)

    def trusted(self, trust: Trust) -> dict[str, Any]:
        """The trust file of an auditor who knows this key, and what `trust` says."""
        return {
            "schema": "jitvault.dev/trust/v1",
            "receipt_keys": [{"version": 1, "public_key": self.raw, "made_at": "2026-11-01T00:00:00Z"}],
            "signers": [
                {"entity": entity, "version": version, "public_key": base64.b64encode(key).decode()}
                for (entity, version), key in trust.signers.items()
            ],
            "namespace": {"id": trust.namespace_id, "path": ""},
            "workers": [{"entity": worker, "name": "worker"} for worker in sorted(trust.workers)],
            "issuers": [issuer.public_bytes(Encoding.PEM).decode() for issuer in trust.issuers],
        }

    def accepts(self, data: bytes, *logs: Path) -> bool:
        """Whether both accept a receipt."""
        return self.script(data, *logs) == 0 and bool(self.verify(data, *logs).outcome.holds)

    def problems(self, edit: Edit, *logs: Path, task: str = "read-orders", fits: bool = False) -> list[str]:
        """What does not hold of a receipt that was changed before it was signed."""
        return texts(self.verify(self.receipt(edit, task, fits=fits), *logs).outcome)
