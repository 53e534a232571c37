"""Alembic's revisions of the accounts' database: one file a change, never altered once released."""
