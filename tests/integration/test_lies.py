"""Vault says "revoked" for many reasons. Only what is really dead is called confirmed.

Most of these change the database mount under a running task, so they have servers of their own.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from rig import PREFIX, Held, Rig, rests_on

from jitvault.engines.postgresql.client import VAULTS_LOGINS
from jitvault.lifecycle import ending
from jitvault.sandbox.target import REVOCATION

pytestmark = pytest.mark.usefixtures("lab", "hurried")
Spec = Callable[..., Path]
ROLE = "database/roles/app-readonly"
CONNECTION = "database/config/app"


@pytest.fixture
def rig(rig: Rig) -> Rig:
    if "database" in {mount.rstrip("/") for mount in (rig.admin.read("sys/mounts") or {})["data"]}:
        rig.recheck()
    return rig


@contextmanager
def rewritten(rig: Rig, path: str, **change: object) -> Iterator[None]:
    """An engine's configuration, changed and put back."""
    before = (rig.admin.read(path) or {})["data"]
    fields = {"db_name", "default_ttl", "max_ttl", "creation_statements", "revocation_statements"}
    kept = {name: before[name] for name in fields}
    rig.admin.write(path, {**kept, **change})
    try:
        yield
    finally:
        rig.admin.write(path, kept)


def complete(rig: Rig, task: str, *, code: int) -> dict[str, Any]:
    answer: dict[str, Any] = rig("operator", "complete", task, code=code).json
    assert answer["confirmed"] is (code == 0)
    return answer


def failed(answer: dict[str, Any]) -> list[int]:
    """The numbers of the checks of the one lease that are not ok."""
    return [check["n"] for check in answer["leases"][0]["checks"] if not check["ok"]]


# -- revocations that do nothing -----------------------------------------------------------------------


def test_a_revocation_that_drops_nothing_is_not_target_confirmed(rig: Rig, spec: Spec) -> None:
    with rewritten(rig, ROLE, revocation_statements=["SELECT 1;"]):
        # what the check of the template is there to keep from being granted
        rig.vouch()
        file = spec()
        held = rig.active(file)
        ended = complete(rig, file.stem, code=6)
        assert (ended["leases"][0]["verdict"], failed(ended)) == ("audit_confirmed", [6])
        assert "0 of its sessions open" in _target_says(ended)
        with rig.connect(held.login) as session:
            # the same check fails: it ends the session, and the next one is let in
            assert "still exists and may log in" in _target_says(complete(rig, file.stem, code=6))
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")
        with rig.connect(held.login) as still_works:
            assert still_works.execute("SELECT 1").fetchone()
    _drop(rig, held.login["user"])
    assert complete(rig, file.stem, code=0)["leases"][0]["verdict"] == "target_confirmed"


def _target_says(ended: dict[str, Any]) -> str:
    (evidence,) = (rests_on(check) for check in ended["leases"][0]["checks"] if check["n"] == 6)
    return evidence


def test_a_role_that_owns_something_is_not_revoked_and_not_forgotten(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    # in another database, where Vault's login cannot remove it
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'CREATE SCHEMA kept AUTHORIZATION "{held.login["user"]}"'.encode())
        ended = complete(rig, file.stem, code=6)
        assert ended["leases"][0]["verdict"] == "revoke_failed"
        assert not rig.is_live(held.token)
        target.execute("DROP SCHEMA kept")
    assert complete(rig, file.stem, code=0)["leases"][0]["verdict"] == "target_confirmed"


# -- records that are made to vanish -------------------------------------------------------------------


def _tidy(rig: Rig, _held: Held) -> None:
    rig.admin.write("sys/leases/tidy")
    time.sleep(0.2)


def _revoke_force(rig: Rig, _held: Held) -> None:
    rig.admin.write(f"sys/leases/revoke-force/{PREFIX}")


def _somebody_else(rig: Rig, held: Held) -> None:
    rig.admin.write("sys/leases/revoke", {"lease_id": held.lease_id, "sync": True})


