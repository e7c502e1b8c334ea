"""Keys of one name in one account, where an import brings them with their tokens."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run("versions/0010_namesakes.up.sql")


def downgrade() -> None:
    run("versions/0010_namesakes.down.sql")
