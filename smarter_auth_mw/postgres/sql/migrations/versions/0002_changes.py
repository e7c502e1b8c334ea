"""Changes: triggers record each change of what decisions depend on."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run("versions/0002_changes.up.sql")


def downgrade() -> None:
    run("versions/0002_changes.down.sql")
