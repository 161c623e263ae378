"""Find due tasks among the tasks that are not over.

There may be millions of the others.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_OPEN = sa.text("state NOT IN ('cancelled', 'denied', 'lapsed', 'sealed', 'unverified')")


def upgrade() -> None:
    op.create_index(
        "ix_tasks_open", "tasks", ["state", "due_at"], unique=False, sqlite_where=_OPEN, postgresql_where=_OPEN
    )
    op.drop_index("ix_tasks_due", table_name="tasks")
