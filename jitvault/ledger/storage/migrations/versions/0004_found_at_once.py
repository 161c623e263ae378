"""Find at once what is asked for each grant and each audit line.

How much the ledger holds makes no difference.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_OPEN = sa.text("closed_at IS NULL")
# What SQLite is to think of the lines' indexes: how many rows there are, and how many of them have one value (or, of
# two columns, one pair). Where it was told nothing it takes the index by kind, of which there may be millions, as
# readily as the one by subject, of which there are a few.
_ROWS = {
    "ix_observations_kind": "1000000 60000 2",
    "ix_observations_actor": "1000000 60",
    "ix_observations_subject": "1000000 6",
    "ix_observations_op": "1000000 3",
    "ix_observations_token": "40000 2",
    "ix_observations_alias": "40000 2",
    "sqlite_autoindex_observations_1": "1000000 1",
}


def upgrade() -> None:
    op.create_index("ix_grants_create_op", "grants", ["create_op"], unique=False)
    op.create_index("ix_findings_open", "findings", ["at"], unique=False, sqlite_where=_OPEN, postgresql_where=_OPEN)
    if op.get_bind().dialect.name == "sqlite":
        _tell_sqlite()


def _tell_sqlite() -> None:
    """Make SQLite count its rows again.

    PostgreSQL counts its rows by itself. SQLite counts when it is told to, and what it then counts is soon old.
    """
    # makes the table for it
    op.execute("ANALYZE installation")
    op.execute("DELETE FROM sqlite_stat1 WHERE tbl = 'observations'")
    for index, rows in _ROWS.items():
        op.execute(f"INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('observations', '{index}', '{rows}')")  # noqa: S608 - ours
    # has them read by those who have the ledger open
    op.execute("ANALYZE sqlite_schema")
