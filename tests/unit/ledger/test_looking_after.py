"""Looking after a ledger as a whole: checked, moved to another database, and upgraded while old workers run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from builders import (
    LEASE,
    NOW,
    TOKEN,
    as_is,
    change,
    drop_trigger,
    file_of,
    make,
    read,
    revision,
    seen,
    task,
    two_tasks,
)
from event_examples import body
from ledgers import LedgerPlace, Shelf, address, owner_of
from sqlalchemy import Connection, select

from jitvault.audit.observation import Kind
from jitvault.errors import LedgerUnavailable, SecurityFinding, WrongState
from jitvault.ledger.chains import lacking, look
from jitvault.ledger.copy import copy
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import HEAD, Database, is_known, opened, raw, upgrade
from jitvault.ledger.storage.migrations import config_for

NUL = "a\0b"


def fill(ledger: Ledger) -> None:
    """Something in most tables, and a child that stands before its parent."""
    two_tasks(ledger)
    child = replace(task("a-child"), parent="t-1", created_at=NOW)
    ledger.create(
        child, Change("submitted", body("submitted", note=NUL, revision=2**53 - 1), rows=(revision("a-child"),)), at=NOW
    )
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN, detail={"e": NUL}), seen(2, Kind.HAZARD)])
    ledger.set_installation("i-1")
    ledger.finding(None, "unknown_token", "first", NOW)
    ledger.finding("t-1", "denied", "second", NOW)


# -- check --------------------------------------------------------------------------------------------------


def test_a_whole_ledger_has_nothing_to_tell(database: Database, ledger: Ledger) -> None:
    fill(ledger)
    found = look(database)
    assert (found.broken, found.unguarded) == ({}, ())
    assert (found.counts["tasks"], found.counts["observations"], found.counts["orphans"]) == (3, 2, 0)
    events = file_of(ledger).events
    heads = {"t-1": (events[0].seq, events[0].hash), "t-2": (1, "other"), "gone": (1, "x"), "a-child": (9, "x")}
    assert lacking(database, heads) == ["a-child", "gone", "t-2"]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ("UPDATE events SET kind = 'x' WHERE task_id = 't-2' AND seq = 1", "event 1 was changed"),
        ("DELETE FROM events WHERE task_id = 't-2' AND seq = 1", "event 1 is missing"),
        ("DELETE FROM events WHERE task_id = 't-2' AND seq = 2", "head is not its last event"),
        ("DELETE FROM events WHERE task_id = 't-2'", "the task has no events"),
        ("UPDATE tasks SET head = 'x' WHERE task_id = 't-2'", "head is not its last event"),
        ("UPDATE tasks SET seq = 7 WHERE task_id = 't-2'", "says that it has 7 events"),
    ],
)
def test_an_edited_chain_is_told(database: Database, ledger: Ledger, place: LedgerPlace, edit: str, told: str) -> None:
    fill(ledger)
    for act in ("update", "delete"):
        drop_trigger(place, f"events_no_{act}", "events")
    as_is(place, edit)
    found = look(database)
    assert list(found.broken) == ["t-2"]
    assert told in "; ".join(found.broken["t-2"])
    assert found.unguarded == ("events_no_delete", "events_no_update")


def test_a_trigger_that_was_switched_off_is_missing(shelf: Shelf) -> None:
    url = shelf.new()
    as_is(url, "ALTER TABLE events DISABLE TRIGGER events_no_truncate")
    assert look(opened(url, create=False)).unguarded == ("events_no_truncate",)


@pytest.mark.parametrize("place", ["host=db.example dbname=jitvault", "mysql://db.example/jitvault", "ledger.db"])
@pytest.mark.parametrize(("named", "told"), [({"named": "--to"}, "--to"), ({}, "JITVAULT_LEDGER")])
def test_a_place_that_cannot_be_one_is_told_by_where_it_was_named(place: str, named: dict[str, str], told: str) -> None:
    with pytest.raises(LedgerUnavailable) as refused:
        raw(place, **named)
    said = f"{refused.value} {refused.value.hint}"
    assert said.startswith(told) and "postgresql://jitvault@db.example/jitvault" in said
    assert ("JITVAULT_LEDGER" in said) is (told == "JITVAULT_LEDGER")


# -- copy ---------------------------------------------------------------------------------------------------


def rows_of(database: Database) -> dict[str, list[dict[str, Any]]]:
    with database.read() as connection:
        return {
            table.name: sorted((dict(row) for row in connection.execute(select(table)).mappings()), key=str)
            for table in schema.metadata.sorted_tables
        }


@pytest.fixture
def target(shelf: Shelf) -> Database:
    made = raw(shelf.empty())
    upgrade(made)
    return made


def test_a_copy_holds_all_of_it_and_goes_on(database: Database, ledger: Ledger, target: Database) -> None:
    fill(ledger)
    counts = copy(database, target)
    assert counts == look(target).counts
    assert rows_of(target) == rows_of(database)
    copied = Ledger(target)
    change(copied, Change("noted"))
    copied.finding("t-1", "denied", "third", NOW)
    assert [found["message"] for found in file_of(copied).findings] == ["second", "third"]
    assert look(target).broken == {}
    with pytest.raises(WrongState, match="holds a ledger already"):
        copy(database, target)


def test_nothing_is_copied_while_somebody_works_or_of_a_chain_that_is_not_whole(
    database: Database, ledger: Ledger, place: LedgerPlace, target: Database
) -> None:
    fill(ledger)
    for claim in (ledger.claim("t-1"), ledger.claim_source("audit"), ledger.claim_sweep()):
        with claim, pytest.raises(WrongState, match="a process still holds a claim"):
            copy(database, target)
    as_is(place, "UPDATE tasks SET head = 'x' WHERE task_id = 't-2'")
    with pytest.raises(SecurityFinding, match="chain of task t-2 is not whole"):
        copy(database, target)
    assert set(look(target).counts.values()) == {0}


# -- upgrade ------------------------------------------------------------------------------------------------


def test_a_schema_that_only_adds_to_this_one_can_be_used() -> None:
    assert is_known(HEAD) and is_known(f"{HEAD[:2]}99")
    assert not is_known(None) and not is_known("0099") and not is_known("0201")


NEXT = """
from alembic import op
import sqlalchemy as sa
revision = "0199"
down_revision = "HEAD"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("more", sa.String(length=9), nullable=True))
"""


@pytest.fixture
def next_version(tmp_path: Path) -> Callable[[Connection], Config]:
    """Alembic's configuration of a later jitvault, which has one more migration."""
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "0199_more.py").write_text(NEXT.replace('"HEAD"', f'"{HEAD}"'))

    def config(connection: Connection) -> Config:
        config = config_for(connection)
        config.set_main_option("version_locations", f"{config.get_main_option('version_locations')} {versions}")
        return config

    return config


