"""What the holder of a PostgreSQL login does against its end, on the wheel's server and on an older one.

Autovacuum is on, and strangers are connected who never say who they are: the probe may end neither.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from commands import EXAMPLE
from rig import PREFIX, Held, Rig, own_rig
from targets import LOCK, Clients, Sleeper, dsn, ended, large_objects, may_log_in, superuser, target_says, world_on

from jitvault.engines.postgresql import sessions
from jitvault.engines.postgresql.probe import PostgresqlProbe
from jitvault.errors import VaultRejected
from jitvault.sandbox.world import World, env

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]


@pytest.fixture(scope="module", params=["newest", "older"])
def attacked(request: pytest.FixtureRequest) -> Iterator[World]:
    with world_on(request.param) as world:
        yield world
        log = world.servers.postgres.log_file.read_text()
        assert "terminating autovacuum" not in log


@pytest.fixture
def rig(attacked: World, tmp_path: Path) -> Rig:
    return own_rig(attacked, env(attacked, "", EXAMPLE), tmp_path)


# -- sleeping before there is a user ------------------------------------------------------------------------


def test_a_login_that_sleeps_is_found_and_reads_nothing_afterwards(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    sleepers = [Sleeper(dsn(rig, held), seconds=25)]
    if rig.world.servers.postgres.major < 16:
        # it would keep the group's rights; from 16 on it is refused
        sleepers.append(Sleeper(dsn(rig, held), seconds=25, role="app_readonly"))
    time.sleep(0.7)
    assert all(sleeper.sleeps for sleeper in sleepers)
    assert ended(rig, file.stem)["leases"][0]["verdict"] == "target_confirmed"
    assert not any(sleeper.sleeps for sleeper in sleepers)
    assert [sleeper.woken() for sleeper in sleepers] == [False] * len(sleepers)


def test_no_session_calls_itself_by_the_name_of_the_group(rig: Rig, spec: Spec) -> None:
    if rig.world.servers.postgres.major < 16:
        pytest.skip("before 16 nothing forbids it")
    held = rig.active(spec())
    with rig.connect(held.login) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SET ROLE app_readonly")


# -- functions that stand in the way -----------------------------------------------------------------------

_SHADOWS = (
    "pg_terminate_backend(integer, integer) RETURNS boolean",
    "pg_terminate_backend(integer, bigint) RETURNS boolean",
    "pg_terminate_backend(integer) RETURNS boolean",
    "pg_terminate_backend(smallint, smallint) RETURNS boolean",
    "pg_terminate_backend(integer, smallint) RETURNS boolean",
    "pg_has_role(name, text, text) RETURNS boolean",
    "pg_stat_clear_snapshot() RETURNS boolean",
    "format(text, name, text) RETURNS boolean",
    "same_name(name, text) RETURNS boolean",
)


@contextmanager
def open_schema(world: World) -> Iterator[None]:
    """`public` as databases have it that were upgraded from PostgreSQL 14, and connections made before the advice."""
    superuser(
        world,
        "app",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "CREATE TABLE public.caught (who text)",
        "GRANT INSERT, SELECT ON public.caught TO PUBLIC",
        *(f"ALTER ROLE {login} RESET search_path" for login in ("vault_manager", "jitvault_probe")),
        "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'vault_manager'",
    )
    try:
        yield
    finally:
        superuser(
            world,
            "app",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            "DROP TABLE public.caught",
            *(
                f"ALTER ROLE {login} SET search_path = pg_catalog, pg_temp"
                for login in ("vault_manager", "jitvault_probe")
            ),
        )


def test_no_function_of_the_login_is_called_at_its_end(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    with open_schema(rig.world), rig.connect(held.login) as session:
        for shadow in _SHADOWS:
            body = "BEGIN INSERT INTO public.caught VALUES (current_user); RETURN true; END"
            session.execute(f"CREATE FUNCTION public.{shadow} LANGUAGE plpgsql AS $${body}$$".encode())
        session.execute("CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.same_name)")
        ended(rig, file.stem)
        with psycopg.connect(rig.world.target_dsn) as target:
            assert target.execute("SELECT who FROM public.caught").fetchall() == []


# -- locks on its own role ------------------------------------------------------------------------------------


def test_eight_clients_that_lock_their_role_and_come_back_are_out_at_once(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    with Clients(dsn(rig, held), 8, LOCK):
        answer = ended(rig, file.stem)
    assert answer["leases"][0]["verdict"] == "target_confirmed"
    assert answer["dead_ms"] < 5_000


def test_five_logins_with_their_roles_locked_keep_no_other_task_from_its_end(rig: Rig, spec: Spec) -> None:
    """Vault's queue begins with all of theirs, and makes one at a time."""
    files = [spec() for _ in range(5)]
    lockers = [rig.active(file) for file in files]
    other = spec()
    held = rig.active(other)
    sessions = [rig.connect(locker.login) for locker in lockers]
    for session in sessions:
        for statement in LOCK:
            session.execute(statement.encode())
    for locker in lockers:
        rig.admin.write("auth/token/revoke", {"token": locker.token})
    begun = time.monotonic()
    assert ended(rig, other.stem)["leases"][0]["verdict"] == "target_confirmed"
    assert time.monotonic() - begun < 10
    assert not may_log_in(rig, held)
    for session in sessions:
        session.close()


