"""The incarnation of the server, which changes with each crash recovery."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run("versions/0007_incarnation.up.sql")


def downgrade() -> None:
    run("versions/0007_incarnation.down.sql")
