"""Record the receipts, the history, the trust file and the audit lines on which the verifiers' unit tests run.

`make recorded` runs three tasks on real servers: `read-orders` is extended past the life of its first token and so has
two, `fix-orders` is approved and extended by two people, `serve-orders` has a certificate and ends by a freeze. Of the
log only those lines are kept that are about the tasks,
and of the others one of each operation and path.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from commands import EXAMPLE, SPEC, Quick
from ledgers import address, bind, new_place

from jitvault.sandbox.servers import running_servers
from jitvault.sandbox.world import World, env, provisioned

RECORDED = Path(__file__).parent / "unit" / "verification" / "recorded"
_TASKS = ("read-orders", "fix-orders", "serve-orders")


def record(world: World, home: Path) -> None:
    """Run the tasks, and write what an auditor is handed of them."""
    place = new_place(world.servers.postgres, home / "ledger.db")
    bind(place, world.installation)
    cli = Quick(env(world, address(place), EXAMPLE), home)
    begun = world.audit_file.stat().st_size
    _read_orders(cli, _spec(home, "read-orders", criticality="low", template="postgres-readonly", window="15m"))
    _fix_orders(cli, _spec(home, "fix-orders", criticality="high", template="postgres-readwrite", window="20m"))
    # the other task was granted in the time of this one
    cli("operator", "complete", "read-orders")
    cli("operator", "revoke", "fix-orders", "--reason", "the orders are mended")
    _sealed(cli, *_TASKS[:2])
    _serve_orders(cli, _spec(home, "serve-orders", criticality="low", template="pki-service", window="15m"))
    _sealed(cli, *_TASKS[2:])
    for task in _TASKS:
        cli("auditor", "report", task, "--receipt", home / f"{task}.json", "--out", home / f"{task}-report.json")
        _write(f"{task}.json", _statement(home / f"{task}.json"))
    status = cli("auditor", "status", "read-orders", "-o", "json").json
    _write("read-orders-status.json", {name: status[name] for name in ("task_id", "revision", "timeline")})
    cli("auditor", "export-keys", "--worker", "worker", "--pki", "pki", "--out", home / "trust.json")
    _write("trust.json", json.loads((home / "trust.json").read_text()))
    with world.audit_file.open("rb") as log:
        log.seek(begun)
        (RECORDED / "audit.jsonl").write_bytes(b"".join(_about(log.readlines(), _names(home))))


def _sealed(cli: Quick, *tasks: str) -> None:
    for task in tasks:
        while cli("operator", "status", task, "--json").json["state"] != "sealed":
            pass


def _read_orders(cli: Quick, spec: Path) -> None:
    granted = cli("operator", "grant", spec, "--json")
    cli("agent", "unwrap", "-", "--read", given=granted.stdout)
    more = cli("operator", "extend", spec.stem, "--for", "30m", "--reason", "more rows", "--json")
    assert more.json["replaces"]
    cli("agent", "unwrap", "-", "--read", given=more.stdout)


def _fix_orders(cli: Quick, spec: Path) -> None:
    cli("operator", "submit", spec)
    for approver in ("approver-1", "approver-2"):
        cli(approver, "approve", spec.stem, "--yes")
    granted = cli("operator", "grant", spec, "--json")
    cli("agent", "unwrap", "-", "--read", given=granted.stdout)
    longer = ("operator", "extend", spec.stem, "--for", "5m", "--reason", "slow", "--json")
    cli(*longer, code=4)
    for approver in ("approver-1", "approver-2"):
        cli(approver, "approve", spec.stem, "--yes")
    assert not cli(*longer).json["replaces"]


def _serve_orders(cli: Quick, spec: Path) -> None:
    cli("operator", "submit", spec)
    cli("approver-1", "approve", spec.stem, "--yes")
    granted = cli("operator", "grant", spec, "--json")
    cli("agent", "unwrap", "-", "--read", given=granted.stdout)
    cli("operator", "freeze", "--agent", "research-agent", "--reason", "its host was lost", "--yes")


def _spec(home: Path, task: str, **terms: str) -> Path:
    file = home / f"{task}.yaml"
    text = SPEC.format(id=task, intent="Count last week's orders by region.", more="", **terms)
    file.write_text(text.replace("{database: app}", "{service: orders}") if "pki" in terms["template"] else text)
    return file


def _statement(receipt: Path) -> Any:
    """What was signed; the label of the stream is that of a usual installation."""
    signed = json.loads(base64.b64decode(json.loads(receipt.read_text())["payload"]))
    proof = signed["predicate"]["proof"]
    for credential in (*proof["leases"], proof["token"], *proof["earlier_tokens"]):
        for check in credential["checks"]:
            if "source" in check["evidence"]:
                check["evidence"]["source"] = "/var/log/openbao/audit.log"
    return signed


def _names(home: Path) -> list[bytes]:
    """What the lines about the tasks have in them: accessors, leases, and the hashes of lines."""
    found: list[str] = []
    for task in _TASKS:
        predicate = _statement(home / f"{task}.json")["predicate"]
        found += [one["accessor_hmac"] for one in predicate["grants"]]
        found += [one["lease_id"] for one in predicate["proof"]["leases"]]
    return [name.encode() for name in found]


def _about(lines: list[bytes], names: list[bytes]) -> list[bytes]:
    """The lines about the tasks' credentials, each look-up of a lease that is gone, and one of each other kind."""
    kept, seen = [], set[tuple[str, ...]]()
    for line in lines:
        entry = json.loads(line)
        path, operation = entry["request"]["path"], entry["request"]["operation"]
        about = any(name in line for name in names) or (path == "sys/leases/lookup" and "error" in entry)
        kind = (entry["type"], operation, path if path.endswith(_TASKS) else path.partition("/")[0])
        if about or kind not in seen:
            kept.append(line)
        seen.add(kind)
    return kept


def _write(name: str, value: object) -> None:
    (RECORDED / name).write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    with running_servers() as servers, tempfile.TemporaryDirectory() as directory:
        record(provisioned(servers), Path(directory))
