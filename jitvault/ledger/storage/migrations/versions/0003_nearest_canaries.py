"""Find the canaries around a task at once.

A worker that runs on leaves thousands of canaries a day.
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("ix_canaries_at", "canaries", ["at"], unique=False)
    op.create_index("ix_canaries_source", "canaries", ["source", "at"], unique=False)
