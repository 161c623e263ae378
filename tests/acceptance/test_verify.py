"""An auditor verifies a receipt on another machine: there are only the files, no Vault, no ledger, no setting."""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import pytest
import requests
from commands import SPEC, Quick, at_terminal

from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE
from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault
from jitvault.vault.transit import Transit

# settings that would fail any command that looked at them
UNUSABLE = {"VAULT_ADDR": "nowhere", "JITVAULT_LEDGER": "nowhere://", "VAULT_SKIP_VERIFY": "1"}
PEM = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA{}\n-----END PUBLIC KEY-----\n"


@dataclass(frozen=True)
class Handed:
    """What the auditor was handed: a directory of files, and commands without any server."""

    directory: Path
    alone: Quick

    def file(self, name: str) -> Path:
        return self.directory / name

    def verify(self, *options: str | Path, receipt: str = "receipt.json", code: int = 0) -> Any:
        return self.alone(None, "verify", self.file(receipt), "--trust", self.file("trust.json"), *options, code=code)


@pytest.fixture(scope="module")
def sealed(variables: dict[str, str], world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a sealed task with two tokens: receipt, keys, status and the audit log, which was rotated."""
    directory, home = tmp_path_factory.mktemp("handed"), tmp_path_factory.mktemp("home")
    cli = Quick(variables, home)
    file = home / "verify-orders.yaml"
    terms = {"criticality": "medium", "template": "postgres-readonly", "window": "15m", "intent": "Count.", "more": ""}
    file.write_text(SPEC.format(id=file.stem, **terms))
    cli("operator", "submit", file)
    cli("approver-1", "approve", file.stem, "--yes")
    granted = cli("operator", "grant", file, "--json")
    cli("agent", "unwrap", "-", "--read", given=granted.stdout)
    longer = ("operator", "extend", file.stem, "--for", "30m", "--reason", "it is slow", "--json")
    cli(*longer, code=4)
    cli("approver-1", "approve", file.stem, "--yes")
    more = cli(*longer)
    assert more.json["replaces"]
    cli("agent", "unwrap", "-", "--read", given=more.stdout)
    before_the_end = world.audit_file.stat().st_size
    cli("operator", "complete", file.stem)
    while cli("operator", "status", file.stem, "--json").json["state"] != "sealed":
        pass
    cli("auditor", "report", file.stem, "--receipt", directory / "receipt.json", "--out", directory / "r.json")
    (directory / "status.json").write_text(cli("auditor", "status", file.stem, "-o", "json").stdout)
    cli("auditor", "export-keys", "--worker", "worker", "--out", directory / "trust.json")
    answer = Vault(Connection(world.address), world.auditor_token).read(f"jitvault-transit/keys/{RECEIPT_KEY}") or {}
    (directory / "key.json").write_text(json.dumps(answer))
    public = answer["data"]["keys"]["1"]["public_key"]
    # as docs/auditors.md makes PEM of it
    (directory / "key.pem").write_text(f"{RECEIPT_KEY}:v1\n{PEM.format(public)}")
    written = world.audit_file.read_bytes()
    logs = directory / "logs"
    logs.mkdir()
    # the lines of the revocation are in the second file
    edge = written.index(b"\n", before_the_end) + 1
    (logs / "audit.log").write_bytes(written[edge:])
    (logs / "audit.log.1.gz").write_bytes(gzip.compress(written[:edge]))
    return directory


@pytest.fixture
def handed(sealed: Path, tmp_path: Path) -> Handed:
    return Handed(sealed, Quick(UNUSABLE, tmp_path))


def names(found: dict[str, Any], *, holds: bool) -> list[str]:
    return [one["name"] for one in found["checked"] if one["holds"] is holds]


def test_another_file_than_an_audit_log_is_no_receipt_that_does_not_hold(handed: Handed) -> None:
    wrong = handed.verify("--audit", handed.file("key.pem"), code=8).stderr
    said = " ".join(wrong.split())
    assert (
        f"--audit {handed.file('key.pem')} is no audit log: none of its first" in said and "does not hold" not in said
    )
    missing = handed.verify("--audit", handed.file("nothing.log"), code=2).stderr
    assert "there is no such file" in missing


def test_an_honest_receipt_holds_without_any_server(handed: Handed, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Never:
        raise AssertionError("it opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    every = ("--audit", handed.file("logs"), "--status", handed.file("status.json"))
    found = handed.verify(*every, "-o", "json").json
    assert found["holds"] and found["task_id"] == "verify-orders" and found["confirmed"]
    assert names(found, holds=False) == []
    assert names(found, holds=True) == [
        *("signature", "content", "verdicts", "documents", "approvals", "history", "lines", "left out", "worker"),
        "closed",
    ]
    assert re.fullmatch(r"with proof: sealed at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", found["checked"][9]["seen"])
    assert "12 of 12 that the receipt names are in 2 files" in found["checked"][6]["seen"]
    assert {one["basis"] for one in found["checked"]} == {"rederived"}
    assert "/predicate/sealed_at" in found["attested"] and "/predicate/approved_by" not in found["attested"]
    assert found["key"]["version"] == 1 and not any("version" in text for text in found["not_checked"])
    # Vault's own answer is a key file, too, and so is PEM; the ids can be given by hand
    trusted = json.loads(handed.file("trust.json").read_text())
    ids = ("--namespace", trusted["namespace"]["id"], "--worker-entity", trusted["workers"][0]["entity"])
    assert trusted["namespace"] == {"id": "root", "path": ""} and trusted["workers"][0]["name"] == "worker"
    for key in ("key.json", "key.pem"):
        given = ("--key", handed.file(key), *ids, *every)
        by_hand = handed.alone(None, "verify", handed.file("receipt.json"), *given, "--json").json
        assert by_hand["holds"] and by_hand["key"] == found["key"]
    assert [one["name"] for one in found["approved_by"]] == ["approver-1"] and found["intent"] == "Count."
    assert found["access"] == [
        {"template": "postgres-readonly", "path": "database/creds/app-readonly", "with": {"database": "app"}}
    ]
    assert (found["ended"]["name"], found["ended"]["reason"]) == ("operator", "completed")
    less = json.loads(handed.verify("--json", code=6).stdout)
    unmade = [one["name"] for one in less["checked"] if one["holds"] is None]
    assert less["holds"] is None and unmade == ["lines", "left out", "worker"]


def test_what_was_checked_and_what_was_not_is_said_in_words(handed: Handed) -> None:
    width = 80
    files = [str(handed.file(name)) for name in ("receipt.json", "trust.json", "logs")]
    command = ("verify", files[0], "--trust", files[1], "--audit", files[2])
    piped = handed.alone(None, *command, extra={"COLUMNS": str(width)}).stdout
    assert "Receipt of task verify-orders (completed)" in piped and "\nNot checked\n" in piped
    stated = " ".join(piped.partition("Checked")[0].replace("| ", "").split())
    assert re.search(r"^  intent +\| Count\.$", piped, re.MULTILINE)
    approver = re.search(r"approved by approver-1 \(([0-9a-f-]{36})\) intent Count\. access", stated)
    assert approver, stated
    assert "access postgres-readonly with database=app: database/creds/app-readonly issued 20" in stated
    assert re.search(r" UTC ended 20[0-9: -]{17} UTC by operator: completed digest", stated), stated
    assert any(line.startswith("  ✓ lines      12 of 12 that the receipt names") for line in piped.splitlines())
    assert "  - that the audit files are whole and Vault's own: keep them where the worker cannot write\n" in piped
    assert piped.endswith("Every check holds. What is not checked is the signer's word.\n")
    shown = at_terminal(handed.alone, None, *command, width=width).stdout  # type: ignore[arg-type]
    assert all(len(line) <= width for line in shown.splitlines()) and shown.count("\n") > piped.count("\n")
    assert "| " not in shown.partition("Checked")[2], "that is the mark of another's words"


def test_missing_lines_are_named_and_nothing_is_called_proven(handed: Handed) -> None:
    half = ("--audit", handed.file("logs") / "audit.log.1.gz")
    shown = handed.verify(*half, code=12)
    assert "  ✗ lines      does NOT hold" in shown.stdout and "is in none of the files" in shown.stdout
    assert "Every check holds" not in shown.stdout
    assert "the receipt of task verify-orders does not hold: line " in shown.stderr and ", and " in shown.stderr
    # a script that wants the result alone gets it, and nothing where there is none
    assert handed.verify("-q", "--audit", handed.file("logs")).stdout == "verify-orders\n"
    unmade = handed.verify("-q", code=6)
    assert unmade.stdout == "" and "not everything was checked: lines, left out, worker" in unmade.stderr
    assert "  ? lines      not looked for: " in handed.verify(code=6).stdout
    quiet = handed.verify(*half, "-q", code=12)
    assert quiet.stdout == "" and "is in none of the files" in quiet.stderr
    found = json.loads(handed.verify(*half, "--json", code=12).stdout)
    assert not found["holds"] and "lines" in names(found, holds=False)
    # of what is not there nobody says whose it is, nor that it was found
    assert "worker" not in names(found, holds=True)
    assert not any("show" in one["seen"] for one in found["checked"] if one["holds"] is False)


def test_a_receipt_that_was_altered_or_cut_or_signed_by_another_is_refused(handed: Handed, tmp_path: Path) -> None:
    envelope = json.loads(handed.file("receipt.json").read_text())
    payload = base64.b64decode(envelope["payload"]).replace(b"completed", b"operator_")
    altered = {**envelope, "payload": base64.b64encode(payload).decode()}
    (tmp_path / "altered.json").write_text(json.dumps(altered))
    (tmp_path / "cut.json").write_text(json.dumps(envelope)[:-40])
    (tmp_path / "huge.json").write_bytes(b"[" * (64 * 1024 * 1024 + 1))
    (tmp_path / "deep.json").write_bytes(b"[" * 1_000_000)
    other = base64.b64encode(bytes(31) + b"\x07").decode()
    (tmp_path / "other.pem").write_text(
        f"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA{other}\n-----END PUBLIC KEY-----\n"
    )
    key = handed.file("key.pem")
    for receipt, given, code, says in (
        ("altered.json", key, 12, "the signature does not hold"),
        ("cut.json", key, 8, "it ends too early, so a part of it is missing"),
        ("huge.json", key, 8, "is larger than 64 MiB"),
        ("deep.json", key, 8, "cannot be read as JSON"),
        ("nosuch.json", key, 2, "cannot be read: No such file"),
        (handed.file("r.json"), key, 8, "it looks like a report"),
        (handed.file("status.json"), key, 8, "it looks like the output of `status"),
        (handed.file("receipt.json"), tmp_path / "other.pem", 12, "another key than the file's signed it"),
        (handed.file("receipt.json"), handed.file("receipt.json"), 8, "not Vault's answer with Ed25519 keys"),
        (handed.file("receipt.json"), tmp_path / "none.pem", 2, "the key file"),
    ):
        refused = handed.alone(None, "verify", tmp_path / receipt, "--key", given, "-o", "json", code=code)
        assert says in refused.error["message"] and refused.error["hint"] and refused.stdout == ""


def test_what_a_thief_of_the_workers_token_signs_does_not_hold(handed: Handed, world: World, tmp_path: Path) -> None:
    """The signature is Vault's, and the lease that is left out is in the log."""
    told = json.loads(base64.b64decode(json.loads(handed.file("receipt.json").read_text())["payload"]))
    told["predicate"]["proof"]["leases"].pop()
    with_worker = Transit(Vault(Connection(world.address), world.worker_token))
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(with_worker.sign(told, RECEIPT_TYPE, key=RECEIPT_KEY)))
    known, logs = ("--trust", handed.file("trust.json")), handed.file("logs")
    assert json.loads(handed.alone(None, "verify", forged, *known, "--json", code=6).stdout)["holds"] is None
    found = json.loads(handed.alone(None, "verify", forged, *known, "--audit", logs, "--json", code=12).stdout)
    assert names(found, holds=False) == ["left out"]
    assert "leaves out lease database/creds/app-readonly/" in found["checked"][-3]["problems"][0]["text"]
    assert found["checked"][-3]["problems"][0]["places"] == ["/predicate/proof/leases"]


