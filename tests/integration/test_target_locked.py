"""One login that leaves nobody else a place at a PostgreSQL server, whose lock table is small here.

What it does takes a fraction of a second on a server with the usual size, too.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
from attended import Attended, wait_for
from commands import EXAMPLE
from rig import Held, Rig, own_rig
from targets import Clients, Sleeper, large_objects, superuser, world_on

from jitvault.engines.postgresql.probe import PostgresqlProbe
from jitvault.errors import NotConfirmed
from jitvault.sandbox.world import World, env

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]
FILL = (
    "DO $$ BEGIN FOR i IN 1..1000000 LOOP PERFORM pg_advisory_lock(i); END LOOP; "
    "EXCEPTION WHEN OTHERS THEN NULL; END $$",
)
CONNECTIONS = 60


@pytest.fixture(scope="module", params=["newest", "older"])
def attacked(request: pytest.FixtureRequest) -> Iterator[World]:
    with world_on(request.param, max_locks_per_transaction="20", max_connections=str(CONNECTIONS)) as world:
        superuser(world, "app", "GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO PUBLIC")
        yield world


@pytest.fixture
def probe() -> Iterator[PostgresqlProbe]:
    """One that stands by, as a worker's does."""
    with closing(PostgresqlProbe()) as one:
        yield one


@pytest.fixture
def rig(attacked: World, tmp_path: Path) -> Rig:
    return own_rig(attacked, env(attacked, "", EXAMPLE), tmp_path)


def dsn(rig: Rig, held: Held) -> str:
    return rig.world.servers.postgres.dsn("app", **held.login)


def takes_every_lock(hog: psycopg.Connection[Any], rig: Rig) -> bool:
    """Fill the lock table, and return whether nobody gets in.

    What autovacuum held meanwhile is free afterwards: the next call takes that, too.
    """
    with suppress(psycopg.errors.OutOfMemory):
        hog.execute(FILL[0])
    return nobody_gets_in(rig)


def nobody_gets_in(rig: Rig) -> bool:
    try:
        psycopg.connect(rig.world.target_dsn).close()
    except psycopg.OperationalError:
        return True
    return False


def kept(rig: Rig) -> bool:
    """Whether a worker keeps a session at the target, in the transaction that has all the locks."""
    query = "SELECT FROM pg_stat_activity WHERE application_name = 'jitvault-kept' AND state = 'idle in transaction'"
    with psycopg.connect(rig.world.target_dsn) as target:
        return target.execute(query).fetchone() is not None


def test_a_session_that_is_open_ends_who_took_every_lock(rig: Rig, spec: Spec, probe: PostgresqlProbe) -> None:
    held = rig.active(spec())
    where = rig.document("probes/postgres")
    assert probe.stand_by(where) == []
    with closing(rig.connect(held.login)) as hog:
        wait_for(lambda: takes_every_lock(hog, rig))
        # the probe's own way in is shut as well, and the open session still sees
        assert probe.ask(where, [held.login["user"]], look_only=True)[held.login["user"]].open_sessions == 1
        with pytest.raises(NotConfirmed):
            PostgresqlProbe().ask(where, [held.login["user"]])
        assert probe.stand_by(where) == [held.login["user"]]
        wait_for(lambda: not nobody_gets_in(rig), 5)
        with pytest.raises(psycopg.OperationalError):
            hog.execute("SELECT 1")
    # nobody else is thrown out
    with closing(rig.connect(rig.active(spec()).login)) as session:
        assert probe.stand_by(where) == [held.login["user"]]
        session.execute("SELECT 1")


def test_one_login_that_takes_every_lock_keeps_no_other_task_from_its_end(rig: Rig, spec: Spec) -> None:
    mine, other = spec(), spec()
    held = rig.active(mine)
    rig.active(other)
    with Attended(rig) as worker:
        wait_for(lambda: kept(rig))
        with Clients(dsn(rig, held), 3, FILL):
            rig("operator", "revoke", other.stem, "--wait", "20", code=None)
            wait_for(lambda: rig.record(other.stem).leases[0].dead_at, 15)
        assert worker.log.all_of("a login locked everybody out of its target; its sessions are ended")
        assert rig.findings(mine.stem) == ["target_locked"]
        wait_for(lambda: rig("operator", "complete", mine.stem, code=None).json["confirmed"])
    record = rig.record(other.stem)
    begun, token_dead, lease_dead = record.task.ending_at, record.grants[-1].dead_at, record.leases[0].dead_at
    assert begun and token_dead and lease_dead
    assert token_dead - begun < timedelta(seconds=5)
    assert lease_dead - begun < timedelta(seconds=10)


def rests(rig: Rig, file: Path) -> bool:
    """Whether the task's lease is known, and was renewed if it is to be: a worker does that when it sees one first.

    Vault changes the role's row for that, and who changes it at the same moment is refused.
    """
    leases, soon = rig.record(file.stem).leases, datetime.now(UTC) + timedelta(seconds=20)
    return bool(leases) and all(lease.renew_at is None or lease.renew_at > soon for lease in leases)


READS = "SELECT count(*) FROM {}"
QUEUES = {
    "a rule on who logs in": (
        READS.format("pg_roles"),
        "CREATE RULE r AS ON INSERT TO pg_catalog.pg_authid DO NOTHING",
    ),
    "a rule on large objects": (
        READS.format("pg_largeobject_metadata"),
        "CREATE RULE r AS ON INSERT TO pg_catalog.pg_largeobject_metadata DO NOTHING",
    ),
    "a trigger": (
        "ALTER ROLE CURRENT_USER PASSWORD 'mine'",
        "CREATE TRIGGER t AFTER INSERT ON pg_catalog.pg_authid EXECUTE FUNCTION pg_catalog.now()",
    ),
    "the database": ("", "DROP DATABASE app"),
}


