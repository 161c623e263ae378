"""In which order access is taken back, what one failure leaves undone, and what is never done twice.

Vault's own audit file says it, not the ledger.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from go_between import GoBetween
from rig import PREFIX, Held, Rig

from jitvault.audit.observation import Kind
from jitvault.lifecycle.confirmation.evidence import tokens_of

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]
TOKEN, LEASE = "auth/token/revoke-accessor", "sys/leases/revoke/"


def revocations(rig: Rig, after: int) -> list[str]:
    """Of the audit file from a byte on: the paths of all requests that revoke a token or a lease, in their order."""
    lines = rig.world.audit_file.read_bytes()[after:].splitlines()
    entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
    paths = [entry["request"]["path"] for entry in entries if entry["type"] == "request"]
    return [path for path in paths if path == TOKEN or path.startswith(LEASE)]


def size(rig: Rig) -> int:
    return rig.world.audit_file.stat().st_size


def holding(rig: Rig, file: Path, leases: int) -> tuple[Held, list[str], list[str]]:
    """A task with so many leases: what the agent holds, their ids and their logins, in the order of their issue."""
    held = rig.use(rig.granted(file), read=False)
    got = [rig.vault(held.token).read(PREFIX) or {} for _ in range(leases)]
    return held, [one["lease_id"] for one in got], [one["data"]["username"] for one in got]


@contextmanager
def not_revocable(rig: Rig, login: str) -> Iterator[None]:
    """A role that owns something cannot be dropped."""
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'CREATE SCHEMA "of-{login}" AUTHORIZATION "{login}"'.encode())
        try:
            yield
        finally:
            target.execute(f'DROP SCHEMA "of-{login}"'.encode())


def test_the_token_goes_first_and_then_each_lease_by_a_request_of_its_own(rig: Rig, spec: Spec) -> None:
    file = spec()
    _, leases, _ = holding(rig, file, 3)
    before = size(rig)
    assert rig("operator", "complete", file.stem).json["confirmed"]
    assert revocations(rig, before) == [TOKEN, *(LEASE + lease_id for lease_id in leases)]


def test_one_lease_that_cannot_be_revoked_stops_no_other_and_alone_is_tried_again(rig: Rig, spec: Spec) -> None:
    file = spec()
    held, leases, logins = holding(rig, file, 3)
    with not_revocable(rig, logins[0]):
        before = size(rig)
        ended = rig("operator", "complete", file.stem, code=6).json
        verdicts = {lease["lease_id"]: lease["verdict"] for lease in ended["leases"]}
        assert [verdicts[lease_id] for lease_id in leases] == ["revoke_failed", "target_confirmed", "target_confirmed"]
        assert not rig.is_live(held.token)
        done = revocations(rig, before)
        assert done[:4] == [TOKEN, *(LEASE + lease_id for lease_id in leases)]
        # what is proven dead is never revoked again
        assert set(done[4:]) <= {LEASE + leases[0]}
        before = size(rig)
        rig("operator", "complete", file.stem, code=6)
        assert set(revocations(rig, before)) == {LEASE + leases[0]}
    before = size(rig)
    assert rig("operator", "complete", file.stem).json["confirmed"]
    assert set(revocations(rig, before)) == {LEASE + leases[0]}


def as_a_later_vault(what: str, answer: bytes) -> bytes:
    """What a Vault whose audit lines come late says of itself."""
    if not what.startswith(("GET sys/health", "GET sys/seal-status")):
        return answer
    said = {**json.loads(answer), "version": "1.18.3", "enterprise": False}
    said.pop("commit_date", None)
    return json.dumps(said).encode()


def test_where_lines_may_come_after_the_answer_a_task_is_not_sealed_before_they_came(rig: Rig, spec: Spec) -> None:
    bao = rig.world.servers.vault
    assert rig.wiring().worker.settle_window == timedelta(seconds=2)
    between = GoBetween((bao.host, bao.port), change=as_a_later_vault)
    rig.cli.variables = {**rig.cli.variables, "VAULT_ADDR": between.address}
    assert rig.wiring().worker.settle_window == timedelta(seconds=22)
    file = spec()
    rig.active(file)
    assert rig("operator", "complete", file.stem).json["state"] == "confirmed"
    time.sleep(2.5)
    assert rig("operator", "status", file.stem).json["state"] == "confirmed"
    between.down()


def that_hides_what_it_is(what: str, answer: bytes) -> bytes:
    """What a proxy leaves of it: neither a version nor anything else by which the product is told."""
    if not what.startswith(("GET sys/health", "GET sys/seal-status")):
        return answer
    hidden = ("version", "commit_date", "build_date", "enterprise")
    return json.dumps({key: value for key, value in json.loads(answer).items() if key not in hidden}).encode()


def test_a_server_that_hides_its_version_is_told_by_its_lines_and_waited_for_as_the_slowest(rig: Rig) -> None:
    bao = rig.world.servers.vault
    between = GoBetween((bao.host, bao.port), change=that_hides_what_it_is)
    rig.cli.variables = {**rig.cli.variables, "VAULT_ADDR": between.address}
    assert rig.wiring().worker.settle_window == timedelta(seconds=22)
    (found,) = [c for c in rig("operator", "doctor", code=None).json["checks"] if c["name"] == "version"]
    assert found["status"] == "warn"
    assert f"{bao.product} of unknown version" in found["seen"]
    # nor does its ledger call that a change of the product
    assert rig.rows("SELECT * FROM findings WHERE rule = 'another_server'") == []
    between.down()


def test_a_task_is_sealed_once_its_settle_window_is_over_and_not_before(rig: Rig, spec: Spec) -> None:
    # long enough that no machine is too slow to be early
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_SETTLE_WINDOW": "6s"}
    file = spec()
    rig.active(file)
    assert rig("operator", "complete", file.stem).json["state"] == "confirmed"
    for _ in range(60):
        if rig("operator", "status", file.stem).json["state"] == "sealed":
            break
        time.sleep(0.2)
    sealed, worker = rig.record(file.stem), rig.wiring().worker
    (at,) = [datetime.fromisoformat(event.at) for event in sealed.events if event.kind == "sealed"]
    tokens = tokens_of(sealed)
    lines = worker.ledger.trail(sealed).observations
    last = max(o.at for o in lines if o.actor in tokens or (o.kind is Kind.TOKEN_REVOKED and o.subject in tokens))
    assert at >= last + worker.settle_window
    before = size(rig)
    assert rig("operator", "complete", file.stem).json["state"] == "sealed"
    assert revocations(rig, before) == []
