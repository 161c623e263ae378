from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import LedgerPlace, Shelf, address, new_file

from jitvault.ledger.ledger import Ledger
from jitvault.ledger.storage.database import Database, opened
from jitvault.sandbox.postgres import Postgres


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield Shelf(server)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerPlace:
    """Where one test's ledger is: each test of the ledger runs on both databases."""
    if request.param == "sqlite":
        return tmp_path / "ledger.db"
    shelf: Shelf = request.getfixturevalue("shelf")
    return shelf.new()


@pytest.fixture
def database(place: LedgerPlace) -> Iterator[Database]:
    if isinstance(place, Path):
        new_file(place)
    made = opened(address(place), create=True)
    yield made
    made.close()


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database)