def test_workers_go_on_while_a_schema_that_only_adds_is_made(
    database: Database, ledger: Ledger, place: LedgerPlace, next_version: Callable[[Connection], Config]
) -> None:
    fill(ledger)
    with ledger.claim("t-1") as claim:
        migrate = raw(owner_of(address(place)))
        migrate.write(lambda connection: command.upgrade(next_version(connection), "head"), alone=True)
        # one that runs already, and one that starts
        ledger.apply("t-1", Change("old"), claim=claim, at=NOW)
    make(Ledger(opened(address(place), create=False)), "t-9")
    assert look(database).broken == {}
    assert as_is(place, "SELECT more FROM tasks WHERE task_id = 't-9'") == [(None,)]
    with pytest.raises(LedgerUnavailable, match="schema version 0199"):
        upgrade(database)


def test_a_ledger_of_the_version_before_is_refused_and_upgraded_with_what_it_holds(
    database: Database,
    ledger: Ledger,
    place: LedgerPlace,
    next_version: Callable[[Connection], Config],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(ledger)
    before = rows_of(database)
    monkeypatch.setattr("jitvault.ledger.storage.database.HEAD", "0199")
    monkeypatch.setattr("jitvault.ledger.storage.migrations.config_for", next_version)
    with pytest.raises(LedgerUnavailable, match=f"schema version {HEAD}, this jitvault needs 0199") as caught:
        opened(address(place), create=True)
    assert "ledger upgrade" in caught.value.hint
    owner = owner_of(address(place))
    assert upgrade(raw(owner)) == (HEAD, "0199")
    assert rows_of(opened(owner, create=False)) == before


@pytest.mark.parametrize("version", ["0001", "0013"])
def test_a_ledger_from_before_the_first_release_is_refused_and_left_alone(
    database: Database, ledger: Ledger, place: LedgerPlace, version: str
) -> None:
    fill(ledger)
    before = rows_of(database)
    as_is(place, f"UPDATE alembic_version SET version_num = '{version}'")
    owner = owner_of(address(place))
    for use in (lambda: opened(address(place), create=True), lambda: upgrade(raw(owner))):
        with pytest.raises(LedgerUnavailable, match="no release wrote it, so none upgrades it") as caught:
            use()
        assert caught.value.exit_code == 11
    assert as_is(place, "SELECT version_num FROM alembic_version") == [(version,)]
    assert rows_of(database) == before


def test_an_upgrade_of_what_is_there_leaves_it_as_it_is(database: Database, ledger: Ledger) -> None:
    fill(ledger)
    before = rows_of(database)
    assert upgrade(database) == (HEAD, HEAD)
    assert rows_of(database) == before
