"""Indexes and tables for the lists of keys, resources and the audit; labels."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run("versions/0006_lists.up.sql")


def downgrade() -> None:
    run("versions/0006_lists.down.sql")
