"""PostgreSQL servers for attacks at the target: the wheel's and an older one, with autovacuum and silent strangers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rig import Held, Rig, rests_on

from jitvault.sandbox.postgres import Postgres
from jitvault.sandbox.servers import running_servers
from jitvault.sandbox.world import World, provisioned

OF_THE_SYSTEM = Path("/usr/lib/postgresql")
"""Where Debian has its PostgreSQL, one directory for each version."""
NEWEST = 18
# strangers are not to be thrown out by the server while the tests run
BUSY = {"autovacuum": "on", "autovacuum_naptime": "1s", "authentication_timeout": "600s"}
# as long as a request may hang in Vault by default, or nearly so: the sandbox's 2 s would hide one that does
REQUEST = timedelta(seconds=20)
LOCK = ("BEGIN", "ALTER ROLE CURRENT_USER PASSWORD 'mine'")
"""What a login does to lock its own role."""


def older() -> tuple[Path, int]:
    """The oldest PostgreSQL of the system and its version; skips where there is none, and fails in `.ci/run`."""
    found = sorted(int(path.name) for path in OF_THE_SYSTEM.glob("[0-9]*") if (path / "bin" / "postgres").is_file())
    if found and found[0] < NEWEST:
        return OF_THE_SYSTEM / str(found[0]), found[0]
    said = "an older PostgreSQL is needed: apt-get install postgresql-15"
    if os.environ.get("JITVAULT_TEST_NEEDS_OLDER_POSTGRESQL"):
        pytest.fail(said)
    pytest.skip(said)


@contextmanager
def world_on(version: str, **settings: str) -> Iterator[World]:
    """A world whose target is the wheel's server ("newest") or the system's ("older"), in which strangers wait."""

    def postgres_in(directory: Path) -> Postgres:
        if version == "newest":
            return Postgres(directory, settings={**BUSY, **settings})
        programs, major = older()
        return Postgres(directory, programs=programs, major=major, settings={**BUSY, **settings})

    with ExitStack() as stack:
        servers = stack.enter_context(running_servers(max_request_duration=REQUEST, postgres_in=postgres_in))
        stack.enter_context(strangers(servers.postgres, 5))
        yield provisioned(servers)


@contextmanager
def strangers(postgres: Postgres, count: int) -> Iterator[None]:
    """Connections that never say who they are. They have to be there at the end as they were at the beginning."""
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection((postgres.host, postgres.port), timeout=5))
            for _ in range(count)
        ]
        yield
        for one in silent:
            one.setblocking(False)
            with pytest.raises(BlockingIOError):
                one.recv(1)


class Sleeper:
    """A login that sleeps before it has a user, and tries to read as soon as it wakes."""

    def __init__(self, dsn: str, *, seconds: int, role: str | None = None) -> None:
        self.read = False
        self._options = f"-c post_auth_delay={seconds}" + (f" -c role={role}" if role else "")
        self._thread = threading.Thread(target=self._sleep, args=(dsn,), daemon=True)
        self._thread.start()

    def _sleep(self, dsn: str) -> None:
        try:
            with psycopg.connect(dsn, options=self._options) as session:
                session.execute("SELECT customer FROM orders")
                self.read = True
        except psycopg.Error:
            return

    @property
    def sleeps(self) -> bool:
        return self._thread.is_alive()

    def woken(self) -> bool:
        """Whether it read, when it is over."""
        self._thread.join()
        return self.read


class Clients:
    """Threads that do the same with a login over and over, and connect anew when they are thrown out."""

    def __init__(self, dsn: str, count: int, statements: tuple[str, ...]) -> None:
        self._dsn, self._statements = dsn, statements
        self._stop = threading.Event()
        self._busy = threading.Barrier(count + 1)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        self._busy.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _work(self) -> None:
        first = True
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True) as session:
                    if first:
                        first = False
                        self._busy.wait(20)
                    self._repeat(session)
            except psycopg.Error:
                self._stop.wait(0.002)

    def _repeat(self, session: psycopg.Connection[Any]) -> None:
        for statement in self._statements:
            session.execute(statement.encode())
        while not self._stop.wait(0.005):
            session.execute("SELECT 1")


def superuser(world: World, database: str, *statements: str) -> None:
    with psycopg.connect(world.servers.postgres.dsn(database), autocommit=True) as session:
        for statement in statements:
            session.execute(statement.encode())


@contextmanager
def large_objects(world: World) -> Iterator[None]:
    """The reading template's logins may make large objects, as where an application needs that."""
    made_by = "FUNCTION pg_catalog.lo_create(oid), pg_catalog.lo_from_bytea(oid, bytea)"
    superuser(world, "app", f"GRANT EXECUTE ON {made_by} TO app_readonly")
    try:
        yield
    finally:
        superuser(world, "app", f"REVOKE EXECUTE ON {made_by} FROM app_readonly")


def dsn(rig: Rig, held: Held) -> str:
    return rig.world.servers.postgres.dsn("app", **held.login)


def ended(rig: Rig, task: str, *, code: int = 0) -> dict[str, Any]:
    answer: dict[str, Any] = rig("operator", "complete", task, code=code).json
    assert answer["confirmed"] is (code == 0)
    return answer


def target_says(answer: dict[str, Any]) -> str:
    """What the target said, where that is not that the credential is over."""
    return next(rests_on(c) for c in answer["leases"][0]["checks"] if c["n"] == 6 and not c["ok"])


def may_log_in(rig: Rig, held: Held) -> bool:
    try:
        rig.connect(held.login).close()
    except psycopg.OperationalError:
        return False
    return True
