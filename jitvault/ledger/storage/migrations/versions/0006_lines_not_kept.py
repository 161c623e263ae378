"""Count lines that anybody can have written.

A delivered wrapping token is known without its line.
"""

import sqlalchemy as sa
from alembic import op

from jitvault.ledger.storage.column_types import UtcTime

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "lines_not_kept",
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("last_at", UtcTime(), nullable=False),
        sa.Column("last_remote", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_lines_not_kept")),
    )
    op.add_column("grants", sa.Column("wrapping_hmac", sa.String(length=80), nullable=True))
    op.create_index(op.f("ix_grants_wrapping_hmac"), "grants", ["wrapping_hmac"], unique=False)