def _somebody_else_by_path(rig: Rig, held: Held) -> None:
    rig.admin.write(f"sys/leases/revoke/{held.lease_id}", {"sync": True})


def test_a_tidy_while_a_lease_lives_is_no_reason_to_doubt_its_end(rig: Rig, spec: Spec) -> None:
    """An administrator tidies by the clock. That a look-up found the lease afterwards is why it does not matter."""
    file = spec()
    held = rig.active(file)
    _tidy(rig, held)
    ended = complete(rig, file.stem, code=0)
    assert ended["leases"][0]["verdict"] == "target_confirmed"
    assert not rig.lease_is_live(held.lease_id)


@pytest.mark.parametrize(
    ("lie", "checks"),
    [(_revoke_force, [4]), (_somebody_else, [2]), (_somebody_else_by_path, [2])],
)
def test_a_lease_whose_record_others_took_away_is_not_confirmed_for_its_absence(
    rig: Rig, spec: Spec, lie: Callable[[Rig, Held], None], checks: list[int]
) -> None:
    file = spec()
    held = rig.active(file)
    lie(rig, held)
    ended = complete(rig, file.stem, code=6)
    assert set(checks) <= set(failed(ended))
    assert ended["leases"][0]["verdict"] == "gone"


def wrapped_read(rig: Rig, held: Held, **headers: str) -> str:
    """The agent has what it reads wrapped; gives the wrapping token. The audit line shows no lease then."""
    sent = {"X-Vault-Token": held.token, "X-Vault-Wrap-TTL": "60s", **headers}
    answer = requests.get(f"{rig.world.address}/v1/{PREFIX}", headers=sent, timeout=10).json()
    assert answer["wrap_info"]["creation_path"] == PREFIX
    return str(answer["wrap_info"]["token"])


def settled_by_listing(rig: Rig, task: str) -> dict[str, Any]:
    """The proof of a task whose lines do not say which leases it had; a listing of its prefixes and the target do."""
    ended = dict(rig("operator", "complete", task, code=12).json)
    assert ended["confirmed"]
    (quiet,) = [check for check in ended["token"]["checks"] if check["n"] == 7]
    said = f"a credential was read from {PREFIX} in a wrapping, so its lease is not known: listed"
    assert rests_on(quiet).endswith(said)
    assert [op.answer for op in rig.record(task).operations if op.kind == "list_leases"][-1] == "accounted"
    return ended


def test_a_credential_in_a_wrapping_that_nobody_opens_is_settled_by_a_listing(rig: Rig, spec: Spec) -> None:
    """No line shows its lease: Vault is asked which leases there are. It and the wrapping go with its token."""
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    before, wrappings = rig.database_roles(), _listed(rig, WRAPPING)
    wrapped_read(rig, held)
    (login,) = rig.database_roles() - before
    (wrapping,) = _listed(rig, WRAPPING) - wrappings
    ended = settled_by_listing(rig, file.stem)
    assert ended["leases"] == []
    assert rig.findings(file.stem) == ["wrapped_lease"]
    assert not rig.is_live(held.token)
    assert login not in rig.database_roles()
    assert wrapping not in _listed(rig, WRAPPING)


def listings(rig: Rig, task: str) -> list[str | None]:
    """What came of the listings of a task, as the file of its ledger has it at this moment."""
    query = "SELECT answer FROM operations WHERE task_id = ? AND kind = 'list_leases' AND answer IS NOT NULL"
    return [answer for (answer,) in rig.rows(f"{query} ORDER BY sent_at", task)]


