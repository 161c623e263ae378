"""What a create was to ask for stands beside its operation id."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("grants", sa.Column("asked", sa.JSON(), nullable=True))
