"""The schema's history since the first release, for both databases.

A migration that only adds (tables, nullable columns, columns with a default, indexes) raises the last two digits of the
revision, and workers of the version before go on beside it. One that those workers could not work with raises the first
two, and they are refused. A migration is SQL or Alembic's operations, and never made from `schema.py`, which changes.
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
