"""The one row about the installation.

It has the installation's id, the server product, and the generation of rules.
"""

from __future__ import annotations

from sqlalchemy import (
    select,
    update,
)

from jitvault.formats.server_product import Product
from jitvault.ledger.rows import last_product
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import Database
from jitvault.ledger.storage.dialect import upsert
from jitvault.ledger.storage.rights import login_of, refusal


class InstallationQueries:
    """Read and write whose ledger this is; a part of `Ledger`."""

    _db: Database

    def installation(self) -> str | None:
        """Return the id of the installation, None for a new ledger."""
        with self._db.read() as connection:
            return connection.execute(select(schema.installation.c.id)).scalar()

    def set_installation(self, installation: str) -> None:
        """Bind a new ledger to an installation.

        A ledger that is bound keeps its installation.
        """
        values = {"one": 1, "id": installation}
        # two processes that start with a new ledger can both get here
        self._db.write(lambda c: c.execute(upsert(c, schema.installation).values(values).on_conflict_do_nothing()))

    def product(self) -> Product | None:
        """Return the server product that the ledger was last used with.

        None where no server said which product it is.
        """
        with self._db.read() as connection:
            return last_product(connection)

    def set_product(self, product: Product) -> None:
        """Record the server product that the ledger is used with."""
        self._db.write(lambda c: c.execute(update(schema.installation).values(product=product.value)))

    def check_login(self) -> None:
        """Raise LedgerUnavailable where the login lacks a right of a worker's.

        A ledger in a file has no logins.
        """
        with self._db.read() as connection:
            if connection.dialect.name == "postgresql" and (refused := refusal(login_of(connection, writes=True))):
                raise refused

    def raise_generation(self, generation: int) -> None:
        """Record that a worker with rules of this generation uses the ledger.

        Workers of lower generations may not write from then on.
        """
        recorded = schema.installation.c.generation
        with self._db.read() as connection:
            if connection.execute(select(recorded).where(recorded < generation)).first() is None:
                return
        higher = update(schema.installation).where(recorded < generation).values(generation=generation)
        self._db.write(lambda c: c.execute(higher))
