"""A name for the server that a crash takes away, so that caches learn of each recovery."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run("versions/0007_incarnation.up.sql")


def downgrade() -> None:
    run("versions/0007_incarnation.down.sql")
