"""Numbers: a resource that is created without a reference gets a number."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run("versions/0003_numbers.up.sql")


def downgrade() -> None:
    run("versions/0003_numbers.down.sql")
