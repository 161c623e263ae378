"""Store which of the two servers a ledger was last used with.

So it is noticed when the other one answers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("installation", sa.Column("product", sa.String(length=20), nullable=True))
