"""Bound what one author writes.

Findings and notices say whose they are, and writes beyond a number are counted.
"""

import sqlalchemy as sa
from alembic import op

from jitvault.ledger.storage.column_types import UtcTime

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("findings", sa.Column("author", sa.String(length=64), nullable=True))
    op.add_column("findings", sa.Column("more", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_index(op.f("ix_findings_author"), "findings", ["author", "rule"], unique=False)
    op.add_column("notices", sa.Column("author", sa.String(length=64), nullable=True))
    op.add_column("notices", sa.Column("severe", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_table(
        "rewritten",
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("claim", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_rewritten")),
    )
    op.create_index(op.f("ix_rewritten_at"), "rewritten", ["at"], unique=False)
    op.create_table(
        "writers",
        sa.Column("author", sa.String(length=256), nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("author", name=op.f("pk_writers")),
    )
