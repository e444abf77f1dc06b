"""Alembic's entry: run the migrations on the connection that ``infra.db.migrate`` holds."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
