"""Note documents by path, and those that are too many by the folder."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("rewritten", sa.Column("folder", sa.String(length=256), server_default=sa.text("''"), nullable=False))
    op.create_index(op.f("ix_rewritten_folder"), "rewritten", ["folder"], unique=False)
