"""Workspaces, whose members share cached prompts; how large a user's requests may be."""

import sqlalchemy as sa
from alembic import op

from diffusion_core.accounts.tables import Moment

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add them; all users go on without a workspace and with the server's limit."""
    op.create_table(
        "workspaces",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workspaces"),
        sa.UniqueConstraint("name", name="uq_workspaces_name"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("users", table_kwargs={"sqlite_autoincrement": True}) as users:
        users.add_column(sa.Column("max_request_bytes", sa.Integer))
        users.add_column(sa.Column("workspace_id", sa.Integer))
        users.create_foreign_key("fk_users_workspace_id", "workspaces", ["workspace_id"], ["id"])
        users.create_index("ix_users_workspace_id", ["workspace_id"])
