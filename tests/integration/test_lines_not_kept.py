"""What strangers and agents send again and again costs the ledger a bounded number of rows, and is counted."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hands import THIEF
from rig import Rig
from test_attacks import anybody

from jitvault.context import new_id
from jitvault.ledger.stream import stored_lines

Spec = Callable[..., Path]
TIMES = 150
# what the commands of the test itself leave behind
OWN = {"canary", "token_lookup", "renewed", "lease_lookup", "own", "written"}


def flood(rig: Rig, times: int, method: str, path: str, token: str = "", body: dict[str, Any] | None = None) -> None:
    """Many times the same request, over one connection."""
    url = urlsplit(rig.world.address)
    headers = {"X-Jitvault-Op": new_id(), **({"X-Vault-Token": token} if token else {})}
    with closing(http.client.HTTPConnection(url.netloc, timeout=30, source_address=(THIEF, 0))) as connection:
        for _ in range(times):
            connection.request(method, f"/v1/{path}", json.dumps(body) if body is not None else None, headers)
            connection.getresponse().read()


def rows(rig: Rig) -> Counter[str]:
    return Counter(dict(rig.rows("SELECT kind, count(*) FROM observations GROUP BY kind")))


def counted(rig: Rig) -> dict[str, int]:
    return {one["kind"]: one["lines"] for one in rig("auditor", "audit", "status").json["not_kept"]}


def test_what_strangers_send_is_counted_and_not_kept(rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "status", file.stem)
    monkeypatch.setattr(stored_lines, "MOST_REWRAPS", 2)
    before, token = rows(rig), anybody(rig)
    wrapping = rig.admin.write("sys/wrapping/wrap", {"a": "b"}, wrap_ttl_s=60)["wrap_info"]["token"]
    flood(rig, TIMES, "POST", "sys/wrapping/unwrap", body={"token": "junk"})
    flood(rig, TIMES, "POST", "sys/wrapping/unwrap", "junk")
    flood(rig, TIMES, "POST", "pki/roles/web/acme/new-nonce", body={})
    flood(rig, TIMES, "POST", "pki/roles/web/acme/new-nonce", token, {})
    flood(rig, 3, "POST", f"pki/roles/{'a' * 5000}/acme/new-nonce", token, {})
    for path in ("ocsp/roles/x", "cert/config", f"cert/{'a' * 5000}", "issuer/config/crl", "issuer/roles/json"):
        flood(rig, 20, "POST", f"pki/{path}", token, {})
    for method, path, body in (
        ("GET", "cubbyhole/response", None),
        ("PUT", "sys/leases/lookup", {"lease_id": "junk"}),
        ("PUT", "sys/leases/renew", {"lease_id": "junk"}),
        ("PUT", "database/roles/x", {}),
        ("PUT", "auth/token/create/jitvault-15m", {}),
        ("PUT", "auth/token/revoke-accessor", {"accessor": "junk"}),
    ):
        flood(rig, TIMES, method, path, token, body)
    for _ in range(5):
        wrapping = rig.admin.write("sys/wrapping/rewrap", {"token": wrapping})["wrap_info"]["token"]
    status = rig("operator", "status", file.stem).json
    assert (status["state"], status["frozen"], status["findings"]) == ("active", None, [])
    more = rows(rig) - before
    assert set(more) <= OWN | {"rewrapped"}
    assert more.total() < 30
    seen = counted(rig)
    assert seen["unwrap_refused"] == 2 * TIMES
    assert seen["cubbyhole_read"] >= TIMES
    assert seen["lease_lookup"] == seen["token_revoked"] == 2 * TIMES
    assert seen["rewrapped"] == 5 - more["rewrapped"] >= 3
    assert rig("operator", "complete", file.stem).json["confirmed"]


def test_what_is_sent_again_and_again_about_a_task_is_kept_up_to_a_number(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_lines, "MOST_OF_ONE", 20)
    monkeypatch.setattr(stored_lines, "MOST_DENIED", 40)
    file = spec()
    granted = rig.granted(file)
    held = rig.use(granted)
    wrapping = granted["wrapping"][0]["token"]
    rig("operator", "status", file.stem)
    before = rows(rig)
    flood(rig, TIMES, "POST", "sys/wrapping/unwrap", body={"token": wrapping})
    flood(rig, TIMES, "GET", "sys/mounts", held.token)
    rig("operator", "complete", file.stem, code=None)
    flood(rig, TIMES, "GET", "sys/mounts", held.token)
    status = rig("operator", "status", file.stem, code=None).json
    rules = {found["rule"] for found in status["findings"]}
    assert {"unwrap_refused", "denied"} <= rules
    more = rows(rig) - before
    assert 20 <= more["unwrap_refused"] <= 40
    assert 40 <= more["denied"] <= 60
    assert 20 <= more["refused"] <= 40
    seen = counted(rig)
    assert seen["unwrap_refused"] >= TIMES - 40
    assert seen["denied"] >= 2 * TIMES - 60
    assert seen["refused"] >= 2 * TIMES - 40
    shown = rig.cli("auditor", "audit", "status").stdout
    assert "unwrap refused" in " ".join(shown.split())
    rig.settle()
    assert rig("operator", "status", file.stem, code=None).json["state"] in ("sealed", "confirmed")
