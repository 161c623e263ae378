"""Open the ledger's database, and check the version of its schema."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from jitvault.errors import LedgerFull, LedgerUnavailable, MissingLedger, OlderRules
from jitvault.ledger.storage import postgres, sqlite
from jitvault.ledger.storage.dialect import Store, take_time
from jitvault.ledger.storage.location import path_of
from jitvault.ledger.storage.postgres import Listener, PostgresStore
from jitvault.ledger.storage.sqlite import SqliteStore
from jitvault.model import rules_generation as generation

FIRST = "0100"
"""The version of the first release's schema. Earlier ones were never released, and nothing upgrades them."""
HEAD = "0100"
"""The schema's version: two digits for breaking changes, two for changes that only add."""

T = TypeVar("T")

_SETTING = "JITVAULT_LEDGER"
_EXAMPLES = "Examples: /var/lib/jitvault/ledger.db, postgresql://jitvault@db.example/jitvault."
_NAME_ANOTHER = "To begin a new ledger, name another file or database in JITVAULT_LEDGER."


class Database:
    """One ledger database. Create it with `opened`.

    `rules` is the generation of rules that its user follows, None for a user that only makes, moves or checks the
    ledger.
    """

    def __init__(self, store: Store, rules: int | None = None) -> None:
        self.store = store
        self.rules = rules

    @property
    def engine(self) -> Engine:
        return self.store.engine

    def write(self, unit: Callable[[Connection], T], *, alone: bool = False) -> T:
        """Run `unit` in one transaction; see `Store.write`.

        Raises OlderRules where a worker with newer rules used the ledger.
        """
        rules = self.rules
        if rules is None:
            return self.store.write(unit, alone=alone)

        def checked(connection: Connection) -> T:
            _check_rules(connection, rules)
            return unit(connection)

        return self.store.write(checked, alone=alone)

    def read(self) -> AbstractContextManager[Connection]:
        """Return a consistent view; nothing that is done in it is written."""
        return self.store.read()

    def mark(self) -> Hashable | None:
        """Return what every commit changes; see `Store.mark`."""
        return self.store.mark()

    def listener(self) -> Listener | None:
        """Return what hears of commits of news; None where the database announces none."""
        return self.store.listener() if isinstance(self.store, PostgresStore) else None

    def close(self) -> None:
        """Close idle connections. A later use opens new ones."""
        self.store.close()


def opened(ledger: str, *, create: bool) -> Database:
    """Return the ledger at a URL, or in the file at a path.

    A missing SQLite file is created where `create` is true. Raises LedgerUnavailable for a ledger that cannot be used,
    for a missing one, and for a schema version that is not this one's and does not only add to it: an old ledger is
    never migrated silently.
    """
    url = _url(ledger)
    if not _is_file(url):
        return _checked(Database(PostgresStore(url), generation.GENERATION))
    sqlite.prepare(_file(url), create=create)
    store = SqliteStore(url)
    database = Database(store, generation.GENERATION)
    try:
        if create:
            # a new ledger has no generation to compare with yet
            _create(Database(store))
        return _checked(database)
    except LedgerFull:
        # Opened exclusively, the index of its log needs no room on the disk, so that the ledger can still be read.
        return _checked(Database(SqliteStore(url, exclusive=True), generation.GENERATION))


def raw(ledger: str, named: str = _SETTING) -> Database:
    """Return the database at a URL or a path whatever is in it.

    For making, upgrading or checking a ledger. `named` is what named it, for errors. Raises LedgerUnavailable.
    """
    url = _url(ledger, named)
    if not _is_file(url):
        return Database(PostgresStore(url))
    sqlite.prepare(_file(url), create=True)
    return Database(SqliteStore(url))


def version(database: Database) -> str | None:
    """Return the schema's version, None for a database without one."""
    with database.read() as connection:
        return _version(connection)


