"""Make the schema of 0.1.0 from the SQL beside this file, one text for each database.

What the first tag has of it is never edited again: a later change of `schema.py` is a migration of its own.
"""

from pathlib import Path

from alembic import op

revision = "0100"
down_revision = None


def upgrade() -> None:
    text = Path(__file__).with_name(f"0100_{op.get_bind().dialect.name}.sql").read_text()
    for statement in text.split(";\n\n"):
        op.execute(statement)
