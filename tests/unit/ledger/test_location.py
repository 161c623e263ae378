"""Where a ledger is, read without the database library, is where that library finds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from jitvault.ledger.storage.location import file_of, ledger_exists, shown

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="?"), min_size=1)


@given(scheme=st.sampled_from(["sqlite", "sqlite+pysqlite"]), name=NAMES)
def test_the_file_of_a_url_is_the_one_that_is_opened(scheme: str, name: str) -> None:
    url = f"{scheme}:///{name}"
    assert file_of(url) == Path(make_url(url).database or "")


@pytest.mark.parametrize(
    ("ledger", "file"),
    [
        ("/var/lib/jitvault/ledger.db", Path("/var/lib/jitvault/ledger.db")),
        ("./ledger.db", Path("ledger.db")),
        ("~/ledger.db", Path.home() / "ledger.db"),
        ("sqlite:////var/lib/jitvault/ledger.db", Path("/var/lib/jitvault/ledger.db")),
        ("sqlite:///ledger.db", Path("ledger.db")),
        ("sqlite:///a#b", Path("a#b")),
        ("sqlite://", None),
        ("postgresql://jitvault@db.example/jitvault", None),
        ("postgresql://[", None),
        ("banana", None),
    ],
)
def test_only_a_ledger_on_sqlite_is_a_file(ledger: str, file: Path | None) -> None:
    assert file_of(ledger) == file


def test_a_file_that_is_not_there_is_no_ledger_and_what_is_no_file_is_found_out_later(tmp_path: Path) -> None:
    (tmp_path / "there.db").touch()
    assert ledger_exists(str(tmp_path / "there.db")) and ledger_exists(f"sqlite:///{tmp_path / 'there.db'}")
    assert not ledger_exists(str(tmp_path / "none.db")) and not ledger_exists(f"sqlite:///{tmp_path / 'none.db'}")
    assert ledger_exists("postgresql://db.example/jitvault") and ledger_exists("banana")


@pytest.mark.parametrize(
    ("ledger", "place"),
    [
        ("sqlite:////var/lib/jitvault/ledger.db", "/var/lib/jitvault/ledger.db"),
        ("~/ledger.db", str(Path.home() / "ledger.db")),
        ("postgresql://jitvault@db.example:5433/jitvault", "postgresql://jitvault@db.example:5433/jitvault"),
        ("postgresql://jitvault:hunter2@db.example/jitvault", "postgresql://jitvault@db.example/jitvault"),
        ("postgresql://jitvault:a@hunter2@db.example/jitvault", "postgresql://jitvault@db.example/jitvault"),
        ("postgresql://db.example/jitvault?user=me&password=hunter2", "postgresql://db.example/jitvault"),
        ("postgresql://:hunter2@/jitvault", "postgresql:///jitvault"),
        ("postgresql://hunter2[", "the place that JITVAULT_LEDGER names"),
        ("hunter2", "the place that JITVAULT_LEDGER names"),
    ],
)
def test_a_ledger_is_named_without_its_password(ledger: str, place: str) -> None:
    assert shown(ledger) == place
