"""A standby lets in whoever the primary lets in: every server is named, asked, and has to say that a login is dead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rig import Rig
from standby import Standby, replicated

from jitvault.sandbox.world import World

pytestmark = pytest.mark.usefixtures("hurried")
NAME = "postgres-readonly"


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[World, Standby]]:
    with replicated() as found:
        yield found


@pytest.fixture(scope="module")
def lab(both: tuple[World, Standby]) -> World:
    return both[0]


@pytest.fixture
def standby(both: tuple[World, Standby]) -> Standby:
    return both[1]


@pytest.fixture
def named(rig: Rig, lab: World, standby: Standby) -> Iterator[None]:
    """The probe's document names the standby, and the templates passed their check so."""
    alone = rig.document("probes/postgres")
    there = alone["dsn"].replace(f"port='{lab.servers.postgres.port}'", f"port='{standby.port}'")
    assert there != alone["dsn"]
    rig.put("probes/postgres", {**alone, "replicas": [there]})
    rig.recheck()
    yield
    rig.put("probes/postgres", alone)


def at(standby: Standby, login: dict[str, str]) -> psycopg.Connection[Any]:
    return psycopg.connect(standby.dsn("app", **login), autocommit=True)


def once_replayed(standby: Standby, login: dict[str, str]) -> psycopg.Connection[Any]:
    """A session there as soon as the standby has heard of the login."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return at(standby, login)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def is_open(session: psycopg.Connection[Any]) -> bool:
    try:
        session.execute("SELECT count(*) FROM orders")
    except psycopg.Error:
        return not session.closed
    return True


def test_a_standby_that_is_not_named_is_found_before_anything_is_granted(rig: Rig, lab: World) -> None:
    checked = rig("admin", "templates", "check", NAME, code=6).json["paths"][0]
    (failed,) = [step for step in checked["steps"] if not step["ok"]]
    assert (failed["n"], failed["name"]) == (14, "servers_named")
    assert "1 standbys stream from the servers that the probe's document names, and it names 0" in failed["evidence"]
    assert "`replicas` in the probe's document" in failed["mend"]
    told = [
        c for c in rig("admin", "doctor", code=None).json["checks"] if c["area"] == "targets" and c["status"] != "ok"
    ]
    assert {(c["status"], c["name"]) for c in told} == {("fail", "postgres-readonly, postgres-readwrite: standbys")}


@pytest.mark.usefixtures("named")
def test_a_session_on_a_standby_ends_with_its_task(rig: Rig, standby: Standby, spec: Callable[..., Path]) -> None:
    file = spec()
    login = rig.active(file).login
    with once_replayed(standby, login) as session:
        assert is_open(session)
        done = rig("operator", "complete", file.stem).json
        assert done["confirmed"] and not is_open(session)
    with pytest.raises(psycopg.OperationalError):
        at(standby, login)


@pytest.mark.usefixtures("named")
def test_a_standby_that_is_behind_says_nothing_about_a_login_that_it_does_not_know_yet(
    rig: Rig, standby: Standby, spec: Callable[..., Path]
) -> None:
    file = spec()
    with psycopg.connect(standby.dsn("app"), autocommit=True) as keeper:
        # a lock at the primary and a transaction here do the same
        keeper.execute("SELECT pg_wal_replay_pause()")
        try:
            login = rig.active(file).login
            proof = rig("operator", "complete", file.stem, code=6).json
            assert not proof["confirmed"] and "has not replayed" in proof["unproven_because"]
        finally:
            keeper.execute("SELECT pg_wal_replay_resume()")
    assert rig("operator", "complete", file.stem).json["confirmed"]
    with pytest.raises(psycopg.OperationalError):
        at(standby, login)


@pytest.mark.usefixtures("named")
def test_a_standby_that_cannot_be_asked_leaves_its_task_unproven(
    rig: Rig, standby: Standby, spec: Callable[..., Path]
) -> None:
    file = spec()
    rig.active(file)
    standby.kill()
    try:
        assert not rig("operator", "complete", file.stem, code=6).json["confirmed"]
    finally:
        standby.start()
    assert rig("operator", "complete", file.stem).json["confirmed"]
