"""Store the highest generation of rules that worked on a ledger.

A lower generation writes nothing any more.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("installation", sa.Column("generation", sa.Integer(), server_default=sa.text("0"), nullable=False))
