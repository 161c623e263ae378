from __future__ import annotations

from pathlib import Path

import pytest

from jitvault.ledger.database import Database, opened
from jitvault.ledger.ledger import SqlLedger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def database(path: Path) -> Database:
    return opened(f"sqlite:///{path}", create=True)


@pytest.fixture
def ledger(database: Database) -> SqlLedger:
    return SqlLedger(database)