@pytest.mark.parametrize("what", QUEUES)
def test_a_login_that_locks_a_catalog_is_disconnected(rig: Rig, spec: Spec, what: str) -> None:
    """These wait before they are refused: behind them nobody gets in, or Vault revokes nothing."""
    mine, other = spec(), spec()
    held, others = rig.active(mine), rig.active(other)
    first, queues = QUEUES[what]
    with Attended(rig) as worker:
        wait_for(lambda: kept(rig) and rests(rig, mine))
        with ExitStack() as stack:
            holder = stack.enter_context(closing(rig.connect(held.login)))
            if first:
                holder.execute(f"BEGIN; {first}".encode())
                stack.enter_context(Clients(dsn(rig, held), 2, (queues,)))
            else:
                Sleeper(dsn(rig, held), seconds=600)
                time.sleep(0.5)
                Thread(target=refused, args=(holder, queues), daemon=True).start()
            wait_for(
                lambda: worker.log.all_of("a login locked everybody out of its target; its sessions are ended"), 10
            )
            rig("operator", "revoke", other.stem, "--wait", "20", code=None)
            wait_for(lambda: rig.record(other.stem).leases[0].dead_at, 15)
            assert not rig.lease_is_live(others.lease_id)
        wait_for(lambda: rig("operator", "complete", mine.stem, code=None).json["confirmed"])


def refused(session: psycopg.Connection[Any], statement: str) -> None:
    with suppress(psycopg.Error):
        session.execute(statement.encode())


def test_what_serializable_isolation_remembers_takes_nobodys_place(
    rig: Rig, spec: Spec, probe: PostgresqlProbe
) -> None:
    """Its marks (SIReadLock) have a table of their own, and one report over some tables leaves hundreds of them."""
    held, where = rig.active(spec()), rig.document("probes/postgres")
    tables = [f"public.report_{n}" for n in range(60)]
    filled = "AS SELECT id, repeat('x', 2000) AS pad FROM generate_series(1, 60) AS id"
    made = [f"CREATE TABLE {t} {filled}; CREATE INDEX ON {t} (id); GRANT SELECT ON {t} TO PUBLIC" for t in tables]
    superuser(rig.world, "app", *made)
    try:
        with closing(rig.connect(held.login)) as reader:
            reader.execute("BEGIN ISOLATION LEVEL SERIALIZABLE; SET enable_seqscan = off; SET enable_bitmapscan = off")
            for table in tables:
                reader.execute(f"SELECT count(pad) FROM {table} WHERE id > 0".encode())
            counted = reader.execute("SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock'").fetchone()
            assert counted is not None and counted[0] > 20 * CONNECTIONS / 2
            assert probe.stand_by(where) == []
            reader.execute("SELECT 1")
    finally:
        superuser(rig.world, "app", *(f"DROP TABLE {table}" for table in tables))


def test_who_waits_for_the_kept_session_gets_what_it_waits_for(rig: Rig, probe: PostgresqlProbe) -> None:
    where = rig.document("probes/postgres")
    lock = "BEGIN; LOCK TABLE pg_catalog.pg_auth_members IN ACCESS EXCLUSIVE MODE; COMMIT"
    probe.stand_by(where)
    with pytest.raises(psycopg.errors.LockNotAvailable):
        superuser(rig.world, "app", "SET lock_timeout = '100ms'", lock)
    waiting = Thread(target=superuser, args=(rig.world, "app", lock), daemon=True)
    waiting.start()
    time.sleep(0.3)
    probe.stand_by(where)
    waiting.join(5)
    assert not waiting.is_alive()


def test_more_large_objects_than_the_server_has_locks_do_not_keep_a_login(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    with large_objects(rig.world), rig.connect(held.login) as session:
        for _ in range(20):
            session.execute("SELECT count(lo_create(0)) FROM generate_series(1, 500)")
    wait_for(lambda: rig("operator", "complete", file.stem, code=None).json["confirmed"], 30)
    assert held.login["user"] not in rig.database_roles()


@contextmanager
def half_open(rig: Rig, user: str) -> Iterator[None]:
    """Every connection that the server has, taken by somebody who says who they are and gives no password."""
    postgres = rig.world.servers.postgres
    said = struct.pack("!I", 196608) + b"user\0" + user.encode() + b"\0database\0app\0\0"
    with ExitStack() as stack:
        for _ in range(2 * CONNECTIONS):
            one = stack.enter_context(socket.create_connection((postgres.host, postgres.port), timeout=5))
            one.sendall(struct.pack("!I", len(said) + 4) + said)
        wait_for(lambda: nobody_gets_in(rig))
        yield
    wait_for(lambda: not nobody_gets_in(rig))


def test_exhausted_connections_block_no_end_over_a_connection_that_is_open(
    rig: Rig, spec: Spec, probe: PostgresqlProbe
) -> None:
    file = spec()
    held = rig.active(file)
    where = rig.document("probes/postgres")
    probe.stand_by(where)
    name = held.login["user"]
    with half_open(rig, name):
        rig.admin.write("sys/leases/revoke", {"lease_id": held.lease_id, "sync": True})
        found = probe.ask(where, [name])[name]
        with pytest.raises(NotConfirmed):
            PostgresqlProbe().ask(where, [name])
    assert (found.refused, found.open_sessions) == (True, 0)