def test_line_ends_that_were_signed_make_no_lines(handed: Handed, world: World, tmp_path: Path) -> None:
    told = json.loads(base64.b64decode(json.loads(handed.file("receipt.json").read_text())["payload"]))
    said = told["predicate"]
    said["ended"]["note"] = said["intent"] = "done)\n  approved by  everybody\nChecked\n"
    with_worker = Transit(Vault(Connection(world.address), world.worker_token))
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(with_worker.sign(told, RECEIPT_TYPE, key=RECEIPT_KEY)))
    shown = handed.alone(None, "verify", forged, "--key", handed.file("key.pem"), code=12).stdout
    assert shown.count("\nChecked") == 1 and shown.count("\n  approved by") == 1


def test_usage_is_said(handed: Handed) -> None:
    shown = handed.alone(None, "verify", "--help").stdout
    for word in ("RECEIPT", "--trust", "--key", "--audit", "--status", "verify receipt.json --trust trust.json"):
        assert word in shown
    assert "--trust" in handed.alone(None, "verify", handed.file("receipt.json"), code=2).stderr
    assert "--trust stands for --key" in handed.verify("--namespace", "root", code=2).stderr
    no_file = ("verify", handed.file("receipt.json"), "--trust", handed.file("key.json"))
    assert "is no trust file" in handed.alone(None, *no_file, code=8).stderr
    missing = handed.verify("--audit", handed.file("nosuch.log"), code=2)
    assert "there is no such file" in missing.stderr


def test_a_trust_file_names_what_vault_has(variables: dict[str, str], tmp_path: Path) -> None:
    cli = Quick(variables, tmp_path)
    nobody = cli("auditor", "export-keys", "--worker", "nobody", "--out", tmp_path / "trust.json", code=9).stderr
    assert "no entity named 'nobody'" in nobody and not (tmp_path / "trust.json").exists()
    denied = cli("agent", "export-keys", "--worker", "worker", code=10).stderr
    assert "may not read identity/group/name/jitvault-auditors" in denied
    no_issuer = cli("auditor", "export-keys", "--worker", "worker", "--pki", "database", code=9).stderr
    assert "no issuer at 'database'" in no_issuer
    found = cli("auditor", "export-keys", "--worker", "worker", "--pki", "pki", "--pki", "pki", "--json").json
    issuer = requests.get(f"{variables['VAULT_ADDR']}/v1/pki/ca/pem", timeout=10).text
    assert [pem.strip() for pem in found["issuers"]] == [issuer.strip()]