def test_what_goes_with_its_token_a_moment_later_is_waited_for_and_alarms_nobody(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target keeps Vault waiting for as long as the first listing takes, which Vault bears for a second."""
    monkeypatch.setattr(ending, "_is_quiet_second", lambda *_: False)
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    wrapped_read(rig, held)
    with psycopg.connect(rig.world.target_dsn) as target:
        target.execute("LOCK TABLE pg_authid IN SHARE MODE")

        def once_listed() -> None:
            give_up = time.monotonic() + 20
            while not listings(rig, file.stem) and time.monotonic() < give_up:
                time.sleep(0.05)
            target.rollback()

        release = threading.Thread(target=once_listed)
        release.start()
        settled_by_listing(rig, file.stem)
        release.join()
    assert listings(rig, file.stem)[0] == "not accounted for"
    assert rig.findings(file.stem) == ["wrapped_lease"]


def test_a_credential_in_a_wrapping_whose_lease_lives_on_is_never_confirmed_over(rig: Rig, spec: Spec) -> None:
    """Its role owns something elsewhere, so Vault cannot drop it, and nobody knows its lease."""
    file = spec()
    held = rig.use(rig.granted(file), read=False)
    before, leases = rig.database_roles(), _listed(rig, LEASE)
    wrapped_read(rig, held)
    (login,) = rig.database_roles() - before
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'CREATE SCHEMA mine AUTHORIZATION "{login}"'.encode())
        for _ in range(2):
            complete(rig, file.stem, code=6)
            assert "unaccounted_lease" in rig.findings(file.stem)
        assert login in rig.database_roles()
        target.execute("DROP SCHEMA mine")
    (lease_id,) = _listed(rig, LEASE) - leases
    told = rig("operator", "status", file.stem, code=12).json["findings"]
    assert any(lease_id in found["message"] for found in told if found["rule"] == "unaccounted_lease")
    rig.admin.write("sys/leases/revoke", {"lease_id": lease_id, "sync": True})
    settled_by_listing(rig, file.stem)
    assert login not in rig.database_roles()


# the names of a token's own lease and of an engine's
WRAPPING, LEASE = re.compile(r"h[0-9a-f]{64}"), re.compile(r"\w{24}")


def _listed(rig: Rig, kind: re.Pattern[str]) -> set[str]:
    """What Vault lists of one kind below the task's path."""
    return {f"{PREFIX}/{key}" for key in rig.admin.list(f"sys/leases/lookup/{PREFIX}/") if kind.fullmatch(key)}


def test_who_names_logins_in_a_way_of_their_own_gets_no_proof_of_what_was_wrapped(rig: Rig, spec: Spec) -> None:
    """Nothing tells such a login from anybody's, so the task stays as it is and says why."""
    rig.admin.write(CONNECTION, {"username_template": "own-{{random 12}}"})
    # as the shipped templates say: a revocation knows the connection's other logins by their names
    own = [statement.replace(VAULTS_LOGINS, "^own-") for statement in REVOCATION]
    try:
        with (
            rewritten(rig, ROLE, revocation_statements=own),
            rewritten(rig, ROLE.replace("readonly", "readwrite"), revocation_statements=own),
        ):
            rig.recheck()
            file = spec()
            wrapped_read(rig, rig.use(rig.granted(file), read=False))
            ended = complete(rig, file.stem, code=6)
        (quiet,) = [check for check in ended["token"]["checks"] if check["n"] == 7]
        assert (quiet["ok"], "a username_template of its own" in rests_on(quiet)) == (False, True)
    finally:
        rig.admin.write(CONNECTION, {"username_template": ""})


# -- the engine is changed under the task ----------------------------------------------------------------


def test_a_role_that_is_rewritten_ends_the_task_as_drift_and_its_lease_is_not_confirmed(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    with rewritten(rig, ROLE, revocation_statements=["SELECT 1;"]):
        status = rig("operator", "status", file.stem, code=None).json
        assert status["end_reason"] == "drift"
        assert status["state"] == "ending"
        assert 4 in failed(complete(rig, file.stem, code=6))
        assert not rig.is_live(held.token)


def test_a_connection_that_is_rewritten_is_never_confirmed_over(rig: Rig, spec: Spec) -> None:
    """Pointed elsewhere, Vault revokes at the wrong server and says 204."""
    file = spec()
    rig.active(file)
    rig.admin.write(CONNECTION, {"max_open_connections": 5})
    ended = complete(rig, file.stem, code=6)
    assert failed(ended) == [4]
    assert ended["leases"][0]["verdict"] == "gone"


def test_a_role_that_is_rewritten_before_the_grant_makes_the_approval_void(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    rig("operator", "grant", file, code=4)
    rig("approver-1", "approve", file.stem, "--yes")
    with rewritten(rig, ROLE, revocation_statements=["SELECT 1;"]):
        refused = rig("operator", "grant", file.stem, code=8).error
        assert "the engine's role or connection was changed since" in refused["message"]
        rig.vouch()
        rig("operator", "grant", file.stem, code=4)
        assert rig.task_tokens(file.stem) == []


# -- clients that do not want to go ----------------------------------------------------------------------


def test_a_client_that_reconnects_all_the_time_has_no_session_left(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    stop = threading.Event()
    open_ones: list[psycopg.Connection[Any]] = []

    def reconnect() -> None:
        """Hold one session, and open another as soon as it is ended."""
        while not stop.is_set():
            try:
                with rig.connect(held.login) as connection:
                    open_ones.append(connection)
                    while not stop.is_set():
                        connection.execute("SELECT pg_sleep(0.001)")
            except psycopg.OperationalError:
                continue

    threads = [threading.Thread(target=reconnect) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    try:
        ended = complete(rig, file.stem, code=0)
        assert _sessions(rig) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert ended["leases"][0]["verdict"] == "target_confirmed"
    assert len(open_ones) >= len(threads)


# -- the target is away ------------------------------------------------------------------------------------


def test_what_cannot_be_revoked_now_is_proven_when_the_target_is_back(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    rig.world.servers.postgres.kill()
    try:
        ended = complete(rig, file.stem, code=6)
        assert ended["leases"][0]["verdict"] == "revoke_failed"
        assert not rig.is_live(held.token)
        assert rig.lease_is_live(held.lease_id)
    finally:
        rig.world.servers.postgres.start()
    ended = complete(rig, file.stem, code=0)
    assert ended["leases"][0]["verdict"] == "target_confirmed"
    assert held.login["user"] not in rig.database_roles()


def test_a_target_that_cannot_be_asked_is_no_proof(rig: Rig, spec: Spec) -> None:
    """Revoked and gone, and the probe is told a wrong password: nothing is called confirmed."""
    file = spec()
    rig.active(file)
    right = rig.document("probes/postgres")
    rig.put("probes/postgres", {"dsn": rig.world.servers.postgres.dsn("app", user="jitvault_probe", password="x")})
    try:
        ended = complete(rig, file.stem, code=6)
        assert (ended["leases"][0]["verdict"], failed(ended)) == ("audit_confirmed", [6])
    finally:
        rig.put("probes/postgres", right)
    complete(rig, file.stem, code=0)


def test_an_unmounted_engine_is_no_proof(rig: Rig, spec: Spec) -> None:
    """The last one: afterwards there is no database mount."""
    file = spec()
    rig.active(file)
    rig.admin.delete("sys/mounts/database")
    ended = complete(rig, file.stem, code=6)
    assert 4 in failed(ended)
    assert ended["leases"][0]["verdict"] == "gone"


def _drop(rig: Rig, role: str) -> None:
    with psycopg.connect(rig.world.target_dsn, autocommit=True) as target:
        target.execute(f'DROP ROLE "{role}"'.encode())


def _sessions(rig: Rig) -> int:
    """Sessions of task roles, also of those that do not exist any more."""
    query = """
        SELECT count(*) FROM pg_stat_activity
        WHERE usesysid IS NOT NULL AND (usename LIKE 'v-%' OR usesysid NOT IN (SELECT oid FROM pg_roles))
    """
    with psycopg.connect(rig.world.target_dsn) as target:
        row = target.execute(query).fetchone()
    return int(row[0]) if row else 0
