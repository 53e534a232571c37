"""What Alembic runs: the revisions, over a connection that the caller opened and commits."""

from alembic import context

from diffusion_core.accounts.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()