def is_known(found: str | None) -> bool:
    """Return whether this jitvault can use a ledger of version `found`.

    It can use its own version, and those that only add to it.
    """
    return found is not None and found[:2] == HEAD[:2] and found >= HEAD


def upgrade(database: Database) -> tuple[str | None, str]:
    """Upgrade the schema, or make it; return the versions before and after.

    Of several processes that come at once, one does it. Raises LedgerUnavailable for a foreign database, for a newer
    version and for one from before the first release.
    """
    from jitvault.ledger.storage.migrations import upgrade as migrate

    def unit(connection: Connection) -> tuple[str | None, str]:
        before = _version(connection)
        if before is None and not _is_empty(connection):
            raise _wrong(None)
        if before is not None and not FIRST <= before <= HEAD:
            raise _wrong(before)
        take_time(connection)
        migrate(connection)
        return before, HEAD

    return database.write(unit, alone=True)


def _url(ledger: str, named: str = _SETTING) -> URL:
    """Parse the ledger's location, which is in `named`.

    Raises LedgerUnavailable, and never repeats the location: it may hold a password.
    """
    file = path_of(ledger)
    try:
        url = make_url(ledger if file is None else f"sqlite:///{file}")
    except (ArgumentError, ValueError):
        raise LedgerUnavailable(
            f"{named} is not a path or a database URL",
            hint=f"{_EXAMPLES} Keywords, such as `host=db.example`, are not read.",
        ) from None
    name = url.drivername.partition("+")[0]
    if name in ("postgresql", "postgres"):
        return postgres.checked(url)
    if name == "sqlite":
        return sqlite.checked(url)
    raise LedgerUnavailable(f"{named}: expected a SQLite file or a PostgreSQL database", hint=_EXAMPLES)


def _is_file(url: URL) -> bool:
    return url.drivername.startswith("sqlite")


def _file(url: URL) -> Path:
    return Path(url.database or "")


def _create(database: Database) -> None:
    """Make the schema where there is none.

    Of two processes that start at once, the second one finds the schema made. The file's size tells nothing: another
    process may have made the file and not yet the schema, or died in between.
    """
    with database.read() as connection:
        empty = _is_empty(connection)
    if empty:
        upgrade(database)


def _checked(database: Database) -> Database:
    """Return the database if its schema can be used.

    Raises LedgerUnavailable.
    """
    with database.read() as connection:
        found = _version(connection)
        empty = found is None and _is_empty(connection)
    if empty and isinstance(database.store, PostgresStore):
        raise MissingLedger("there is no ledger in this database", hint="`jitvault ledger upgrade` makes one.")
    if empty:
        # a worker may be about to make it
        raise MissingLedger("there is no ledger in this file")
    if not is_known(found):
        raise _wrong(found)
    return database


def _check_rules(connection: Connection, rules: int) -> None:
    """Raise OlderRules where a worker of a higher generation used the ledger."""
    # Runs in each transaction, through the driver: SQLAlchemy's layer costs more than the query.
    newest = connection.exec_driver_sql("SELECT generation FROM installation").scalar()
    if newest is not None and newest > rules:
        raise OlderRules(
            f"a newer jitvault worked on this ledger: it follows rules of generation {newest}, this one {rules}"
        )


def _wrong(found: str | None) -> LedgerUnavailable:
    """Return the error for a schema version that cannot be used."""
    message = f"the ledger has schema version {found or 'none'}, this jitvault needs {HEAD}"
    if found is not None and found < FIRST:
        return LedgerUnavailable(f"{message}: no release wrote it, so none upgrades it", hint=_NAME_ANOTHER)
    if found is not None and found < HEAD:
        return LedgerUnavailable(message, hint="`jitvault ledger upgrade` upgrades it, also while older workers run.")
    return LedgerUnavailable(message, hint=f"Use the jitvault that wrote it. {_NAME_ANOTHER}")


def _is_empty(connection: Connection) -> bool:
    found = inspect(connection)
    return not found.get_table_names() and not found.get_view_names()


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
