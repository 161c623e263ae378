"""Index the documents by which access ends.

So only those are read that were written since.
"""

import sqlalchemy as sa
from alembic import op

from jitvault.ledger.storage.column_types import UtcTime

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("author", sa.String(length=64), nullable=False),
        sa.Column("about", sa.String(length=63), nullable=False),
        sa.Column("news", sa.Integer(), nullable=False),
        sa.Column("read", sa.Integer(), nullable=False),
        sa.Column("standing", sa.String(length=8), nullable=True),
        sa.Column("body", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("kind", "author", "about", name=op.f("pk_documents")),
    )
    op.create_index(op.f("ix_documents_about"), "documents", ["about"], unique=False)
    op.create_table(
        "listings",
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("gaps", sa.Integer(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_listings")),
    )
