"""What administrators do around a revocation, in good faith or not, and what is left of the proof.

A token has no backend, so whoever ends it, it is dead. A lease has one: what somebody else revoked, tidied or sent to
another server is gone by Vault's word alone, and nothing of that is called confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rig import PREFIX, ROLE, Held, Rig

from jitvault.sandbox import target
from jitvault.sandbox.postgres import Postgres

pytestmark = pytest.mark.usefixtures("lab", "hurried", "checked")
Spec = Callable[..., Path]
ENGINE_ROLE, CONNECTION = "database/roles/app-readonly", "database/config/app"


def complete(rig: Rig, file: Path, *, code: int) -> dict[str, Any]:
    answer: dict[str, Any] = rig("operator", "complete", file.stem, code=code).json
    assert answer["confirmed"] is (code == 0)
    return answer


def failed(credential: dict[str, Any]) -> set[int]:
    return {check["n"] for check in credential["checks"] if not check["ok"]}


def at_target(rig: Rig, statement: str) -> None:
    with psycopg.connect(rig.elsewhere, autocommit=True) as database:
        database.execute(statement.encode())


def still_works(rig: Rig, held: Held) -> bool:
    with rig.connect(held.login) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


# -- tidy after a revocation that failed -----------------------------------------------------------------------


def test_what_was_tidied_after_its_revocation_failed_is_never_confirmed(rig: Rig, spec: Spec) -> None:
    """With its token gone a lease is one that `tidy` drops, whatever the backend says: "invalid lease" is true then."""
    file = spec()
    held = rig.active(file)
    login = held.login["user"]
    at_target(rig, f'CREATE SCHEMA kept AUTHORIZATION "{login}"')
    assert complete(rig, file, code=6)["leases"][0]["verdict"] == "revoke_failed"
    rig.admin.write("sys/leases/tidy")
    until = time.monotonic() + 10
    while rig.lease_is_live(held.lease_id):
        assert time.monotonic() < until, "tidy did not drop it"
        time.sleep(0.05)
    for _ in range(2):
        (lease,) = complete(rig, file, code=6)["leases"]
        assert lease["verdict"] in ("gone", "revoke_failed")
        assert {4, 6} <= failed(lease)
        assert login in rig.database_roles()
    at_target(rig, f'DROP SCHEMA kept; DROP OWNED BY "{login}"; DROP ROLE "{login}"')
    (lease,) = complete(rig, file, code=6)["leases"]
    # the target says so now, and the stream still cannot
    assert 4 in failed(lease)
    assert 6 not in failed(lease)


# -- everything below a prefix ---------------------------------------------------------------------------------


def test_breaking_the_glass_leaves_a_token_provable_and_its_leases_by_our_own_revocation(rig: Rig, spec: Spec) -> None:
    """Who ends every token of our role in an emergency ends them; the leases are ended by us as ever."""
    files = [spec(), spec()]
    holders = [rig.active(file) for file in files]
    rig.admin.write(f"sys/leases/revoke-prefix/{ROLE}", {"sync": True})
    assert not any(rig.is_live(held.token) for held in holders)
    for file, held in zip(files, holders, strict=True):
        ended = complete(rig, file, code=0)
        assert (ended["token"]["verdict"], failed(ended["token"])) == ("audit_confirmed", set())
        (lease,) = ended["leases"]
        assert (lease["verdict"], failed(lease)) == ("target_confirmed", set())
        assert held.login["user"] not in rig.database_roles()


@pytest.mark.parametrize("prefix", [PREFIX, "database", "its own id"])
def test_a_lease_that_somebody_else_revoked_by_a_prefix_is_not_confirmed(rig: Rig, spec: Spec, prefix: str) -> None:
    file = spec()
    held = rig.active(file)
    below = held.lease_id if prefix == "its own id" else prefix
    rig.admin.write(f"sys/leases/revoke-prefix/{below}", {"sync": True})
    assert not rig.lease_is_live(held.lease_id)
    ended = complete(rig, file, code=6)
    (lease,) = ended["leases"]
    assert (lease["verdict"], failed(lease)) == ("gone", {4})
    assert (ended["token"]["verdict"], failed(ended["token"]) - {7}) == ("audit_confirmed", set())


def test_what_somebody_revoked_by_another_prefix_takes_no_proof_away(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    for prefix in (PREFIX[:-1], "database/creds/app-readwrite", "auth/token/create/jitvault-1h"):
        rig.admin.write(f"sys/leases/revoke-prefix/{prefix}", {"sync": True})
    assert complete(rig, file, code=0)["leases"][0]["verdict"] == "target_confirmed"


# -- a lease that never was ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rewritten", [False, True])
def test_a_lease_that_was_never_issued_is_never_confirmed(rig: Rig, spec: Spec, rewritten: bool) -> None:
    """Vault revokes any name with 204 and then says "invalid lease"; here the ledger is made to believe in one."""
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    if rewritten:
        rig.rewrite_events(file.stem, lambda e: not (e.kind == "observed" and e.body["leases"]))
    rig.drop_triggers()
    never = held.lease_id[:-4] + "0000"
    assert rig.sql("UPDATE leases SET lease_id = ? WHERE lease_id = ?", never, held.lease_id) == 1
    ended = rig("operator", "complete", file.stem, code=12)
    assert '"confirmed": true' not in ended.stdout
    assert rig.findings(file.stem) == ["ledger_rolled_back" if rewritten else "ledger_edited"]
    assert not [row for row in rig.rows("SELECT verdict FROM leases") if row[0].endswith("_confirmed")]


# -- another server --------------------------------------------------------------------------------------------


@contextmanager
def moved(rig: Rig, second: Postgres) -> Iterator[None]:
    """Vault's connection points to `second`, where Vault has the same login, and afterwards to the first again."""
    before = (rig.admin.read(CONNECTION) or {})["data"]
    kept = {name: before[name] for name in ("plugin_name", "allowed_roles")}
    password = target.create(second).manager.reveal()
    at_target(rig, f"ALTER ROLE vault_manager PASSWORD '{password}'")

    def point(server: Postgres) -> None:
        url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{server.host}:{server.port}/app?sslmode=disable"
        login = {"username": "vault_manager", "password": password}
        rig.admin.write(CONNECTION, {**kept, **login, "connection_url": url})

    point(second)
    try:
        yield
    finally:
        point(rig.world.servers.postgres)


def test_a_connection_that_points_to_another_server_is_never_confirmed_over(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    """Without statements of its own Vault finds no such role there, has nothing to do, and says 204."""
    before = (rig.admin.read(ENGINE_ROLE) or {})["data"]
    kept = {name: before[name] for name in ("db_name", "default_ttl", "max_ttl", "creation_statements")}
    rig.admin.write(ENGINE_ROLE, {**kept, "revocation_statements": []})
    rig.vouch()
    file = spec()
    held = rig.active(file)
    with Postgres(tmp_path / "second") as second, moved(rig, second):
        (lease,) = complete(rig, file, code=6)["leases"]
        assert (lease["verdict"], failed(lease)) == ("gone", {4, 6})
        assert not rig.lease_is_live(held.lease_id)
        assert still_works(rig, held)
    # back at the first one Vault knows of no lease that it could revoke
    (lease,) = complete(rig, file, code=6)["leases"]
    assert (lease["verdict"], failed(lease)) == ("gone", {4, 6})
    assert still_works(rig, held)
    at_target(rig, f'DROP OWNED BY "{held.login["user"]}"; DROP ROLE "{held.login["user"]}"')
    rig.admin.write(ENGINE_ROLE, {**kept, "revocation_statements": before["revocation_statements"]})
