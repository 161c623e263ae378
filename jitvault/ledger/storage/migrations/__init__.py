"""The schema's history, for both databases.

No change of the schema goes by silently. A migration that only adds (tables, nullable columns, columns with a default,
indexes) counts up the last two digits of its revision, and workers of the version before go on beside it. One that old
workers could not work with counts up the first two: they are refused.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def config_for(connection: Connection) -> Config:
    """Return Alembic's configuration for the caller's connection.

    Alembic works in the caller's transaction.
    """
    here = Path(__file__).parent
    config = Config()
    config.set_main_option("script_location", str(here))
    config.set_main_option("path_separator", "space")
    config.set_main_option("version_locations", str(here / "versions"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Run every migration that is missing inside the caller's transaction."""
    command.upgrade(config_for(connection), "head")
