"""Store judged requests, and authors who write too many.

A request that was judged is not read again, and who wrote more than is taken in is known.
"""

import sqlalchemy as sa
from alembic import op

from jitvault.ledger.storage.column_types import UtcTime

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "judged",
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("author", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("written_at", UtcTime(), nullable=False),
        sa.Column("judgement", sa.String(length=16), nullable=False),
        sa.Column("line_at", UtcTime(), nullable=True),
        sa.Column("judged_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_judged")),
    )
    op.create_index(op.f("ix_judged_author"), "judged", ["author"], unique=False)
    op.create_table(
        "over_quota",
        sa.Column("author", sa.String(length=64), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("author", name=op.f("pk_over_quota")),
    )