def test_a_lock_that_nothing_takes_away_fails_one_revocation_and_delays_no_other(rig: Rig, spec: Spec) -> None:
    file = spec()
    busy = rig.active(file)
    with deaf(rig, busy.login, *LOCK):
        begun = time.monotonic()
        with pytest.raises(VaultRejected):
            rig.admin.write("sys/leases/revoke", {"lease_id": busy.lease_id, "sync": True})
        assert time.monotonic() - begun < 6
        # NOLOGIN was not to be had, but the group was taken away, and with it the right to connect
        assert not may_log_in(rig, busy)
    rig.admin.write("sys/leases/revoke", {"lease_id": busy.lease_id, "sync": True})
    assert busy.login["user"] not in rig.database_roles()


# -- making proofs wait -----------------------------------------------------------------------------------------


def test_a_session_that_does_not_end_counts_against_its_own_task_alone(rig: Rig, spec: Spec) -> None:
    file, other = spec(), spec()
    busy = rig.active(file)
    rig.active(other)
    with deaf(rig, busy.login):
        answer = rig("operator", "complete", file.stem, "--wait", "2", code=None).json
        begun = time.monotonic()
        ended(rig, other.stem)
        took = time.monotonic() - begun
    assert took < 8
    assert (answer["confirmed"], answer["leases"][0]["verdict"]) == (False, "revoke_failed")
    assert "do not end" in answer["leases"][0]["error"]
    assert "cannot log in, but still exists; 1 of its sessions open" in target_says(answer)
    assert ended(rig, file.stem)["leases"][0]["verdict"] == "target_confirmed"


@contextmanager
def deaf(rig: Rig, login: dict[str, str], *first: str) -> Iterator[None]:
    """A session that hears of no SIGTERM, as one in a statement of hundreds of `sha512` of 60 MB for half a minute."""
    with closing(rig.connect(login)) as session:
        for statement in first:
            session.execute(statement.encode())
        pid = session.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_session_of_a_role_that_is_gone_is_suspected_where_nobody_noted_whose_it_is(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "END_S", 0.3)
    busy, other = rig.active(spec()), rig.active(spec())
    where, names = rig.document("probes/postgres"), [other.login["user"]]
    engine = PostgresqlProbe()
    with rig.connect(other.login) as session:
        # nothing of a login that may still be in use is ended
        assert engine.ask(where, names, look_only=True)[names[0]].open_sessions == 1
        assert session.execute("SELECT 1").fetchone() == (1,)
    with deaf(rig, busy.login):
        superuser(rig.world, "app", *(f'DROP OWNED BY "{one}"; DROP ROLE "{one}"' for one in _names(busy, other)))
        found = engine.ask(where, [*names, busy.login["user"]])
        suspicious = PostgresqlProbe().ask(where, names)[names[0]]
    assert [(one.refused, one.open_sessions) for one in found.values()] == [(True, 0), (True, 1)]
    assert (suspicious.refused, suspicious.open_sessions) == (True, 1)
    assert "may be its own" in suspicious.evidence


def _names(*held: Held) -> list[str]:
    return [one.login["user"] for one in held]


def test_whatever_one_agent_does_at_once_another_task_is_revoked_in_time(rig: Rig, spec: Spec) -> None:
    attacker, other = rig.active(spec()), spec()
    rig.active(other)
    token = rig.vault(attacker.token)
    more = [(token.read(PREFIX) or {})["data"] for _ in range(4)]
    logins = [attacker.login, *({"user": one["username"], "password": one["password"]} for one in more)]
    with large_objects(rig.world), ExitStack() as stack:
        for login in logins:
            where = rig.world.servers.postgres.dsn("app", **login)
            Sleeper(where, seconds=20)
            stack.enter_context(deaf(rig, login, "SELECT lo_create(0)", *LOCK))
            stack.enter_context(Clients(where, 5, LOCK[:1]))
        rig.admin.write("auth/token/revoke", {"token": attacker.token})
        rig("operator", "revoke", other.stem, "--wait", "20", code=None)
    record = rig.record(other.stem)
    begun, token_dead, lease_dead = record.task.ending_at, record.grants[-1].dead_at, record.leases[0].dead_at
    assert begun and token_dead and lease_dead
    assert token_dead - begun < timedelta(seconds=5)
    assert lease_dead - begun < timedelta(seconds=10)


def test_one_login_does_not_take_every_connection(rig: Rig, spec: Spec) -> None:
    held = rig.active(spec())
    sessions: list[psycopg.Connection[Any]] = []
    try:
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            for _ in range(30):
                sessions.append(rig.connect(held.login))
    finally:
        for session in sessions:
            session.close()
    assert len(sessions) <= 10
