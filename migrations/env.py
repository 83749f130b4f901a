"""Run migrations on the connection that `rollout.store.migrate` hands over; there is no other way in."""

from alembic import context

from rollout.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    # SQLite can run its schema changes in a transaction; Alembic only has to be told
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
