"""Alembic's entry point.

The connection comes from the caller, who owns the transaction.
"""

from alembic import context

from jitvault.ledger.storage.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=False)
context.run_migrations()
