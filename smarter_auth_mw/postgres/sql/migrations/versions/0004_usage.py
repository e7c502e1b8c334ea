"""Usage: requests counted by resource, token and outcome."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run("versions/0004_usage.up.sql")


def downgrade() -> None:
    run("versions/0004_usage.down.sql")
