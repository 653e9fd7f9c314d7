"""Alembic's entry: runs the migrations in the transaction of the connection it was given."""

from __future__ import annotations

from alembic import context

from perennial.stores.registry.schema import REVISION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=REVISION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
