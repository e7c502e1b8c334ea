"""Functions through which the tables of an attached Smarter platform are read."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run("versions/0005_platform.up.sql")


def downgrade() -> None:
    run("versions/0005_platform.down.sql")
