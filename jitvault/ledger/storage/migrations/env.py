"""Alembic's entry point.

The connection comes from the caller, who owns the transaction.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()
