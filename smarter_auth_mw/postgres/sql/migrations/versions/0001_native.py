"""The native layout."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0001"
down_revision = None


def upgrade() -> None:
    run("versions/0001_native.up.sql")


def downgrade() -> None:
    run("versions/0001_native.down.sql")
