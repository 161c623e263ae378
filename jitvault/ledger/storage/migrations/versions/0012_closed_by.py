"""Store who closed a finding: an entity of Vault, and its name then."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("findings", sa.Column("closed_by", sa.String(length=255), nullable=True))
    op.add_column("findings", sa.Column("closed_by_entity", sa.String(length=64), nullable=True))
