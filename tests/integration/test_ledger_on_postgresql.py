"""The story, deaths at any moment, and several processes at once, with the ledger on PostgreSQL.

They are tests that run on SQLite as well, less of them. `make test-postgresql` runs all others like this.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import test_crash
from attended import wait_for
from commands import EXAMPLE, without_limits
from ledgers import Shelf, address, ask, new_place, shelf_of
from rig import Rig, own_rig
from test_crash import test_a_grant_that_dies_anywhere_ends_in_one_token  # noqa: F401 - run here once more
from test_two_at_once import test_four_processes_grant_ten_tasks_on_one_ledger  # noqa: F401

from jitvault.ledger.ledger import Ledger
from jitvault.ledger.storage.database import opened
from jitvault.model.event_chain import chain_problems
from jitvault.sandbox.world import World, env

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LISTENING = "pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN jitvault'"
TWO_WORKERS = Path(__file__).parent / "due_worker.py"


@pytest.fixture(autouse=True)
def fewer_deaths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the ledger is matters around the acts that it has intents of; the rest is tried on SQLite."""
    monkeypatch.setattr(test_crash, "ACTS", ("/v1/auth/token/create/", "/v1/sys/leases/revoke/"))
    monkeypatch.setattr(test_crash, "SAMPLE", 2)


@pytest.fixture(scope="module")
def variables(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    ledger = address(new_place(world.servers.postgres, Path(), "postgresql"))
    policies = without_limits(tmp_path_factory.mktemp("policies"))
    return {**env(world, ledger, EXAMPLE), "JITVAULT_POLICIES": str(policies)}


@pytest.fixture
def rig(world: World, variables: dict[str, str], tmp_path: Path) -> Rig:
    return own_rig(world, variables, tmp_path)


@pytest.fixture
def shelf(world: World) -> Shelf:
    return shelf_of(world.servers.postgres)


def test_two_workers_share_what_is_due_and_deliver_each_once(rig: Rig, spec: Callable[..., Path]) -> None:
    tasks = []
    for _ in range(6):
        file = spec()
        rig("operator", "submit", file)
        # asked for by somebody who waits for a worker
        rig.cli("operator", "grant", file, "--wait", "0", worker=False, code=13)
        tasks.append(file.stem)
    rig.sql("UPDATE tasks SET due_at = now()")
    argv = [sys.executable, str(TWO_WORKERS), str(len(tasks))]
    environment = rig.cli.environment("operator")
    both = [subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=120)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert sorted(" ".join(said).split()) == sorted(tasks)
    for task in tasks:
        found = rig.record(task)
        assert (found.task.state, len(found.grants), len(rig.task_tokens(task))) == ("issued", 1, 1)
        assert [event.kind for event in found.events].count("delivered") == 1
        assert chain_problems(found.events, head=found.task.head) == []
        assert found.findings == ()


def test_news_that_another_process_stored_is_heard_at_once_and_nothing_is_lost_with_the_connection(
    shelf: Shelf,
) -> None:
    place = shelf.new()
    here, there = (Ledger(opened(place, create=False)) for _ in range(2))
    listener = here.listener()
    assert listener is not None
    # what was committed before it listened may be news
    assert listener.wait(0) and not listener.wait(0.1)
    there.record_session("hmac", NOW)
    assert not listener.wait(0.2)
    begun = time.monotonic()
    with ThreadPoolExecutor() as pool:
        pool.submit(lambda: (time.sleep(0.2), there.start_segments("a gap", NOW)))
        assert listener.wait(10) and time.monotonic() - begun < 2
    assert not listener.wait(0.1)
    ask(place, f"SELECT pg_terminate_backend(pid) FROM {LISTENING}")
    # what is committed while nobody listens was not heard: there may be some
    assert listener.wait(1)
    wait_for(lambda: not listener.wait(0.1))
    there.start_segments("a gap", NOW)
    assert listener.wait(5)
    listener.close()
    # the connection is nobody's any more
    wait_for(lambda: ask(place, f"SELECT count(*) FROM {LISTENING}")[0] == [(0,)])
    here.close()
    there.close()


def test_a_connection_that_a_pooler_made_listen_keeps_no_announcement(shelf: Shelf) -> None:
    ledger = Ledger(opened(shelf.new(), create=False))
    store = ledger._db.store
    with store.engine.connect() as connection:
        connection.exec_driver_sql("LISTEN jitvault")
        connection.commit()
        driver = connection.connection.driver_connection
        for _ in range(3):
            connection.exec_driver_sql("SELECT pg_notify('jitvault', '')")
            connection.commit()
        assert driver is not None and not driver._notifies_backlog
        connection.invalidate()
    ledger.close()


def test_a_ledger_moves_from_sqlite_to_postgresql_with_what_it_holds(
    world: World, variables: dict[str, str], tmp_path: Path, spec: Callable[..., Path], shelf: Shelf
) -> None:
    old = own_rig(world, {**variables, "JITVAULT_LEDGER": ""}, tmp_path)
    file = spec()
    held = old.active(file)
    url = shelf.empty()
    moved = {"JITVAULT_LEDGER": url}
    assert "ledger upgrade" in old("operator", "list", code=11, extra=moved).error["hint"]
    copied = old("operator", "ledger", "copy", "--to", url).json["counts"]
    assert copied["tasks"] == 1
    refused = old("operator", "ledger", "copy", "--to", url, code=9)
    assert "holds a ledger already" in refused.error["message"]

    checked = old("operator", "ledger", "check", code=None, extra=moved).json
    assert (checked["broken"], checked["unguarded"]) == ([], [])
    # what others have in this Vault is not in this ledger, and is told
    assert file.stem not in checked["heads"]["missing"]
    ended = old("operator", "complete", file.stem, extra=moved).json
    assert ended["confirmed"]
    assert not old.is_live(held.token)
    # the old one does not hold what was done since, and is found out
    behind = old("operator", "ledger", "check", code=12)
    assert file.stem in behind.json["heads"]["missing"]


def test_the_commands_of_the_ledger_say_what_they_did_and_no_password(rig: Rig, shelf: Shelf) -> None:
    url = shelf.empty()
    there = {"JITVAULT_LEDGER": url}
    said = [rig("operator", "ledger", "upgrade", extra=there), rig("operator", "ledger", "upgrade", extra=there)]
    assert [result.json["before"] for result in said] == [None, said[0].json["after"]]
    ask(url, "UPDATE alembic_version SET version_num = '0000'")
    old = rig("operator", "ledger", "check", code=11, extra=there)
    assert "no release wrote it" in old.error["message"]
    ask(url, "DROP TABLE alembic_version")
    nobodys = rig("operator", "ledger", "upgrade", code=11, extra=there)
    nowhere = rig("operator", "list", code=11, extra={"JITVAULT_LEDGER": url.replace("/empty_", "/no_")})
    for result in (*said, old, nobodys, nowhere):
        assert shelf.server.superuser_password not in result.stdout + result.stderr
